# SPDX-License-Identifier: GPL-2.0-or-later
"""What is wrong in stock QEMU 10.0, shown on it (docs/stock-qemu.md)."""

from __future__ import annotations

import queue
import signal
from pathlib import Path

import numpy as np
import pytest

from harness.errors import GuestLost, MachineryError
from harness.migration.qmp import QmpEvent
from harness.testing.agent_guest import PATIENCE, ModuleGuest, Setup
from harness.toolchain import Toolchain
from harness.units import PAGE_SIZE
from tests.vm.support.hot import HOT, HOT_AT, MIB, Side, pair

#: The writer dirties half a megabyte in no time: at this rate no round brings it to an end.
BANDWIDTH = 8 * MIB
ROUNDS = 6

pytestmark = pytest.mark.slow


def migrate(source: Side, destination: Side) -> None:
    """Several rounds of a guest that never stops writing, then the switch-over."""
    events: queue.SimpleQueue[QmpEvent] = queue.SimpleQueue()
    source.monitor.listen(events.put)
    for side in (source, destination):
        capabilities = [{"capability": "events", "state": True}]
        side.monitor.execute("migrate-set-capabilities", {"capabilities": capabilities})
    source.monitor.execute("migrate-set-parameters", {"max-bandwidth": BANDWIDTH, "downtime-limit": 1})
    uri = f"unix:{source.memory[0].parent.parent}/migration"
    destination.monitor.execute("migrate-incoming", {"uri": uri})
    source.monitor.execute("migrate", {"uri": uri})
    while True:
        event = events.get(timeout=PATIENCE)
        if event.name == "MIGRATION_PASS" and event.data["pass"] == ROUNDS:
            source.monitor.execute("migrate-set-parameters", {"max-bandwidth": 0, "downtime-limit": 10000})
        if event.name == "MIGRATION":
            assert event.data["status"] != "failed"
            if event.data["status"] == "completed":
                return


def wrong_pages(source: Side, destination: Side) -> list[list[int]]:
    """The pages that differ, node by node."""
    found = []
    for here, there in zip(source.memory, destination.memory, strict=True):
        one, other = (np.fromfile(path, np.uint64).reshape(-1, PAGE_SIZE // 8) for path in (here, there))
        found.append([int(page) for page in np.flatnonzero((one != other).any(axis=1))])
    return found


def hot(node: int) -> list[int]:
    """The frames to which the guest writes, in their node."""
    first = HOT_AT[node] // PAGE_SIZE
    return list(range(first, first + HOT))


@pytest.mark.parametrize("flavour", ["stock", "patched"])
def test_writes_to_a_second_block_under_tcg(flavour: str, folder: Path) -> None:
    """Stock QEMU resets the TLB for the wrong block, and loses every later write to the second."""
    with pair(Toolchain().qemu(flavour), (128 * MIB, 128 * MIB), folder) as (source, destination):
        migrate(source, destination)
        first, second = wrong_pages(source, destination)
    assert first == []
    assert second == (hot(1) if flavour == "stock" else [])


@pytest.mark.parametrize("flavour", ["stock", "patched"])
def test_a_second_block_that_is_larger_under_tcg(flavour: str, folder: Path) -> None:
    """Stock QEMU looks for the second block's end in the first, and aborts."""
    with pair(Toolchain().qemu(flavour), (64 * MIB, 192 * MIB), folder) as (source, destination):
        if flavour == "patched":
            migrate(source, destination)
            assert wrong_pages(source, destination) == [[], []]
            return
        with pytest.raises((GuestLost, MachineryError, queue.Empty)):
            migrate(source, destination)
        assert source.process.wait(PATIENCE) == -signal.SIGABRT
        assert "tlb_reset_dirty_range_all" in source.said()


@pytest.mark.parametrize("flavour", ["stock", "patched"])
def test_hints_for_shared_memory(flavour: str, folder: Path) -> None:
    """Upstream's hint clears bits in a bitmap that a block left out by x-ignore-shared does not have."""
    toolchain = Toolchain()
    setup = Setup(
        toolchain,
        toolchain.qemu(flavour),
        toolchain.kernel(),
        variant="shipped",
        driver="stock",
        device=("free-page-hint=on", "iothread=hints"),
        more=("-object", "iothread,id=hints"),
    )
    with ModuleGuest.boot(setup, folder) as guest:
        wanted = [{"capability": "x-ignore-shared", "state": True}]
        guest.monitor.execute("migrate-set-capabilities", {"capabilities": wanted})
        guest.begin_migration()
        # The series leaves the hint as it is: QEMU dies with either.
        assert guest.plain.process.wait(PATIENCE) == -signal.SIGSEGV
