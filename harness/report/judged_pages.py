# SPDX-License-Identifier: GPL-2.0-or-later
"""What a result says of the guest's pages: counted, the wrong ones, the broken rules, the witnesses."""

from __future__ import annotations

from harness.memory.walk import FreeWalk, PageStanding, WalkError
from harness.report.part import Part
from harness.verdict.judge import Finding, Judgement, PageCounts, Testimony

#: How many wrong pages are listed with all that is known of each.
WRONG_PAGES = 100


class Pages(Part):
    """Every page of every compared block, in exactly one category."""

    total: int
    """Pages compared; the sum of all that follows."""
    equal: int
    """Pages with equal content on both sides."""
    skipped: int
    """Left behind, and shown to be right: see docs/oracle.md."""
    explained: dict[str, int]
    """Different for a reason that has a name: pages by name."""
    wrong: int
    """Different without a reason."""
    skipped_percent: float
    """skipped, of total."""

    @classmethod
    def of(cls, counts: PageCounts) -> Pages:
        """Build this from the judge's counts."""
        return cls(
            total=counts.total,
            equal=counts.equal,
            skipped=counts.skipped,
            explained=dict(counts.explained),
            wrong=counts.wrong,
            skipped_percent=round(counts.skipped_percent, 3),
        )


class WrongPageEntry(Part):
    """One wrong page."""

    block: str
    """RAMBlock."""
    page: int
    """Page number in the block."""
    frame: int | None
    """Guest frame number; null where the guest cannot see the page, or nobody said."""
    rule: str
    """The rule that it breaks."""
    request: str | None
    """The request by whose answer it was skipped, in hexadecimal."""
    zero_on_source: bool
    """Whether the source holds nothing but zeros there."""
    zero_on_destination: bool
    """Whether the page held nothing but zeros on the destination."""
    sent: bool | None
    """Whether it was ever sent; null without a record of the device."""
    guest: int | None = None
    """Whose page it is, where there are several guests: its number, from 1."""


class FoundRule(Part):
    """A rule that was broken: why the verdict is fail."""

    rule: str
    """The rule's name; docs/oracle.md explains each."""
    kind: str
    """memory, witness, record, guest or expectation."""
    text: str
    """What is wrong, in words."""
    count: int
    """How often; of pages, how many."""
    block: str | None
    """RAMBlock, where it is about one."""
    pages: list[int]
    """The first of the pages that it is about."""
    guest: int | None = None
    """Of which guest, where there are several: its number, from 1."""

    @classmethod
    def of(cls, finding: Finding) -> FoundRule:
        """Build this from the judge's finding."""
        return cls(
            rule=finding.rule,
            kind=finding.kind,
            text=finding.text,
            count=finding.count,
            block=finding.block,
            pages=list(finding.pages),
        )


class Witnesses(Part):
    """What the outside walk says to the guest's answers."""

    kernel: str | None
    """The release of the kernel that was walked at switch-over; null: that walk was not made."""
    answered: int
    """Requests of which an answer was accepted."""
    judged: int
    """How many of the answered requests have an outside walk."""
    missing: list[str]
    """Why there is none for the others."""
    standing: dict[str, int]
    """Reported pages by what is known of each, see docs/walk.md; a page counts for each request."""
    owned: int
    """Of those, pages that the workload owned all the while: a failure."""
    undecided: int
    """Of those, pages on no list at both ends and unchanged: on a quiet guest a failure."""
    agreement: dict[str, int]
    """On a quiet guest: pages that both witnesses call free, or only one of them, and why."""


class NotCompared(Part):
    """A migrated block that was not looked into."""

    name: str
    """RAMBlock."""
    bytes: int | None
    """The block's size in bytes."""
    reason: str
    """Why not."""


def witness_counts(heard: Testimony, at_end: FreeWalk | WalkError | None) -> Witnesses | None:
    """From what the judge heard, and the walk at switch-over."""
    if at_end is None:
        return None
    return Witnesses(
        kernel=at_end.release if isinstance(at_end, FreeWalk) else None,
        answered=heard.answered,
        judged=heard.judged,
        missing=[*heard.missing, *([str(at_end)] if isinstance(at_end, WalkError) else [])],
        standing=dict(heard.standing),
        owned=heard.standing.get(PageStanding.OWNED.label, 0),
        undecided=heard.standing.get(PageStanding.UNDECIDED.label, 0),
        agreement=dict(heard.differences),
    )


def wrong_pages_of(judgement: Judgement, limit: int = WRONG_PAGES) -> list[WrongPageEntry]:
    """The first wrong pages, some of each rule that was broken."""
    return [
        WrongPageEntry(
            block=page.block,
            page=page.page,
            frame=page.frame,
            rule=page.rule,
            request=None if page.request is None else f"{page.request:#x}",
            zero_on_source=page.zero_on_source,
            zero_on_destination=page.zero_on_destination,
            sent=page.sent,
        )
        for page in judgement.wrong_pages(limit)
    ]
