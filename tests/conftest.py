# SPDX-License-Identifier: GPL-2.0-or-later
"""What every test shares: a cache and a home of its own unless it asks for the real ones."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

REPOSITORY = Path(__file__).resolve().parent.parent


def pytest_configure() -> None:
    """Whatever starts the tests in the background ignores SIGINT, and so would all that they start."""
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    # What tests run is nobody's night: it is kept in no history but those that they name.
    os.environ["FREEPAGE_HISTORY"] = "off"
    # How long an example takes is the machine's affair: a busy one failed a test by that alone.
    settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("untimed")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout under test."""
    return REPOSITORY
