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
    assert witnesses is not None and witnesses.agreement is not None
    # That they differ without a reason is a failure; that they were asked at all, is what is left to see.
    assert witnesses.agreement["both"] > 0
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
