# SPDX-License-Identifier: GPL-2.0-or-later
"""The second witness: what the guest reported, against what the outside walk saw.

Bytes cannot show the one thing that the contract forbids the guest: to report a
page that was in use from the request to its answer.  Source and digests agree,
the destination is zero, and the page is lost.  So every page that an accepted
answer reported is held against two walks of the guest's free lists.

Pure: no input, no output, no clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from harness.memory.image import Flags
from harness.memory.record import Accept, Block, Request
from harness.memory.walk import (
    FreeWalk,
    Kind,
    PageStanding,
    compare_witnesses,
    judge_reported,
    to_frames,
    to_pages,
)
from harness.verdict.case import JudgeInput, RequestWitness
from harness.verdict.context import Analyses
from harness.verdict.finding import Finding


@dataclass(eq=False)
class Testimony:
    """What came of it, over all requests that were answered."""

    findings: list[Finding] = field(default_factory=list)
    owned: dict[str, Flags] = field(default_factory=dict)
    """By block: reported by some answer, though the workload owned it all the while."""
    standing: dict[str, int] = field(default_factory=dict)
    """Reported pages by standing, summed over requests."""
    differences: dict[str, int] = field(default_factory=dict)
    """On a quiet guest: how many pages both witnesses call free, or only one of them, and why."""
    answered: int = 0
    """Requests of which an answer was accepted."""
    judged: int = 0
    """Of those, requests for which there is a walk."""
    missing: list[str] = field(default_factory=list)
    """Why there is none for the others."""


@dataclass(frozen=True, eq=False)
class _Reported:
    """One request's answer, by block."""

    request: Request
    pages: dict[str, Flags]
    covered: dict[str, Flags]

    @staticmethod
    def frames(flags: Mapping[str, Flags], blocks: Mapping[str, Block], frames: int) -> Flags:
        found = np.zeros(frames, dtype=np.bool_)
        for name, pages in flags.items():
            found |= to_frames(pages, blocks[name].gpa, frames)
        return found


def testimony_of(case: JudgeInput, _: Analyses) -> Testimony:
    """Hold every answer against the walks of its request."""
    found = Testimony()
    if case.arm != "info":
        return found
    blocks = {state.block.name: state.block for state in case.blocks}
    for answer in _answers(case.log, blocks):
        found.answered += 1
        seen = case.witnesses.get(answer.request.id)
        if seen is None or seen.at_request is None:
            found.missing += seen.missing if seen is not None else ("nobody looked at the request",)
            continue
        found.judged += 1
        _judge(answer, seen, seen.at_request, blocks, case.quiet, found)
    return found


def _judge(
    answer: _Reported,
    seen: RequestWitness,
    before: FreeWalk,
    blocks: Mapping[str, Block],
    quiet: bool,
    found: Testimony,
) -> None:
    frames = before.frames
    reported = answer.frames(answer.pages, blocks, frames)
    # What is not migrated was looked at as well, and is nobody's concern here.
    known = {name: pages for name, pages in (seen.unchanged or {}).items() if name in blocks}
    unchanged = None if seen.unchanged is None else answer.frames(known, blocks, frames)
    owned = answer.frames(seen.owned, blocks, frames)
    standing = judge_reported(reported, before, seen.at_answer, unchanged=unchanged, owned=owned)
    _add(found.standing, standing.counts)
    identity = f"{answer.request.id:#x}"
    stolen = standing.standing == np.uint8(PageStanding.OWNED)
    for name, pages in _pages_of(stolen, blocks):
        found.owned[name] = found.owned.get(name, np.zeros(len(pages), dtype=np.bool_)) | pages
        text = f"the answer to {identity} reported pages of {name!r} that the workload owned all the while"
        found.findings.append(_finding("reported-though-owned", text, pages, name))
    if not quiet:
        return
    for name, pages in _pages_of(standing.standing == np.uint8(PageStanding.UNDECIDED), blocks):
        text = (
            f"the answer to {identity} reported pages of {name!r} that were on no free list at the "
            "request, nor at the answer, and did not change; the guest was quiet"
        )
        found.findings.append(_finding("reported-undecided", text, pages, name))
    _agree(answer, seen, before, reported, blocks, found)


