# SPDX-License-Identifier: GPL-2.0-or-later
"""What every test shares: a cache and a home of its own unless it asks for the real ones."""

from __future__ import annotations

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout under test."""
    return REPOSITORY
