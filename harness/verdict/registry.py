# SPDX-License-Identifier: GPL-2.0-or-later
"""Where rules register themselves, each by a decorator.

    @rule("record", {"odd-requests": "an odd number of requests left"})
    def odd_requests(case: JudgeInput, context: Context) -> Iterable[Finding]:
        if context.of(replay_of).requests_left % 2:
            yield Finding("odd-requests", "record", "an odd number of requests left")

    unregister(odd_requests)

The names and words of all rules are the table in docs/oracle.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias, TypeVar

from harness.memory.image import Flags
from harness.verdict.block import BlockView
from harness.verdict.case import JudgeInput
from harness.verdict.context import Context
from harness.verdict.finding import KINDS, Finding, Observation

Outcome: TypeAlias = Finding | Observation
Check: TypeAlias = Callable[[JudgeInput, Context], Iterable[Outcome]]
BlockCheck: TypeAlias = Callable[[BlockView], Iterable[Outcome]]
PageCheck: TypeAlias = Callable[[BlockView], Flags]
#: Names of rules, each with its words; or a function for what is not known yet when it is announced.
Names: TypeAlias = Mapping[str, str] | Callable[[], Mapping[str, str]]
DoubtCheck: TypeAlias = Callable[[JudgeInput, Context], str | None]

#: The order in which a verdict asks its rules, and lists what they find.  A rule's stage is its kind,
#: unless it says another; ``run`` is for what comes from outside of the judge.
STAGES: Final = (*KINDS, "run")


class _Entry(Protocol):
    @property
    def check(self) -> Callable[..., object]: ...


@dataclass(frozen=True, eq=False)
class Rule:
    """A rule about the whole run.  ``names`` are those of its findings, each with its words."""

    check: Check
    kind: str
    names: Mapping[str, str]
    needs: tuple[type[object], ...]
    stage: str


@dataclass(frozen=True, eq=False)
class BlockRule:
    """A rule that is asked about each compared block."""

    check: BlockCheck
    kind: str
    names: Mapping[str, str]


@dataclass(frozen=True, eq=False)
class PageRule:
    """A rule that pages break.  Of each page that is wrong, the first one that it breaks counts.

    ``text`` goes on after "so many pages of this block".
    """

    check: PageCheck
    name: str
    text: str


@dataclass(frozen=True, eq=False)
class Doubt:
    """A reason why a run in which nothing is wrong is inconclusive all the same."""

    check: DoubtCheck
    needs: tuple[type[object], ...]


@dataclass(frozen=True, slots=True)
class RuleRow:
    """One name that a finding can have, for the table of all rules."""

    name: str
    kind: str
    words: str


_rules: list[Rule] = []
_block_rules: list[BlockRule] = []
_page_rules: list[PageRule] = []
_doubts: list[Doubt] = []
_announced: list[tuple[str, Names]] = []

Function = TypeVar("Function", bound=Callable[..., object])


def rule(
    kind: str, names: Mapping[str, str], *, needs: tuple[type[object], ...] = (), stage: str | None = None
) -> Callable[[Check], Check]:
    """Register a rule.  It is asked once all the facts that it ``needs`` are known.

    Raises ValueError for a kind or stage that does not exist.
    """
    where = stage if stage is not None else kind
    if kind not in KINDS or where not in STAGES:
        raise ValueError(f"a rule of kind {kind!r} at {where!r}: kinds are {KINDS}, stages {STAGES}")

    def register(check: Check) -> Check:
        _rules.append(Rule(check, kind, names, needs, where))
        return check

    return register


def block_rule(kind: str, names: Mapping[str, str]) -> Callable[[BlockCheck], BlockCheck]:
    """Register a rule that is asked about each compared block."""

    def register(check: BlockCheck) -> BlockCheck:
        _block_rules.append(BlockRule(check, kind, names))
        return check

    return register


def page_rule(name: str, text: str, *, before: str | None = None) -> Callable[[PageCheck], PageCheck]:
    """Register a rule that pages break; it is asked ``before`` another one, or last."""
    known = [entry.name for entry in _page_rules]
    place = len(known) if before is None else known.index(before)

    def register(check: PageCheck) -> PageCheck:
        _page_rules.insert(place, PageRule(check, name, text))
        return check

    return register


def doubt(needs: tuple[type[object], ...] = ()) -> Callable[[DoubtCheck], DoubtCheck]:
    """Register a doubt: a function that gives the reason, or None.  The first reason counts."""

    def register(check: DoubtCheck) -> DoubtCheck:
        _doubts.append(Doubt(check, needs))
        return check

    return register


def announce(kind: str, names: Names) -> None:
    """Name findings that come from outside of the judge, such as a script's, with their words."""
    _announced.append((kind, names))


def unregister(check: Callable[..., object]) -> None:
    """Take a rule or a doubt away again, by its function."""
    registries: tuple[list[_Entry], ...] = (_rules, _block_rules, _page_rules, _doubts)  # type: ignore[assignment]
    for entries in registries:
        entries[:] = [entry for entry in entries if entry.check is not check]


def rules() -> tuple[Rule, ...]:
    """Every rule about the whole run, in the order in which they are asked."""
    return tuple(sorted(_rules, key=lambda entry: STAGES.index(entry.stage)))


def block_rules() -> tuple[BlockRule, ...]:
    """Every rule about a block, in the order in which they are asked."""
    return tuple(_block_rules)


def page_rules() -> tuple[PageRule, ...]:
    """Every rule that a page can break, in the order in which they are asked."""
    return tuple(_page_rules)


def doubts() -> tuple[Doubt, ...]:
    """Every doubt, in the order in which they are asked."""
    return tuple(_doubts)


def rows() -> Iterator[RuleRow]:
    """Every registered name, in the order in which a verdict lists them."""
    for page in page_rules():
        yield RuleRow(page.name, "memory", f"pages {page.text}")
    entries: tuple[BlockRule | Rule, ...] = (*block_rules(), *rules())
    for entry in entries:
        for name, words in entry.names.items():
            yield RuleRow(name, entry.kind, words)
    for kind, announced in _announced:
        for name, words in (announced() if callable(announced) else announced).items():
            yield RuleRow(name, kind, words)


def known_names() -> frozenset[str]:
    """Every name that a finding can have."""
    return frozenset(row.name for row in rows())
