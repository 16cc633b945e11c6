# SPDX-License-Identifier: GPL-2.0-or-later
"""The outside walk: which pages of a stopped guest are free, read from its memory alone.

    walk = walk_source(image, block.gpa)
    walk.free, walk.order, walk.kind          # one entry a frame

docs/walk.md says how it is done, what it proves, and how to call it.
"""

from harness.memory.walk.compare import (
    PageStanding,
    ReportedPages,
    WitnessComparison,
    compare_witnesses,
    judge_reported,
    to_frames,
    to_pages,
)
from harness.memory.walk.errors import TornError, WalkError
from harness.memory.walk.kernel import KernelLayout, find_kernel, kernel_from
from harness.memory.walk.kinds import Kind
from harness.memory.walk.physical import GuestMemory
from harness.memory.walk.result import NONE, FrameReport, FreeWalk
from harness.memory.walk.walker import walk_memory, walk_source

__all__ = [
    "NONE",
    "FrameReport",
    "FreeWalk",
    "GuestMemory",
    "KernelLayout",
    "Kind",
    "PageStanding",
    "ReportedPages",
    "TornError",
    "WalkError",
    "WitnessComparison",
    "compare_witnesses",
    "find_kernel",
    "judge_reported",
    "kernel_from",
    "to_frames",
    "to_pages",
    "walk_memory",
    "walk_source",
]
