# SPDX-License-Identifier: GPL-2.0-or-later
"""Whole runs with the debug kernel: it reports nothing, and where it poisons free pages nothing is asked."""

from __future__ import annotations

import pytest

from tests.vm.conftest import Ended, Start

#: Emulated, that kernel takes minutes to fill its memory and to look through it for leaks.
LONGEST = 900

pytestmark = [pytest.mark.slow, pytest.mark.timeout(LONGEST + 60)]


def run_debug(start: Start, scenario: str, *settings: str) -> Ended:
    """One run with the debug kernel, which leaves half of so small a guest to its programs."""
    keys = ("expect.skipped_percent_min=null", *settings)
    words = (word for key in keys for word in ("--set", key))
    return start("run", scenario, "--json", "--kernel", "debug", *words).end(LONGEST)


@pytest.mark.parametrize("scenario", ["freed", "churn", "offlined", "unbound"])
def test_a_debug_kernel_has_nothing_to_report(start: Start, scenario: str) -> None:
    """Locks, lists, sleeping, memory and leaks: all are looked at after the migration."""
    ended = run_debug(start, scenario)
    assert ended.status == 0, str(ended)
    assert ended.result.pages.skipped > 0
    assert ended.result.guest.kernel_warnings == []


def test_a_guest_that_poisons_its_free_pages_is_not_asked(start: Start) -> None:
    """Its driver declines: zeros on the destination would trip the kernel's check."""
    # QEMU says that it was the driver that declined; the verdict would be fail for any other reason.
    why = "expect.refused=the guest has no driver for it"
    ended = run_debug(start, "freed", "expect.skipping=false", "guest.cmdline=page_poison=1", why)
    assert ended.status == 0, str(ended)
    result = ended.result
    assert (result.protocol.requests, result.pages.skipped) == (0, 0)
    assert result.guest.kernel_warnings == []
