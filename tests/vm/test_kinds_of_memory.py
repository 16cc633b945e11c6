# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory of special kinds: the answer and the walk leave it out, or have it, each rightly.

What the walk says of every frame, and what was skipped, is read from what a run keeps of its pages.  That
the guest really has such memory, and how much, is what the walk must say, too: else nothing was tested.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest

from harness.arch import AARCH64, HOST
from harness.explain.store import PAGES_FILE, SKIPPED, Kept, KeptWalk
from harness.memory.walk import Kind, to_frames
from harness.testing import Freepage, Run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

MIB = 256  # in frames
Frames = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Seen:
    """The first walk of a run, and which frames were skipped."""

    walk: KeptWalk
    skipped: Frames

    @classmethod
    def of(cls, run: Run) -> Seen:
        kept = Kept.load(run.folder / PAGES_FILE)
        walk = next(walk for walk in kept.walks if walk.point == "answer")
        skipped = np.zeros(len(walk.kind), dtype=np.bool_)
        for block in kept.blocks.values():
            pages = np.zeros(block.block.pages, dtype=np.bool_)
            pages[block.pages(SKIPPED)] = True
            skipped |= to_frames(pages, block.block.gpa, len(walk.kind))
        return cls(walk, skipped)

    def of_kind(self, kind: Kind) -> Frames:
        return self.walk.kind == np.uint8(kind)


def passed(run: Run) -> Seen:
    assert run.verdict == "pass", run
    witnesses = run.result.witnesses
    assert witnesses is not None
    # That they differ without a reason is a failure; that they were asked at all, is what is left to see.
    # Of a guest that works, each page of an answer has to have been free when it was asked.
    assert (witnesses.agreement or {}).get("both", 0) or witnesses.standing.get("free-at-request", 0)
    assert not witnesses.undecided
    return Seen.of(run)


def test_huge_pages_that_are_reserved_are_left_out(freepage: Freepage) -> None:
    """hugetlb's pool: nobody uses its pages, and yet they are not the page allocator's."""
    run = freepage.run(
        "freed", memory="512MiB", set={"guest.cmdline": "hugepages=32", "workload.noise": "50%"}
    )
    seen = passed(run)
    pool = seen.of_kind(Kind.HUGETLB)
    assert pool.sum() == 32 * 2 * MIB
    assert not (pool & seen.skipped).any()
    assert seen.skipped.sum() > 200 * MIB


def test_memory_that_virtio_mem_has_taken_back_is_left_out(freepage: Freepage) -> None:
    """All of 256 MiB was plugged in for the first migration; of the second one 64 MiB are left."""
    seen = passed(freepage.run("virtio-mem-unplugged", timeout=900))
    # Blocks of which some are left are the driver's; whole ones have no struct page any more.
    taken = seen.of_kind(Kind.OFFLINE) | seen.of_kind(Kind.UNKNOWN)
    assert taken.sum() >= 190 * MIB
    assert not (taken & seen.skipped).any()


def test_a_distribution_with_systemd_is_walked(freepage: Freepage) -> None:
    """Daemons, a disk and its page cache, udev: what is free among all that is free by both witnesses."""
    run = freepage.run(
        "freed",
        memory="1GiB",
        set={
            "guest.image": "debian",
            "workload.noise": "50%",
            "guest.commands.before": [["cat", "/proc/1/comm"]],
        },
        timeout=1200,
    )
    seen = passed(run)
    assert run.result.commands[0].output.strip() == "systemd"
    cached = seen.of_kind(Kind.PAGE_CACHE)
    assert cached.sum() > 16 * MIB
    assert not (cached & seen.skipped).any()
    assert (seen.of_kind(Kind.FREE) & seen.skipped).sum() > 400 * MIB


def said(run: Run, number: int = 0) -> int:
    """The first number that a command of the guest's wrote."""
    return int(next(word for word in run.result.commands[number].output.split() if word.isdigit()))


def test_transparent_huge_pages_are_in_use_as_a_whole(freepage: Freepage) -> None:
    run = freepage.run("huge-pages", memory="768MiB")
    seen = passed(run)
    assert said(run) > 64 << 10  # KiB of them
    # What is freed later is asked for again, and may be left out then.
    assert seen.of_kind(Kind.ANONYMOUS).sum() > 64 * MIB
    assert (seen.of_kind(Kind.FREE) & seen.skipped).sum() > 200 * MIB


def test_pages_that_were_merged_are_free(freepage: Freepage) -> None:
    run = freepage.run(
        "merged-pages",
        set={"guest.commands.after": [["cat", "/sys/kernel/mm/ksm/pages_sharing"]]},
    )
    passed(run)
    assert said(run, -1) > 500


def test_what_is_in_the_compressed_cache_of_swap_is_in_use(freepage: Freepage) -> None:
    run = freepage.run("swapped-pages", timeout=1200)
    passed(run)
    assert said(run, 1) > 4000  # pages


def test_memory_that_may_only_be_moved_is_walked(freepage: Freepage) -> None:
    """A DIMM that is plugged in becomes a zone of its own."""
    run = freepage.run(
        "freed",
        memory="384MiB",
        set={
            "guest.dimm": "128MiB",
            "guest.cmdline": "movable_node memhp_default_state=online_movable",
            "workload.noise": "50%",
        },
    )
    seen = passed(run)
    names = [name for name in seen.walk.zones if "Movable" in name]
    assert names, seen.walk.zones
    movable = seen.walk.place >> 4 == seen.walk.zones.index(names[0])
    assert movable.sum() > 100 * MIB
    assert (movable & seen.skipped).sum() > 100 * MIB


@pytest.mark.skipif(HOST is AARCH64, reason="here the same is asked without --arch")
def test_contiguous_memory_that_nobody_has_taken_is_free(freepage: Freepage) -> None:
    """Debian's kernels have CMA on Arm: its free pages are the page allocator's, of a type of their own."""
    run = freepage.run("freed", "--arch", "aarch64", memory="512MiB", timeout=900)
    seen = passed(run)
    cma = seen.walk.place & 15 == seen.walk.types.index("CMA")
    cma &= seen.of_kind(Kind.FREE)
    assert cma.sum() > 48 * MIB
    assert (cma & seen.skipped).sum() > 48 * MIB
