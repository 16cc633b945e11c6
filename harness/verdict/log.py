# SPDX-License-Identifier: GPL-2.0-or-later
"""What the device's log says about each page: which answer let it be skipped.

The log is replayed in its own order, as the device lived it, and every entry
is held against the protocol's rules.  An entry that breaks one is a
contradiction, which fails the run by itself; and the pages that it cleared
were skipped without a reason, so that those of them that differ are wrong.

Pure: no input, no output, no clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from harness.memory.image import Flags
from harness.memory.record import Accept, Block, Request
from harness.scenario.model import Arm
from harness.units import PAGE_SIZE
from harness.verdict.case import JudgeInput
from harness.verdict.context import Analyses
from harness.verdict.finding import Finding

#: In :attr:`Clearings.answer`: no answer ever cleared this page.
NEVER = -1


@dataclass(eq=False)
class Clearings:
    """Of one block: who cleared each page last, and whether that was allowed.

    The *last* clearing counts: it is the one by which the page is skipped now.
    A page that was dirtied after an earlier clearing is known to have changed,
    and needs a reason of its own to be skipped again.
    """

    answer: npt.NDArray[np.int32]
    allowed: Flags
    first_reported: Flags
    """Reported in the first answer of the migration that was accepted."""
    first_cleared: Flags
    """Of those, what the first answer cleared; the others had been sent already."""

    @classmethod
    def of(cls, pages: int) -> Clearings:
        """Nothing cleared yet."""
        none = np.zeros(pages, dtype=np.bool_)
        return cls(np.full(pages, NEVER, dtype=np.int32), none.copy(), none.copy(), none.copy())


@dataclass(eq=False)
class RecordReplay:
    """What came of replaying the log."""

    requests: tuple[int, ...]
    """The ids of answers, by the number that :attr:`Clearings.answer` holds."""
    clearings: Mapping[str, Clearings]
    first: int | None = None
    """The id of the first answer that was accepted."""
    findings: list[Finding] = field(default_factory=list)
    reported: int = 0
    cleared: int = 0
    requests_left: int = 0


def replay_record(log: Sequence[Request | Accept], blocks: Mapping[str, Block], arm: Arm) -> RecordReplay:
    """Go through the log in order.  ``blocks`` are those whose memory is compared."""
    return _Replayer(blocks, arm).run(log)


def replay_of(case: JudgeInput, _: Analyses) -> RecordReplay:
    """The replay of a case's log, as an analysis."""
    return replay_record(case.log, {state.block.name: state.block for state in case.blocks}, case.arm)


