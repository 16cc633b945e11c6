# SPDX-License-Identifier: GPL-2.0-or-later
"""Every page of every compared block into its category.  docs/oracle.md argues for each line.

Which rule a wrong page breaks is asked of the page rules, :mod:`harness.verdict.rules.pages`.
Pure: no input, no output, no clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.memory.compare import PageNumbers
from harness.memory.image import Flags
from harness.verdict.block import BlockView
from harness.verdict.case import BlockState, JudgeInput
from harness.verdict.context import Analyses
from harness.verdict.finding import Finding, Observation
from harness.verdict.log import NEVER, Clearings, RecordReplay, replay_of
from harness.verdict.registry import block_rules, page_rules
from harness.verdict.witness import testimony_of

#: The names under which what upstream's hints left out is explained, in arm hint.
HINTED = "hinted"
HINTED_AFTER_SENT = "hinted-after-sent"


@dataclass(frozen=True, eq=False)
class BlockJudgement:
    """The category of every page of one block; flags are exclusive."""

    state: BlockState
    skipped: Flags
    wrong: Mapping[str, PageNumbers]
    explained: Mapping[str, PageNumbers]
    request: npt.NDArray[np.int32]
    observed: Sequence[Observation]
    findings: Sequence[Finding]


@dataclass(frozen=True)
class PageCounts:
    """Exclusive, and summing to ``total``."""

    total: int
    equal: int
    skipped: int
    explained: Mapping[str, int]
    wrong: int

    @property
    def skipped_percent(self) -> float:
        """Of all compared pages."""
        return 100 * self.skipped / self.total if self.total else 0.0

    @property
    def left_out(self) -> int:
        """Pages that were not sent, for a reason: skipped, or hinted."""
        return self.skipped + self.explained.get(HINTED, 0) + self.explained.get(HINTED_AFTER_SENT, 0)


def judged_blocks(case: JudgeInput, analyses: Analyses) -> tuple[BlockJudgement, ...]:
    """Sort the pages of every block, and say of each wrong one which rule it breaks."""
    history, owned = analyses.of(replay_of), analyses.of(testimony_of).owned
    return tuple(_judged(_view(state, history, case, owned.get(state.block.name))) for state in case.blocks)


def page_counts(_: JudgeInput, analyses: Analyses) -> PageCounts:
    """How many pages are in which category."""
    blocks = analyses.of(judged_blocks)
    total = sum(judged.state.block.pages for judged in blocks)
    skipped = sum(int(judged.skipped.sum()) for judged in blocks)
    wrong = sum(len(pages) for judged in blocks for pages in judged.wrong.values())
    explained: dict[str, int] = {}
    for judged in blocks:
        for name, pages in judged.explained.items():
            if len(pages):
                explained[name] = explained.get(name, 0) + len(pages)
    equal = total - skipped - wrong - sum(explained.values())
    return PageCounts(total, equal, skipped, explained, wrong)


def _view(state: BlockState, history: RecordReplay, case: JudgeInput, owned: Flags | None) -> BlockView:
    pages = state.block.pages
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
    proven = skip & clearings.allowed & state.zero_on_destination & known & unchanged & ~stolen
    return BlockView(
        case, state, clearings, differs, cleared, sent, skip, known, unchanged, believed, stolen, proven
    )


def _judged(view: BlockView) -> BlockJudgement:
    state, differs = view.state, view.differs
    explained: dict[str, PageNumbers] = {}
    if view.case.arm == "hint":
        # Without the device's record a page of zeros that differs, and never came, is all there is to see.
        recorded = state.sent is not None and state.recorded
        settled = view.proven if recorded else differs & state.zero_on_destination & ~view.sent
        # Upstream hints pages that were sent before; the destination keeps their old content.
        stale = differs & view.cleared & view.clearings.allowed & view.sent
        explained = {HINTED: np.flatnonzero(settled), HINTED_AFTER_SENT: np.flatnonzero(stale)}
        settled = settled | stale
        skipped = np.zeros(state.block.pages, dtype=np.bool_)
    else:
        settled = skipped = view.proven
    unsettled = differs & ~settled
    for page, name in sorted(state.named.items()):
        if unsettled[page]:
            unsettled[page] = False
            explained[name] = np.append(explained.get(name, np.empty(0, dtype=np.int64)), page)
    wrong: dict[str, PageNumbers] = {}
    findings: list[Finding] = []
    for name, text, found in _broken_rules(view, unsettled):
        wrong[name] = found
        words, first = f"{len(found)} pages of {state.block.name!r} {text}", tuple(found[:10].tolist())
        findings.append(Finding(name, "memory", words, len(found), state.block.name, first))
    outcomes = [outcome for entry in block_rules() for outcome in entry.check(view)]
    findings += [outcome for outcome in outcomes if isinstance(outcome, Finding)]
    observed = [outcome for outcome in outcomes if isinstance(outcome, Observation)]
    return BlockJudgement(state, skipped, wrong, explained, view.clearings.answer, observed, findings)


def _broken_rules(view: BlockView, unsettled: Flags) -> Iterator[tuple[str, str, PageNumbers]]:
    """The first rule that each unsettled page breaks: its name, its words, the pages."""
    left = unsettled.copy()
    for entry in page_rules():
        found = np.flatnonzero(left & entry.check(view))
        if found.size:
            yield entry.name, entry.text, found
            left[found] = False


def _changes(
    name: str, skip: Flags, clearings: Clearings, history: RecordReplay, case: JudgeInput
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
