# SPDX-License-Identifier: GPL-2.0-or-later
"""The judge: what was found at switch-over goes in, a verdict comes out.

    judgement = judge(JudgeInput(arm="info", blocks=..., log=..., unchanged=...))
    judgement.verdict, judgement.reason, judgement.pages.wrong

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

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from harness.memory.compare import PageNumbers
from harness.memory.record import Accept, Request
from harness.memory.walk import Standing
from harness.scenario.model import VerdictWord
from harness.verdict.case import BlockState, GuestChecks, JudgeInput, RequestWitness, demand_complete
from harness.verdict.counters import counter_findings
from harness.verdict.finding import Finding
from harness.verdict.log import NEVER, Replay, replay
from harness.verdict.pages import HINTED, HINTED_AFTER_SENT, PAGE_RULES, BlockJudgement, judge_block
from harness.verdict.witness import Testimony, hear

__all__ = [
    "HINTED",
    "HINTED_AFTER_SENT",
    "PAGE_RULES",
    "BlockJudgement",
    "BlockState",
    "Finding",
    "GuestChecks",
    "JudgeInput",
    "Judgement",
    "MemoryJudgement",
    "PageCounts",
    "RequestWitness",
    "Testimony",
    "WrongPage",
    "judge",
    "judge_memory",
]


#: Of findings, the gravest first.
_KINDS = ("memory", "witness", "record", "guest", "expectation")


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
    _case: JudgeInput

    @property
    def verdict(self) -> VerdictWord:
        """Over the memory alone."""
        return self.judgement.verdict

    def complete(
        self,
        *,
        guest: GuestChecks | None = None,
        sent_over_floor: float | None = None,
        found: Sequence[Finding] = (),
        unexercised: Sequence[str] = (),
    ) -> Judgement:
        """The verdict of the run.  What was judged of the memory is not judged again."""
        memory = self.judgement
        known = {"guest": guest, "sent_over_floor": sent_over_floor}
        case = replace(self._case, found=found, unexercised=unexercised, **known)  # type: ignore[arg-type]
        expected = _expectations(self._case, memory.pages)
        findings = [*memory.findings[: len(memory.findings) - len(expected)], *_guest(guest)]
        findings += [*_expectations(case, memory.pages), *found]
        verdict, reason = _decide(case, memory.pages, findings)
        return replace(memory, verdict=verdict, reason=reason, findings=tuple(findings))


def judge(case: JudgeInput) -> Judgement:
    """Decide over everything at once."""
    later = {"guest": case.guest, "sent_over_floor": case.sent_over_floor}
    return judge_memory(case).complete(**later, found=case.found, unexercised=case.unexercised)  # type: ignore[arg-type]


def judge_memory(case: JudgeInput) -> MemoryJudgement:
    """Decide over what is known at switch-over."""
    case = replace(case, guest=None, sent_over_floor=None, found=(), unexercised=())
    demand_complete(case)
    history = replay(case.log, {state.block.name: state.block for state in case.blocks}, case.arm)
    heard = hear(case)
    blocks = tuple(
        judge_block(state, history, case, heard.owned.get(state.block.name)) for state in case.blocks
    )
    pages = _count(blocks)
    findings = [finding for judged in blocks for finding in judged.findings]
    findings += heard.findings
    findings += history.findings
    findings += _statistics(history, case)
    findings += counter_findings(case)
    findings += _expectations(case, pages)
    observed: dict[str, int] = {}
    for judged in blocks:
        for name, count in judged.observed.items():
            observed[name] = observed.get(name, 0) + count
    undecided = heard.standing.get(Standing.UNDECIDED.label, 0)
    if undecided:
        observed["reported-undecided"] = undecided
    verdict, reason = _decide(case, pages, findings)
    judgement = Judgement(verdict, reason, pages, tuple(findings), observed, blocks, history.requests, heard)
    return MemoryJudgement(judgement, case)


def _statistics(history: Replay, case: JudgeInput) -> list[Finding]:
    """The device's counters against its log."""
    if case.statistics is None or case.arm != "info":
        return []
    logged = {"skipped": history.cleared, "reported": history.reported, "requests": history.requests_left}
    return [
        Finding(
            "statistics-disagree",
            "record",
            f"the device counts {said!r} pages or requests {key}, its log {ours}",
        )
        for key, ours in logged.items()
        if (said := case.statistics.get(key, ours)) != ours
    ]


def _guest(checks: GuestChecks | None) -> list[Finding]:
    """The guest's own checks."""
    if checks is None:
        return []
    findings = []
    if checks.verify_bad:
        text = f"the guest found {checks.verify_bad} of its own pages with wrong content"
        findings.append(Finding("guest-verify", "guest", text, checks.verify_bad))
    if checks.checksum_matches is False:
        text = "the checksum of the guest's own pages is not the one that its seed gives"
        findings.append(Finding("guest-checksum", "guest", text))
    if checks.exercise_bad:
        text = f"{checks.exercise_bad} pages did not keep what the guest wrote to them after the migration"
        findings.append(Finding("guest-exercise", "guest", text, checks.exercise_bad))
    if checks.kernel_warnings:
        text = f"the guest's kernel warns: {checks.kernel_warnings[0]}"
        findings.append(Finding("guest-kernel-log", "guest", text, len(checks.kernel_warnings)))
    return findings