def reached(request: Request, block: Block) -> Flags:
    """Which pages of a block lie in a request's window, by the block's guest addresses."""
    inside = np.zeros(block.pages, dtype=np.bool_)
    first, last = request.first_frame * PAGE_SIZE, (request.first_frame + request.frames) * PAGE_SIZE
    for address, offset, length in block.gpa:
        start, end = max(address, first), min(address + length, last)
        if start < end:
            inside[-(-(start - address + offset) // PAGE_SIZE) : (end - address + offset) // PAGE_SIZE] = True
    return inside


class _Replayer:
    def __init__(self, blocks: Mapping[str, Block], arm: Arm) -> None:
        self._blocks = blocks
        self._arm = arm
        self._requests: dict[int, Request] = {}
        self._current: Request | None = None
        self._answers: dict[int, int] = {}
        self._first: int | None = None
        self._windows: dict[tuple[int, str], Flags] = {}
        self._clearings = {name: Clearings.of(block.pages) for name, block in blocks.items()}
        self._found: dict[tuple[str, str | None], Finding] = {}
        self._reported = self._cleared = self._left = 0

    def run(self, log: Iterable[Request | Accept]) -> RecordReplay:
        for entry in log:
            if isinstance(entry, Request):
                self._request(entry)
            else:
                self._accept(entry)
        return RecordReplay(
            tuple(self._answers),
            self._clearings,
            self._first,
            list(self._found.values()),
            self._reported,
            self._cleared,
            self._left,
        )

    def _find(self, rule: str, text: str, block: str | None = None, pages: Sequence[int] = ()) -> None:
        """Record a contradiction; further ones of the same rule are counted, not repeated."""
        count = max(len(pages), 1)
        known = self._found.get((rule, block))
        first = tuple(int(page) for page in pages[:10])
        if known is not None:
            count += known.count
            text, first = known.text, (known.pages + first)[:10]
        self._found[rule, block] = Finding(rule, "record", text, count, block, first)

    def _request(self, request: Request) -> None:
        self._left += 1
        if self._arm != "info":
            self._find("request-in-other-arm", f"request {request.id:#x} left in arm {self._arm}")
        if request.id == 0:
            self._find("request-id-zero", "a request left with id 0, which means none")
        elif request.id in self._requests:
            self._find("request-id-reused", f"the id {request.id:#x} was used for two requests")
        self._requests[request.id] = request
        self._current = request

    def _refusal(self, accept: Accept) -> tuple[str, str] | None:
        """Why this answer should not have been accepted: rule and words."""
        if self._arm == "off":
            return "answer-in-arm-off", "an answer was applied in arm off"
        if self._arm == "hint" and accept.is_hint:
            return None
        if accept.is_hint:
            return "hint-in-arm-info", "a free page hint was applied in arm info"
        request = self._requests.get(accept.id)
        if request is None:
            return "accept-without-request", f"an answer to {accept.id:#x} was applied, which was never asked"
        if request is not self._current:
            return (
                "accept-of-older-request",
                f"an answer to {accept.id:#x} was applied after a newer request had left",
            )
        if accept.generation != request.generation:
            return (
                "accept-after-sync",
                f"an answer to {accept.id:#x}, asked in sync generation {request.generation}, "
                f"was applied in generation {accept.generation}",
            )
        return None

    def _accept(self, accept: Accept) -> None:
        reported, cleared = accept.reported.flags(), accept.cleared.flags()
        self._reported += int(reported.sum())
        self._cleared += int(cleared.sum())
        refusal = self._refusal(accept)
        if refusal is not None:
            self._find(*refusal)
        elif self._first is None:
            self._first = accept.id
        block = self._blocks.get(accept.block)
        if block is None:
            # A page of firmware, say: skipped, and nobody can say that this was right.
            if cleared.any():
                text = f"pages of {accept.block!r} were skipped, a block that is not compared"
                self._find(
                    "skipped-unseen", text, accept.block, (np.flatnonzero(cleared) + accept.first).tolist()
                )
            return
        here = slice(accept.first, accept.first + len(cleared))
        allowed = np.full(len(cleared), refusal is None) & reported
        self._pages_outside(
            cleared & ~reported, accept, "cleared-not-reported", "skipped without having been reported"
        )
        request = self._requests.get(accept.id)
        if request is not None and block.gpa:
            outside = reported & ~self._window(request, block)[here]
            allowed &= ~outside
            self._pages_outside(
                outside, accept, "answer-outside-window", "reported, but outside what was asked for"
            )
        pages = self._clearings[accept.block]
        pages.answer[here][cleared] = self._answers.setdefault(accept.id, len(self._answers))
        pages.allowed[here][cleared] = allowed[cleared]
        if refusal is None and accept.id == self._first:
            pages.first_reported[here] |= reported
            pages.first_cleared[here] |= cleared

    def _window(self, request: Request, block: Block) -> Flags:
        key = (request.id, block.name)
        if key not in self._windows:
            self._windows = {known: flags for known, flags in self._windows.items() if known[0] == request.id}
            self._windows[key] = reached(request, block)
        return self._windows[key]

    def _pages_outside(self, flags: Flags, accept: Accept, rule: str, text: str) -> None:
        pages = (np.flatnonzero(flags) + accept.first).tolist()
        if pages:
            self._find(rule, f"pages of {accept.block!r} were {text}", accept.block, pages)