def _agree(
    answer: _Reported,
    seen: RequestWitness,
    before: FreeWalk,
    reported: Flags,
    blocks: Mapping[str, Block],
    found: Testimony,
) -> None:
    """On a quiet guest both witnesses name the same pages."""
    frames = before.frames
    asked = np.zeros(frames, dtype=np.bool_)
    asked[answer.request.first_frame : answer.request.first_frame + answer.request.frames] = True
    # Memory that is not migrated was asked for and is ignored: what was reported of it nobody has put down.
    asked &= _frames_of(blocks, frames)
    if seen.at_answer is None:
        # Part of an answer: nothing is known of what did not come.
        asked &= answer.frames(answer.covered, blocks, frames)
    both = compare_witnesses(reported, before, later=seen.at_answer, asked=asked)
    _add(found.differences, both.counts)
    _passed_over(answer, seen, before, reported, blocks, found)
    # Reported and on no list is what the standings are about; here it is what was left out.
    left_out = both.only_walked.get("left-out", np.empty(0, dtype=np.int64))
    flags = np.zeros(frames, dtype=np.bool_)
    flags[left_out] = True
    for name, pages in _pages_of(flags, blocks):
        text = (
            f"the answer to {answer.request.id:#x} left out pages of {name!r} that were free by the "
            "outside walk, at the request and at the answer; the guest was quiet"
        )
        found.findings.append(_finding("witnesses-disagree", text, pages, name))


def _passed_over(
    answer: _Reported,
    seen: RequestWitness,
    before: FreeWalk,
    reported: Flags,
    blocks: Mapping[str, Block],
    found: Testimony,
) -> None:
    """Free in every sense, so that nothing is lost by it; but not where a driver may look."""
    later = seen.at_answer
    if later is None:
        return
    for where, flags in (
        ("per-cpu lists", (before.kind == Kind.PER_CPU) & (later.kind == Kind.PER_CPU)),
        ("lists of isolated pages", before.is_type("Isolate") & later.is_type("Isolate")),
    ):
        for name, pages in _pages_of(reported & flags, blocks):
            text = (
                f"the answer to {answer.request.id:#x} reported pages of {name!r} that were on {where} "
                "at the request and at the answer; the guest was quiet"
            )
            found.findings.append(_finding("witnesses-disagree", text, pages, name))


def _frames_of(blocks: Mapping[str, Block], frames: int) -> Flags:
    whole = {name: np.ones(block.pages, dtype=np.bool_) for name, block in blocks.items()}
    return _Reported.frames(whole, blocks, frames)


def _pages_of(frames: Flags, blocks: Mapping[str, Block]) -> Iterator[tuple[str, Flags]]:
    """Each block that has some of these frames: its name, and which of its pages they are."""
    for name, block in blocks.items():
        pages = to_pages(frames, block.gpa, block.pages)
        if pages.any():
            yield name, pages


def _finding(rule: str, text: str, pages: Flags, block: str) -> Finding:
    numbers = np.flatnonzero(pages)
    first = tuple(numbers[:10].tolist())
    return Finding(rule, "witness", f"{len(numbers)} pages: {text}", len(numbers), block, first)


def _add(total: dict[str, int], counts: Mapping[str, int]) -> None:
    for name, count in counts.items():
        total[name] = total.get(name, 0) + count


def _answers(log: Iterable[Request | Accept], blocks: Mapping[str, Block]) -> list[_Reported]:
    """What was reported in answer to each request, in the order of the requests."""
    requests = {entry.id: entry for entry in log if isinstance(entry, Request)}
    found: dict[int, _Reported] = {}
    for entry in log:
        if not isinstance(entry, Accept) or entry.id not in requests or entry.block not in blocks:
            continue
        answer = found.setdefault(entry.id, _Reported(requests[entry.id], {}, {}))
        pages = blocks[entry.block].pages
        here = slice(entry.first, entry.first + entry.reported.pages)
        reported = answer.pages.setdefault(entry.block, np.zeros(pages, dtype=np.bool_))
        covered = answer.covered.setdefault(entry.block, np.zeros(pages, dtype=np.bool_))
        reported[here] |= entry.reported.flags()
        covered[here] = True
    return list(found.values())


def reported_by_request(
    log: Iterable[Request | Accept], blocks: Mapping[str, Block]
) -> dict[int, Mapping[str, Flags]]:
    """By request id and block: what was reported in answer to it."""
    return {answer.request.id: answer.pages for answer in _answers(log, blocks)}
