# SPDX-License-Identifier: GPL-2.0-or-later
"""The judge: what was found at switch-over goes in, a verdict comes out.

    memory = judge_memory(JudgeInput(arm="info", blocks=..., log=..., unchanged=...))
    judgement = memory.complete(GuestChecks(...), SentOverFloor(1.02))
    judgement.verdict, judgement.reason, judgement.pages.wrong

It asks the rules that have registered themselves (:mod:`harness.verdict.registry`).

Pure: no input, no output, no clock, so that unit tests can make one page wrong
in each way there is and see it found.  docs/oracle.md gives the rule, and the
reason for each of its parts.  In short, every page of every compared block is
exactly one of

- *skipped*: cleared by an accepted answer and never sent; zero on the
  destination, and unchanged on the source since that answer's request;
- *equal*: byte for byte the same on both sides;
- *explained*: it differs, and has a name that says why (written by the host at
  stop; in arm hint: left out by upstream's hint);
- *wrong*: it differs, and nothing of the above is true.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.errors import MachineryError
from harness.memory.compare import PageNumbers
from harness.scenario.expectations import VerdictWord
from harness.verdict import rules as _shipped  # noqa: F401 - they register
from harness.verdict.case import BlockState, JudgeInput, RequestWitness, demand_complete
from harness.verdict.context import Analyses, Context
from harness.verdict.facts import CourseOfRun, GuestChecks, SentOverFloor, StayedPut
from harness.verdict.finding import KINDS, Finding, Observation
from harness.verdict.log import NEVER, replay_of
from harness.verdict.pages import (
    HINTED,
    HINTED_AFTER_SENT,
    BlockJudgement,
    PageCounts,
    judged_blocks,
    page_counts,
)
from harness.verdict.registry import Outcome, Rule, doubts, known_names, rules
from harness.verdict.rules.doubts import hinted_and_sent, unrecorded_hints
from harness.verdict.witness import Testimony, testimony_of

__all__ = [
    "HINTED",
    "HINTED_AFTER_SENT",
    "BlockJudgement",
    "BlockState",
    "CourseOfRun",
    "Finding",
    "GuestChecks",
    "JudgeInput",
    "Judgement",
    "MemoryJudgement",
    "PageCounts",
    "RequestWitness",
    "SentOverFloor",
    "Testimony",
    "WrongPage",
    "judge",
    "judge_memory",
]


@dataclass(frozen=True, slots=True)
class WrongPage:
    """One wrong page."""

    block: str
    page: int
    frame: int | None
    rule: str
    request: int | None
    """The request by whose answer it was skipped."""
    zero_on_source: bool
    zero_on_destination: bool
    sent: bool | None


@dataclass(frozen=True, eq=False)
class Judgement:
    """The verdict, and everything that led to it."""

    verdict: VerdictWord
    reason: str
    pages: PageCounts
    findings: tuple[Finding, ...]
    observed: Mapping[str, int]
    """Counted, harmless, worth knowing; docs/oracle.md explains each."""
    blocks: tuple[BlockJudgement, ...]
    requests: tuple[int, ...]
    testimony: Testimony
    """What the outside walk says to the guest's answers."""

    def wrong_pages(self, limit: int | None = None) -> list[WrongPage]:
        """The first wrong pages, of each rule some, in order of block and page."""
        groups = [(b, rule, pages) for b in self.blocks for rule, pages in b.wrong.items() if len(pages)]
        share = None if limit is None else max(1, limit // max(1, len(groups)))
        found = [page for b, rule, pages in groups for page in self._details(b, rule, pages[:share])]
        found.sort(key=lambda wrong: (wrong.block, wrong.page))
        return found[:limit]

    def _details(self, judged: BlockJudgement, rule: str, pages: PageNumbers) -> Iterator[WrongPage]:
        state = judged.state
        for page in pages.tolist():
            answer = int(judged.request[page])
            yield WrongPage(
                state.block.name,
                page,
                state.block.frame(page),
                rule,
                None if answer == NEVER else self.requests[answer],
                bool(state.zero_on_source[page]),
                bool(state.zero_on_destination[page]),
                None if state.sent is None else bool(state.sent[page]),
            )


@dataclass(frozen=True, eq=False)
class MemoryJudgement:
    """The verdict over what is known at switch-over; it is completed with what comes after."""

    judgement: Judgement
    _analyses: Analyses
    _facts: tuple[object, ...]
    _asked: Mapping[Rule, tuple[Outcome, ...]]
    """What each rule that was asked has found."""

    @property
    def verdict(self) -> VerdictWord:
        """So far."""
        return self.judgement.verdict

    def complete(self, *facts: object) -> Judgement:
        """The verdict with these facts as well.  Only rules that waited for them are asked."""
        return _judge(self._analyses, (*self._facts, *facts), self._asked).judgement


def judge_memory(case: JudgeInput, *facts: object) -> MemoryJudgement:
    """Decide over what is known at switch-over.  Raises :class:`MachineryError` over half of the evidence."""
    demand_complete(case)
    return _judge(Analyses(case), facts, {})


def judge(case: JudgeInput, *facts: object) -> Judgement:
    """Decide over everything at once."""
    return judge_memory(case, *facts).judgement


def _judge(
    analyses: Analyses, facts: tuple[object, ...], before: Mapping[Rule, tuple[Outcome, ...]]
) -> MemoryJudgement:
    case, context = analyses.case, Context(analyses, facts)
    blocks, pages = analyses.of(judged_blocks), analyses.of(page_counts)
    asked = {
        rule: before[rule] if rule in before else _ask(rule, case, context)
        for rule in rules()
        if all(context.knows(kind) for kind in rule.needs)
    }
    outcomes = [outcome for found in asked.values() for outcome in found]
    findings = [finding for judged in blocks for finding in judged.findings]
    findings += [outcome for outcome in outcomes if isinstance(outcome, Finding)]
    observed = _counted(
        [
            *(seen for judged in blocks for seen in judged.observed),
            *(outcome for outcome in outcomes if isinstance(outcome, Observation)),
        ]
    )
    verdict, reason = _decide(case, context, pages, findings)
    requests, heard = analyses.of(replay_of).requests, analyses.of(testimony_of)
    judgement = Judgement(verdict, reason, pages, tuple(findings), observed, blocks, requests, heard)
    return MemoryJudgement(judgement, analyses, facts, asked)


def _ask(rule: Rule, case: JudgeInput, context: Context) -> tuple[Outcome, ...]:
    outcomes = tuple(rule.check(case, context))
    for outcome in outcomes:
        # Names from outside are announced, not the rule's own.
        names = known_names() if rule.stage == "run" else rule.names
        if isinstance(outcome, Finding) and outcome.rule not in names:
            raise MachineryError(f"a rule has found {outcome.rule!r}, a name that it has not registered")
    return outcomes


def _counted(observations: Iterable[Observation]) -> dict[str, int]:
    total: dict[str, int] = {}
    for seen in observations:
        total[seen.name] = total.get(seen.name, 0) + seen.count
    return total


def _decide(
    case: JudgeInput, context: Context, pages: PageCounts, findings: Sequence[Finding]
) -> tuple[VerdictWord, str]:
    if findings:
        worst = min(findings, key=lambda finding: KINDS.index(finding.kind))
        more = f" (and {len(findings) - 1} more findings)" if len(findings) > 1 else ""
        return "fail", worst.text + more
    for doubt in doubts():
        if all(context.knows(kind) for kind in doubt.needs):
            reason = doubt.check(case, context)
            if reason is not None:
                return "inconclusive", reason
    if context.knows(StayedPut):
        ended, gone = context.fact(StayedPut).ended, context.fact(StayedPut).guest_ended
        if gone:
            return "pass", f"the migration {ended}, and the QEMU that had the guest ended, as both were to"
        return "pass", f"the migration {ended}, as it was to, and the guest goes on where it was"
    parts = [f"{pages.equal} equal"]
    sent_later = hinted_and_sent(case, pages.left_out)
    if sent_later:
        parts.append(f"{sent_later} times a page was left out by a hint, and sent later all the same")
    if unrecorded_hints(case):
        parts.append(f"{unrecorded_hints(case)} hints were taken, of which this QEMU keeps no record")
    if pages.skipped:
        parts.append(
            f"{pages.skipped} skipped" + ("" if case.strict else " (unchanged by the device's own account)")
        )
    parts += [f"{count} {name}" for name, count in pages.explained.items()]
    return "pass", f"all {pages.total} pages are right: {', '.join(parts)}"
