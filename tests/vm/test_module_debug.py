# SPDX-License-Identifier: GPL-2.0-or-later
"""Whole runs with the debug kernel: it reports nothing, and where it poisons free pages nothing is asked."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.vm.conftest import Ended

pytestmark = pytest.mark.slow

Run = Callable[..., Ended]

#: Of half a GiB that kernel leaves too little.
DEBUG = ("--kernel", "debug", "--memory", "1GiB")


@pytest.mark.parametrize("scenario", ["freed", "churn", "offlined", "unbound"])
def test_a_debug_kernel_has_nothing_to_report(run: Run, scenario: str) -> None:
    """Locks, lists, sleeping, memory and leaks: all are looked at after the migration."""
    ended = run(scenario, *DEBUG)
    assert ended.status == 0, str(ended)
    assert ended.result.pages.skipped > 0
    assert ended.result.guest.kernel_warnings == []


def test_a_guest_that_poisons_its_free_pages_is_not_asked(run: Run) -> None:
    """Its driver declines: zeros on the destination would trip the kernel's check."""
    keys = ("expect.skipping=false", "expect.skipped_percent_min=null", "guest.cmdline=page_poison=1")
    ended = run("freed", *DEBUG, *(word for key in keys for word in ("--set", key)))
    assert ended.status == 0, str(ended)
    result = ended.result
    assert (result.protocol.requests, result.pages.skipped) == (0, 0)
    assert result.guest.kernel_warnings == []
    # It was the driver that declined, as QEMU says.
    lines = (ended.out / "events.jsonl").read_text("utf-8").splitlines()
    refusals = [json.loads(line)["data"] for line in lines if '"refused"' in line]
    assert any("the guest has no driver for it" in str(data) for data in refusals), refusals
