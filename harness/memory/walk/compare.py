# SPDX-License-Identifier: GPL-2.0-or-later
"""Two witnesses of what is free: what the guest's driver reported, and the outside walk.

    same = compare_witnesses(reported, walk)                 # a quiet guest, one instant
    judged = judge_reported(reported, before, after, ...)    # a busy one, both ends

The driver may leave out any page, and must not report one that was in use from
the request to its answer.  So a free page that was not reported is worth a
count, and a reported page that was on no list needs a reason.

Everything here is by frame; :func:`to_frames` and :func:`to_pages` translate from
and to the pages of a RAMBlock.  Pure: no input, no output, no clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from harness.errors import MachineryError
from harness.memory.image import Flags
from harness.memory.walk.kinds import Kind
from harness.memory.walk.physical import GpaRange
from harness.memory.walk.result import FreeWalk
from harness.units import PAGE_SIZE

Frames = npt.NDArray[np.int64]

#: Free in every sense but that the buddy allocator has it: it may have been there a moment before
#: or after. What a walk calls loose is not excused: it may be a page of a kernel allocation.
_NEARLY_FREE = (Kind.PER_CPU, Kind.IN_TRANSIT)

#: Labels of differences that say why there is one.
_SAYS_WHY = frozenset(
    {
        *(kind.label for kind in _NEARLY_FREE),
        "freed-since",
        "taken-since",
        "moved-since",
        "isolated",
        "not-asked-for",
    }
)


@dataclass(frozen=True, eq=False)
class WitnessComparison:
    """Where two witnesses differ, by reason; frames in ascending order."""

    both: int
    """Frames that both call free."""
    only_reported: Mapping[str, Frames]
    """The frames by what the walk calls them."""
    only_walked: Mapping[str, Frames]
    """The frames by the reason why the driver may have left them out; ``left-out``: none is known."""

    @property
    def unexplained(self) -> int:
        """Frames that differ under a name that does not say why."""
        return sum(
            len(frames)
            for found in (self.only_reported, self.only_walked)
            for label, frames in found.items()
            if label not in _SAYS_WHY
        )

    @property
    def agree(self) -> bool:
        """Whether every difference has a name that says why."""
        return not self.unexplained

    @property
    def counts(self) -> Mapping[str, int]:
        """For a report: ``both``, ``only-reported per-cpu`` and so on."""
        counts = {"both": self.both}
        for side, found in (("only-reported", self.only_reported), ("only-walked", self.only_walked)):
            counts |= {f"{side} {label}": len(frames) for label, frames in found.items()}
        return counts


def compare_witnesses(
    reported: Flags, walk: FreeWalk, *, later: FreeWalk | None = None, asked: Flags | None = None
) -> WitnessComparison:
    """What only one of the two calls free.

    ``later``: a second walk, from after the driver's: what changed its state in
    between is no contradiction.  ``asked``: the frames that were asked for.
    """
    free = walk.free
    _demand_size(walk.frames, reported=reported, later=None if later is None else later.kind, asked=asked)
    only_reported, only_walked = reported & ~free, free & ~reported
    by_kind = {
        kind.label: only_reported & (walk.kind == np.uint8(kind)) for kind in Kind if kind is not Kind.FREE
    }
    reasons: dict[str, Flags] = {"isolated": walk.is_type("Isolate")}
    if asked is not None:
        reasons["not-asked-for"] = ~asked
    if later is not None:
        freed, taken = later.free, ~later.free
        by_kind = {"freed-since": only_reported & freed} | {
            label: flags & ~freed for label, flags in by_kind.items()
        }
        reasons["taken-since"] = taken
        # Split or merged: whoever walks one list after the other can miss what changes lists.
        reasons["moved-since"] = (
            (later.order != walk.order)
            | (later.zone != walk.zone)
            | (later.migrate_type != walk.migrate_type)
        )
    return WitnessComparison(
        int(np.count_nonzero(reported & free)), _numbers(by_kind), _numbers(_first_of(only_walked, reasons))
    )


def _first_of(flags: Flags, reasons: Mapping[str, Flags]) -> dict[str, Flags]:
    found, left = {}, flags.copy()
    for label, applies in reasons.items():
        found[label] = left & applies
        left &= ~applies
    return found | {"left-out": left}


def _numbers(found: Mapping[str, Flags]) -> dict[str, Frames]:
    return {label: np.flatnonzero(flags) for label, flags in found.items() if flags.any()}


class PageStanding(IntEnum):
    """What is known of a reported page, the strongest first."""

    NOT_REPORTED = 0
    FREE_AT_REQUEST = 1
    FREE_AT_ANSWER = 2
    OWNED = 3
    """On no list at both ends, and the workload's all the while: the contract is broken for certain."""
    CHANGED = 4
    """Written since the request: whatever it was, the dirty log must have the write."""
    NEARLY_FREE = 5
    """On a per-cpu list, or on its way, at one of the ends."""
    UNDECIDED = 6
    """On no list at both ends, and unchanged: free in between, or in use all the while."""

    @property
    def label(self) -> str:
        """As reports print it."""
        return self.name.lower().replace("_", "-")


