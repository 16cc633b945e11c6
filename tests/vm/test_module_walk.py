# SPDX-License-Identifier: GPL-2.0-or-later
"""The module's walk against the walk from outside: nothing is reported that was in use all the while."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from harness.memory.walk import PageStanding
from harness.testing.agent_guest import ModuleGuest, Setup
from harness.testing.plain_guest import MIB
from harness.toolchain import Kernel, QemuBinary, Toolchain
from tests.vm.support.answers import HELD, Answer, Watcher

MEMORY = 256 * MIB
TEST = "/sys/kernel/debug/freepage_balloon/test"
FIRST = 4242  # any seed
LARGEST_ORDER = 10


@pytest.fixture(scope="module")
def guest(toolchain: Toolchain, qemu: QemuBinary, kernel: Kernel, results: Path) -> Iterator[ModuleGuest]:
    folder = results / f"module-walk-{kernel.release}"
    folder.mkdir()
    device = ("free-page-info=on", HELD)
    setup = Setup(toolchain, qemu, kernel, memory=MEMORY, cpus=2, device=device)
    with ModuleGuest.boot(setup, folder) as guest:
        yield guest
        assert not guest.reports()


@pytest.fixture(scope="module")
def watcher(guest: ModuleGuest) -> Watcher:
    return Watcher(guest, MEMORY)


@pytest.fixture(autouse=True)
def as_before(guest: ModuleGuest) -> Iterator[None]:
    yield
    guest.call("behave")
    guest.call("unhold")
    guest.call("unload")
    for name in ("hold_entries", "chunk_bits", "pass_chunks"):
        guest.call("tune", name, 0)


def assert_right(answer: Answer) -> None:
    """Every reported page was free at one of the ends, or was written in between, or was on its way."""
    counts = answer.judged.counts
    assert not answer.judged.frames(PageStanding.OWNED).size, counts
    assert not answer.judged.frames(PageStanding.UNDECIDED).size, counts


def test_a_quiet_guest(guest: ModuleGuest, watcher: Watcher) -> None:
    answer = watcher.first_answer()
    assert_right(answer)
    # And complete: what is missing has a reason.
    assert answer.witnesses.agree, answer.witnesses.counts
    assert answer.witnesses.both > 0.9 * int(answer.before.free.sum())


def test_nothing_is_written_to_a_page_that_is_reported(guest: ModuleGuest, watcher: Watcher) -> None:
    answer = watcher.first_answer()
    stayed = answer.before.free & answer.after.free & answer.reported
    assert np.count_nonzero(stayed) > 1000
    assert answer.unchanged[stayed].all()


def across_an_edge(guest: ModuleGuest, bits: int, chunks: int) -> None:
    """From now on the module's chunks have so many bits, and its passes so many chunks."""
    guest.call("tune", "chunk_bits", bits)
    guest.call("tune", "pass_chunks", chunks)


def answer_of_many_passes(guest: ModuleGuest, watcher: Watcher) -> Answer:
    """The migration waits for its end: a debug kernel takes longer for it than for all of memory."""
    before = guest.stats()["answers"]

    def until_answered() -> None:
        while guest.stats()["answers"] == before:
            pass

    return watcher.first_answer(until_answered)


@pytest.mark.parametrize(("bits", "chunks"), [(512, 0), (4096, 0), (512, 1)])
def test_blocks_across_the_edges_of_chunks_and_passes(
    guest: ModuleGuest, watcher: Watcher, bits: int, chunks: int
) -> None:
    """A block of 1024 frames is in two chunks of 512, or in two passes of one such chunk each.

    As many chunks as one pass has (32) end where a block does, whatever a chunk's size.
    """
    across_an_edge(guest, bits, chunks)
    before = guest.stats()
    answer = answer_of_many_passes(guest, watcher)
    after = guest.stats()
    assert after["passes"] - before["passes"] >= (MEMORY // 4096) // ((chunks or 32) * bits)
    if chunks:
        assert np.count_nonzero(answer.before.order[answer.before.free] == LARGEST_ORDER) > 0
    assert answer.chunks >= 10
    assert_right(answer)
    assert answer.witnesses.agree, answer.witnesses.counts


def test_lists_that_change_while_the_walk_resumes(guest: ModuleGuest, watcher: Watcher) -> None:
    """Holds of a few entries, and a guest that allocates and frees between any two of them."""
    guest.call("load", "churn", FIRST, 64 * MIB, "rate=200000")
    guest.call("tune", "hold_entries", 2)
    before = guest.stats()
    answer = watcher.first_answer()
    after = guest.stats()
    assert after["max_hold_entries"] <= 512
    assert after["last_holds"] > 20
    assert after["passes"] > before["passes"]
    assert_right(answer)
    assert guest.call("verify")["bad"] == 0


def test_the_place_is_lost_while_the_lock_is_dropped(guest: ModuleGuest, watcher: Watcher) -> None:
    """In the middle of a list all that is on it is taken and written: the walk starts the list over."""
    guest.call("load", "fragmented", FIRST, 64 * MIB)
    guest.call("hold", "mid-walk", 3000)
    before = guest.stats()

    def take() -> None:
        # By then it is on the list of single pages, every other one of which is the workload's.
        assert guest.call("held", "mid-walk")["entries"] >= 3000
        guest.call("unload")
        guest.call("load", "idle", FIRST, 0, f"keep={int(guest.call('ping')['mem_free']) - 40 * MIB}")
        guest.call("unhold")

    answer = watcher.first_answer(take)
    assert guest.stats()["restarts"] > before["restarts"]
    assert_right(answer)
    assert guest.call("verify")["bad"] == 0


def test_a_hold_visits_at_most_512_entries(guest: ModuleGuest, watcher: Watcher) -> None:
    guest.call("load", "fragmented", FIRST, 80 * MIB)
    answer = watcher.first_answer()
    after = guest.stats()
    assert after["last_entries"] > 8000
    assert after["max_hold_entries"] == 512
    assert answer.witnesses.agree, answer.witnesses.counts


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("past-end",), PageStanding.UNDECIDED),
        (("wrong-order",), PageStanding.UNDECIDED),
        (("report-all",), PageStanding.UNDECIDED),
        (("report-in-use",), PageStanding.UNDECIDED),
    ],
)
def test_a_walk_that_is_wrong_is_noticed(
    guest: ModuleGuest, watcher: Watcher, words: tuple[str, ...], found: PageStanding
) -> None:
    """The checks above can fail."""
    guest.call("load", "fragmented", FIRST, 64 * MIB)
    guest.call("misbehave", *words)
    answer = watcher.first_answer()
    assert guest.stats()["misbehaved"] > 0
    assert answer.judged.frames(found).size, answer.judged.counts


def test_a_lost_edge_is_noticed(guest: ModuleGuest, watcher: Watcher) -> None:
    """Every block of 1024 frames lies across the edge between two passes, and loses its second half."""
    across_an_edge(guest, 512, 1)
    guest.call("misbehave", "drop-edge")
    answer = answer_of_many_passes(guest, watcher)
    assert guest.stats()["misbehaved"] > 0
    assert not answer.witnesses.agree, answer.witnesses.counts


def test_holds_that_are_too_long_are_noticed(guest: ModuleGuest, watcher: Watcher) -> None:
    guest.call("load", "fragmented", FIRST, 80 * MIB)
    guest.call("misbehave", "long-hold")
    watcher.first_answer()
    assert guest.stats()["max_hold_entries"] > 512
