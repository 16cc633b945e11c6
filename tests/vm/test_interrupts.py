# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that waits for interrupts: none is lost, and one that is lost shows."""

from __future__ import annotations

import pytest

from harness.testing import Freepage


def test_no_interrupt_is_lost(freepage: Freepage) -> None:
    run = freepage.run("interrupts")
    assert run.verdict == "pass", run
    assert run.result.observed["interrupts"] > 100


@pytest.mark.slow
def test_one_that_is_lost_shows(freepage: Freepage) -> None:
    run = freepage.run("interrupts", "--fault", "msix-masked", arm="off")
    assert "interrupt-lost" in {finding.rule for finding in run.result.findings}, run
