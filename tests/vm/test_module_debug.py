# SPDX-License-Identifier: GPL-2.0-or-later
"""Whole runs with the debug kernel: it reports nothing, and where it poisons free pages nothing is asked."""

from __future__ import annotations

import pytest

from harness.testing import Freepage, Run

#: Emulated, that kernel takes minutes to fill its memory and to look through it for leaks.
LONGEST = 900

pytestmark = [pytest.mark.slow, pytest.mark.timeout(LONGEST + 60)]


def run_debug(freepage: Freepage, scenario: str, **settings: object) -> Run:
    """One run with the debug kernel, which leaves half of so small a guest to its programs."""
    keys = {"expect.skipped_percent_min": None, **settings}
    return freepage.run(scenario, kernel="debug", set=keys, timeout=LONGEST)


@pytest.mark.parametrize("scenario", ["freed", "churn", "offlined", "unbound"])
def test_a_debug_kernel_has_nothing_to_report(freepage: Freepage, scenario: str) -> None:
    """Locks, lists, sleeping, memory and leaks: all are looked at after the migration."""
    run = run_debug(freepage, scenario)
    assert run.exit_code == 0, str(run)
    assert run.result.pages.skipped > 0
    assert run.result.guest.kernel_warnings == []


def test_a_guest_that_poisons_its_free_pages_is_not_asked(freepage: Freepage) -> None:
    """Its driver declines: zeros on the destination would trip the kernel's check."""
    # QEMU says that it was the driver that declined; the verdict would be fail for any other reason.
    why = "the guest has no driver for it"
    keys = {"expect.skipping": False, "guest.cmdline": "page_poison=1", "expect.refused": why}
    run = run_debug(freepage, "freed", **keys)
    assert run.exit_code == 0, str(run)
    result = run.result
    assert (result.protocol.requests, result.pages.skipped) == (0, 0)
    assert result.guest.kernel_warnings == []