@dataclass(frozen=True, eq=False)
class ReportedPages:
    """The standing of every frame."""

    standing: npt.NDArray[np.uint8]

    def frames(self, standing: PageStanding) -> Frames:
        """The frames with this standing, in ascending order."""
        return np.flatnonzero(self.standing == np.uint8(standing))

    @property
    def counts(self) -> Mapping[str, int]:
        """Reported frames by standing; what does not occur is left out."""
        counts = np.bincount(self.standing, minlength=len(PageStanding))
        return {one.label: int(counts[one]) for one in PageStanding if one and counts[one]}


def judge_reported(
    reported: Flags,
    at_request: FreeWalk,
    at_answer: FreeWalk | None = None,
    *,
    unchanged: Flags | None = None,
    owned: Flags | None = None,
) -> ReportedPages:
    """Whether each reported page was free at some time between the request and its answer.

    ``unchanged``: held the same at the answer as at the request (by digests); None:
    not known, which lets nothing count as changed.  ``owned``: the workload's own,
    with the content that it gave them, at both ends.
    """
    walks = [at_request] if at_answer is None else [at_request, at_answer]
    _demand_size(
        at_request.frames,
        reported=reported,
        at_answer=None if at_answer is None else at_answer.kind,
        unchanged=unchanged,
        owned=owned,
    )
    nearly = np.zeros(len(reported), dtype=np.bool_)
    for walk in walks:
        for kind in _NEARLY_FREE:
            nearly |= walk.kind == np.uint8(kind)
    standing = np.full(len(reported), PageStanding.UNDECIDED, dtype=np.uint8)
    # The last assignment wins.
    standing[nearly] = PageStanding.NEARLY_FREE
    if unchanged is not None:
        standing[~unchanged] = PageStanding.CHANGED
    if owned is not None:
        standing[owned] = PageStanding.OWNED
    if at_answer is not None:
        standing[at_answer.free] = PageStanding.FREE_AT_ANSWER
    standing[at_request.free] = PageStanding.FREE_AT_REQUEST
    standing[~reported] = PageStanding.NOT_REPORTED
    return ReportedPages(standing)


def to_frames(pages: Flags, gpa: Iterable[GpaRange], frames: int) -> Flags:
    """Flags by page of a RAMBlock as flags by guest frame."""
    flags = np.zeros(frames, dtype=np.bool_)
    for frame, page, count in _pieces(gpa, len(pages), frames):
        flags[frame : frame + count] |= pages[page : page + count]
    return flags


def to_pages(flags: Flags, gpa: Iterable[GpaRange], pages: int) -> Flags:
    """Flags by guest frame as flags by page of a RAMBlock."""
    found = np.zeros(pages, dtype=np.bool_)
    for frame, page, count in _pieces(gpa, pages, len(flags)):
        found[page : page + count] |= flags[frame : frame + count]
    return found


def _pieces(gpa: Iterable[GpaRange], pages: int, frames: int) -> Iterator[tuple[int, int, int]]:
    """(first frame, first page, how many) of each range, cut to what there is."""
    for address, offset, length in gpa:
        frame, page = address // PAGE_SIZE, offset // PAGE_SIZE
        count = min(length // PAGE_SIZE, pages - page, frames - frame)
        if count > 0:
            yield frame, page, count


def _demand_size(frames: int, **others: npt.NDArray[np.generic] | None) -> None:
    for name, one in others.items():
        if one is not None and len(one) != frames:
            raise MachineryError(f"the walk covers {frames} guest frames, {name} covers {len(one)}")