def _expectations(case: JudgeInput, pages: PageCounts) -> list[Finding]:
    """What the scenario demands of arm info; the other arms are there to be compared with."""
    if case.arm != "info":
        return []
    expect, percent, findings = case.expect, pages.skipped_percent, []
    if expect.skipped_percent_min is not None and percent < expect.skipped_percent_min:
        text = (
            f"{percent:.1f} % of all pages were skipped, expected at least {expect.skipped_percent_min:g} %"
        )
        findings.append(Finding("skipped-percent-min", "expectation", text))
    if expect.skipped_percent_max is not None and percent > expect.skipped_percent_max:
        text = f"{percent:.1f} % of all pages were skipped, expected at most {expect.skipped_percent_max:g} %"
        findings.append(Finding("skipped-percent-max", "expectation", text))
    if expect.refused is not None:
        said = str((case.statistics or {}).get("refused") or "")
        if expect.refused not in said:
            text = f"the device's reason for asking nothing is {said!r}, expected {expect.refused!r} in it"
            findings.append(Finding("refused", "expectation", text))
    ratio, limit = case.sent_over_floor, expect.sent_over_floor_max
    if limit is not None and ratio is not None and ratio > limit:
        text = f"what was sent is {ratio:.3f} times the floor, expected at most {limit:g} times"
        findings.append(Finding("sent-over-floor-max", "expectation", text))
    return findings + _asked(case)


def _asked(case: JudgeInput) -> list[Finding]:
    """How often the guest was asked, against what the scenario demands."""
    asked = sum(isinstance(entry, Request) for entry in case.log)
    least, most = case.expect.requests_min, case.expect.requests_max
    findings = []
    if least is not None and asked < least:
        text = f"the guest was asked {asked} times, expected at least {least}"
        findings.append(Finding("requests-min", "expectation", text))
    if most is not None and asked > most:
        text = f"the guest was asked {asked} times, expected at most {most}"
        findings.append(Finding("requests-max", "expectation", text))
    return findings


def _count(blocks: Sequence[BlockJudgement]) -> PageCounts:
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


def _decide(case: JudgeInput, pages: PageCounts, findings: Sequence[Finding]) -> tuple[VerdictWord, str]:
    if findings:
        worst = min(findings, key=lambda f: _KINDS.index(f.kind))
        more = f" (and {len(findings) - 1} more findings)" if len(findings) > 1 else ""
        return "fail", worst.text + more
    if not pages.total:
        return "inconclusive", "no memory was compared"
    checks = case.guest
    if checks is not None and None in (checks.verify_bad, checks.exercise_bad, checks.kernel_warnings):
        return "inconclusive", "memory is right, but the guest was not asked for all of its own checks"
    left_out = pages.skipped + pages.explained.get(HINTED, 0) + pages.explained.get(HINTED_AFTER_SENT, 0)
    wanted = case.expect.skipping if case.expect.skipping is not None else case.arm != "off"
    sent_later = _hinted(case) if case.arm == "hint" and not left_out else 0
    if wanted and not left_out and not sent_later:
        return "inconclusive", f"memory is right, but nothing was skipped: {_why_nothing(case)}"
    if case.left_where_it_is and case.arm == "info" and not (case.statistics or {}).get("bad-pages"):
        return "inconclusive", "memory is right, but of what stays where it is no page was reported"
    if case.unexercised:
        return "inconclusive", f"memory is right, but {'; '.join(case.unexercised)}"
    parts = [f"{pages.equal} equal"]
    if sent_later:
        parts.append(f"{sent_later} times a page was left out by a hint, and sent later all the same")
    if pages.skipped:
        parts.append(
            f"{pages.skipped} skipped" + ("" if case.strict else " (unchanged by the device's own account)")
        )
    parts += [f"{count} {name}" for name, count in pages.explained.items()]
    return "pass", f"all {pages.total} pages are right: {', '.join(parts)}"


def _hinted(case: JudgeInput) -> int:
    """How often a hint cleared a page's dirty bit.

    The hint has been exercised, then, even if in the end every page was sent: the
    driver allocates what it hints, and with init_on_alloc Linux zeroes it first.
    Under TCG that write is in the log, and the next sync brings the page back.
    """
    return sum(entry.cleared.count() for entry in case.log if isinstance(entry, Accept))


def _why_nothing(case: JudgeInput) -> str:
    """How far arm info (or hint) came before nothing came of it."""
    if case.statistics and case.statistics.get("refused"):
        return f"the device asked for nothing, as {case.statistics['refused']}"
    if case.arm != "info":
        return f"arm {case.arm} was not exercised"
    if not any(isinstance(entry, Request) for entry in case.log):
        return "no request left"
    if not any(isinstance(entry, Accept) for entry in case.log):
        return "no answer was accepted"
    return "the answers that were accepted named no page that was still to be sent"
