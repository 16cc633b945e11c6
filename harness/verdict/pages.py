# SPDX-License-Identifier: GPL-2.0-or-later
"""Every page of one block into its category.  docs/oracle.md argues for each line.

Pure: no input, no output, no clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.memory.compare import PageNumbers
from harness.memory.image import Flags
from harness.verdict.case import BlockState, JudgeInput
from harness.verdict.finding import Finding
from harness.verdict.log import NEVER, Clearings, Replay

#: The names under which what upstream's hints left out is explained, in arm hint.
HINTED = "hinted"
HINTED_AFTER_SENT = "hinted-after-sent"

#: The rules that a page can break, in the order in which they are asked, and in words.
PAGE_RULES = {
    "differs-though-sent": "were sent, and differ",
    "skipped-by-unacceptable-answer": "were skipped because of an answer that should not have been applied",
    "skipped-but-not-zero-on-destination": "were skipped, and are not zero on the destination",
    "skipped-though-owned": "were skipped, though the workload owned them from the request to the answer",
    "skipped-without-digest": "were skipped, but nothing is known of what they held at the request",
    "skipped-but-changed-since-request": "were skipped, though they were written after the request",
    "neither-sent-nor-skipped": "were neither sent nor skipped",
    "differs-not-skipped": "differ, and were not skipped",
}


@dataclass(frozen=True, eq=False)
class BlockJudgement:
    """The category of every page of one block; flags are exclusive."""

    state: BlockState
    skipped: Flags
    wrong: Mapping[str, PageNumbers]
    explained: Mapping[str, PageNumbers]
    request: npt.NDArray[np.int32]
    observed: Mapping[str, int]
    findings: Sequence[Finding]


def judge_block(
    state: BlockState, history: Replay, case: JudgeInput, owned: Flags | None = None
) -> BlockJudgement:
    """Sort every page of one block, and say of each wrong one which rule it breaks.

    ``owned``: pages that some answer reported though they were in use all the while.
    """
    pages, zero_there = state.block.pages, state.zero_on_destination
    clearings = history.clearings[state.block.name]
    differs = np.zeros(pages, dtype=np.bool_)
    differs[state.differing] = True
    cleared = clearings.answer != NEVER
    sent = np.zeros(pages, dtype=np.bool_) if state.sent is None else state.sent
    skip = cleared & ~sent
    known, unchanged = _changes(state.block.name, skip, clearings, history, case)
    believed = skip & ~known if not case.strict else np.zeros(pages, dtype=np.bool_)
    known |= believed
    unchanged |= believed
    stolen = np.zeros(pages, dtype=np.bool_) if owned is None else owned
    proven = skip & clearings.allowed & zero_there & known & unchanged & ~stolen

    explained: dict[str, PageNumbers] = {}
    if case.arm == "hint":
        # Without the device's record a page of zeros that differs is all there is to see.
        settled = proven if state.sent is not None else differs & zero_there
        # Upstream hints pages that were sent before; the destination keeps their old content.
        stale = differs & cleared & clearings.allowed & sent
        explained = {HINTED: np.flatnonzero(settled), HINTED_AFTER_SENT: np.flatnonzero(stale)}
        settled |= stale
        skipped = np.zeros(pages, dtype=np.bool_)
    else:
        settled = skipped = proven
    unsettled = differs & ~settled
    for page, name in sorted(state.named.items()):
        if unsettled[page]:
            unsettled[page] = False
            explained[name] = np.append(explained.get(name, np.empty(0, dtype=np.int64)), page)

    applies = (
        sent,
        skip & ~clearings.allowed,
        skip & ~zero_there,
        skip & stolen,
        skip & ~known,
        skip & ~unchanged,
        np.full(pages, state.sent is not None),
        np.ones(pages, dtype=np.bool_),
    )
    wrong = _broken_rules(unsettled, applies)
    findings = [
        Finding(rule, "memory", f"{len(found)} pages of {state.block.name!r} {PAGE_RULES[rule]}", len(found),
                state.block.name, tuple(found[:10].tolist()))
        for rule, found in wrong.items()
    ]  # fmt: skip
    observed: dict[str, int] = {}
    if case.arm == "info":
        written = skip & clearings.allowed & zero_there & known & ~unchanged & ~differs
        findings += _missed_writes(state, written, observed)
        if not case.strict:
            observed["skipped-believed"] = int((skipped & believed).sum())
    if state.sent is not None:
        findings += _record_against_memory(state, differs, ~sent & ~cleared)
    return BlockJudgement(state, skipped, wrong, explained, clearings.answer, observed, findings)


def _broken_rules(unsettled: Flags, applies: Sequence[Flags]) -> dict[str, PageNumbers]:
    """The first rule that each unsettled page breaks."""
    left, wrong = unsettled.copy(), {}
    for rule, flags in zip(PAGE_RULES, applies, strict=True):
        found = np.flatnonzero(left & flags)
        if found.size:
            wrong[rule] = found
            left[found] = False
    return wrong


def _changes(
    name: str, skip: Flags, clearings: Clearings, history: Replay, case: JudgeInput
) -> tuple[Flags, Flags]:
    """For each skipped page: is it known whether it changed since its request, and is it unchanged."""
    known, unchanged = np.zeros(len(skip), dtype=np.bool_), np.zeros(len(skip), dtype=np.bool_)
    if case.arm == "hint":
        # There is no request since which it could have changed: upstream's driver keeps
        # what it hints allocated. That is not checked here; see docs/oracle.md.
        return skip.copy(), skip.copy()
    for number, request in enumerate(history.requests):
        same = case.unchanged.get(request, {}).get(name)
        if same is not None:
            mine = skip & (clearings.answer == number)
            known |= mine
            unchanged |= mine & same
    return known, unchanged


def _missed_writes(state: BlockState, written: Flags, observed: dict[str, int]) -> list[Finding]:
    """Pages that are zero on both sides now, were skipped, and were not zero at the request.

    Memory is right.  But if somebody wrote those zeros, the write was missed, and
    that both sides agree is luck.  If the page was given back instead (balloon,
    free page reporting), it is a hole, and nothing was written.
    """
    if state.hole_on_source is None:
        observed["changed-yet-equal"] = int(written.sum())
        return []
    observed["given-back"] = int((written & state.hole_on_source).sum())
    missed = np.flatnonzero(written & ~state.hole_on_source)
    if not missed.size:
        return []
    text = f"{missed.size} pages of {state.block.name!r} were written after the request and not sent again; "
    text += "that both sides hold zeros is luck"
    first = tuple(missed[:10].tolist())
    return [Finding("write-missed", "record", text, int(missed.size), state.block.name, first)]


def _record_against_memory(state: BlockState, differs: Flags, left_out: Flags) -> list[Finding]:
    """What the record says was not sent, held against what has arrived, on equal pages."""
    assert state.sent is not None
    name = state.block.name
    arrived = np.flatnonzero(~state.sent & ~state.zero_on_destination & ~differs)
    lost = np.flatnonzero(left_out & ~differs & state.zero_on_destination)
    findings = []
    for rule, pages, text in (
        (
            "arrived-unsent",
            arrived,
            "are on the destination, though the record says that they were never sent",
        ),
        (
            "neither-sent-nor-skipped",
            lost,
            "were neither sent nor skipped; that both sides hold zeros is luck",
        ),
    ):
        if pages.size:
            words = f"{pages.size} pages of {name!r} {text}"
            findings.append(Finding(rule, "record", words, int(pages.size), name, tuple(pages[:10].tolist())))
    return findings
