# SPDX-License-Identifier: GPL-2.0-or-later
"""``result.json``: what a run found, for programs.  docs/result.md describes every field.

    result = Result(verdict=judgement.verdict, ..., pages=Pages.of(judgement), bytes=Bytes.of(account, ...))
    result.to_json()
    Result.from_json(text)          # refuses another version

Fields are only ever added within version 1; a program that reads it must ignore
what it does not know.  What could not be found out is null, never a made-up 0.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, ValidationError

from harness.devicestate.compare import Comparison
from harness.errors import InputError, MachineryError
from harness.memory.walk import FreeWalk, PageStanding, WalkError
from harness.report.by_hand import StoppedByHand
from harness.report.commands import GuestCommand, QmpCommand
from harness.report.costs import Cost, Walk, Work
from harness.report.guests import Guests
from harness.report.machine import MachineReport
from harness.report.move import MoveEnd
from harness.report.part import Part
from harness.report.remote import RemoteReport
from harness.report.wire import WireReport
from harness.scenario.expectations import VerdictWord
from harness.scenario.model import Arm
from harness.verdict.floor import Account
from harness.verdict.judge import Finding, Judgement, PageCounts, Testimony

RESULT_VERSION = 1
#: How many wrong pages are listed with all that is known of each.
WRONG_PAGES = 100
_NOT_MOVED = "this result is of a migration that came to no switch-over"


def first_problem(error: ValidationError) -> str:
    """The first thing that is wrong with a document that was read back: where, and what."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "document"
    return f"{where}: {first['msg']}"


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


class DeviceDifference(Part):
    """A field of a device or vCPU that the destination has not as the source saved it."""

    device: str
    """QEMU's name of the section: the device's place and kind."""
    instance: int
    """Which one, of several with that name."""
    field: str
    """QEMU's name of the field; "byte N" where QEMU does not describe it."""
    source: str
    """The source's value."""
    destination: str
    """The destination's."""
    reason: str | None
    """Why it may differ; null: it must not."""
    changed: str = ""
    """Which side has no longer what was sent, by the migration's stream; empty: nobody has heard it."""


class Devices(Part):
    """The state of devices and vCPUs, as both QEMUs saved it at switch-over."""

    compared: int
    """Devices; 0: see not_compared."""
    bytes: int
    """Their state, altogether."""
    differences: list[DeviceDifference]
    """All fields that differ."""
    not_compared: str = ""
    """Why nothing was compared, or only a part; empty if all was."""

    @classmethod
    def of(cls, found: Comparison | str) -> Devices:
        """Build this from the comparison, or from the reason why there is none."""
        if isinstance(found, str):
            return cls(compared=0, bytes=0, differences=[], not_compared=found)
        differences = [DeviceDifference(**dataclasses.asdict(one)) for one in found.differences]
        return cls(
            compared=found.devices,
            bytes=found.bytes,
            differences=differences,
            not_compared=found.partly,
        )


class Liveness(Part):
    """How a device of the scenario's was after the last migration, when the guest used it."""

    device: str
    """Its name in the scenario."""
    answers: bool | None
    """Whether it did all that it was asked for; null: nobody asked it for anything."""
    did: list[str]
    """What the guest did with it."""
    wrong: list[str]
    """What was wrong."""


class Protocol(Part):
    """The device's counters of this migration."""

    requests: int
    """Requests that left."""
    responses: int
    """Answers that arrived whole."""
    stale: int
    """Chunks dropped because a newer request or a sync had come."""
    invalid: int
    """Chunks that the device could not make sense of."""
    chunks: int
    """Chunks that arrived."""
    reported: int
    """Pages reported free in what was applied; a page counts each time."""
    skipped: int
    """Dirty bits cleared; a page that is dirtied and cleared again counts twice."""
    sent_before: int
    """Pages reported that had been sent already, and were let alone."""
    fetched: int = 0
    """Pages that were left out, and sent after all: in postcopy the destination asked for them; 0 in a
    result of before these were counted."""
    dropped: int
    """Chunks beyond what an answer may hold."""
    bad_pages: int
    """Reported frames that are no memory of this migration."""
    refused: str
    """Why the device asked for nothing at all; empty if it asked."""

    @classmethod
    def of(cls, counters: Mapping[str, object]) -> Protocol:
        """Build this from the device's statistics, which have QEMU's names."""

        def number(key: str) -> int:
            value = counters.get(key, 0)
            return value if isinstance(value, int) else 0

        return cls(
            requests=number("requests"),
            responses=number("answers"),
            stale=number("stale"),
            invalid=number("invalid"),
            chunks=number("chunks"),
            reported=number("reported"),
            skipped=number("skipped"),
            sent_before=number("sent-before"),
            fetched=number("fetched"),
            dropped=number("dropped"),
            bad_pages=number("bad-pages"),
            refused=str(counters.get("refused", "")),
        )


class Bytes(Part):
    """What was sent, what had to be sent, and where the difference went."""

    sent: int
    """QEMU's ram.transferred."""
    full_pages: int
    """Sendings of whole pages."""
    zero_pages: int
    """Sendings of pages of zeros."""
    floor: int
    """What had to be sent: 4104 for each page that is neither free nor zero, 9 (multifd: 8)
    for each zero page, nothing for a free one."""
    floor_by: Literal["none", "module", "walk"]
    """Who says what is free: nobody, the guest's own first answer, or a walk from outside."""
    floor_at: Literal["request", "start", "switch-over"]
    """The instant at which pages were looked at for it."""
    sent_over_floor: float | None
    """(sent - head) / floor."""
    head: int
    """Free pages that were sent before the first answer came."""
    again: int | None
    """Pages sent more than once."""
    unreported: int | None
    """Free pages that no answer reported; only a walk from outside can tell."""
    rest: int
    """sent less everything above."""

    @classmethod
    def of(cls, account: Account, *, full_pages: int, zero_pages: int) -> Bytes:
        """Build this from the account, and QEMU's ``normal`` and ``duplicate``."""
        return cls(
            sent=account.sent,
            full_pages=full_pages,
            zero_pages=zero_pages,
            floor=account.floor,
            floor_by=account.floor_by,
            floor_at=account.floor_at,
            sent_over_floor=round(account.sent_over_floor, 4) if account.floor else None,
            head=account.head,
            again=account.again,
            unreported=account.unreported,
            rest=account.rest,
        )


class Time(Part):
    """How long the migration took, in milliseconds, by QEMU's clock."""

    total_ms: int
    """From start to completion; includes the holds."""
    downtime_ms: int
    """The guest's pause at switch-over, as QEMU counts it."""
    setup_ms: int
    """Before the first page."""
    held_ms: int
    """Of total_ms: the guest stood still for the oracle's digests."""


class FileReport(Part):
    """The file through which the guest went, of the last migration that had one."""

    way: str
    """migration.to: file, save, savevm or background-snapshot."""
    path: str
    """Where it was; it is still there if the scenario says so (migration.file.keep)."""
    bytes: int | None
    """Its size; null: it did not become whole."""
    allocated: int | None
    """What it takes on its file system: less than its size where it has holes."""
    write_ms: int | None
    """Milliseconds from the command that begins it to its end."""
    restore_ms: int | None
    """Milliseconds in which the destination has read it; null: it did not take it."""
    used_memory: bool
    """Whether the memory into which it was read was not zero."""
    spoilt: str
    """What was done to it before, in words; empty: nothing."""
    written_meanwhile: int | None
    """Of a background snapshot: pages that the guest had changed by the time that the file was whole."""


class PostcopyPages(Part):
    """Pages by the way they came; a page counts each time that it is sent."""

    precopy: int
    """Before the switch."""
    postcopy: int
    """After it."""
    requests: int
    """Requests of the destination's that have reached the source: for pages on which somebody waited. One
    counts even where its page was on its way already."""


class Postcopy(Part):
    """A migration that was switched to postcopy."""

    guest: Literal["paused", "runs"]
    """Whether the guest ran on the destination from the switch on."""
    source_statuses: list[str]
    """QEMU's statuses on the source, in order."""
    destination_statuses: list[str]
    """QEMU's statuses on the destination, in order."""
    ms: int
    """From the switch to the end, on the source."""
    breaks: int
    """How often the connection broke."""
    pages: PostcopyPages | None
    """null: QEMU could not be asked in the end."""
    precopy_bytes: int | None
    """Sent before the switch."""
    downtime_bytes: int | None
    """Sent while the guest stood still."""
    postcopy_bytes: int | None
    """Sent after it."""


class GuestReport(Part):
    """The guest's own checks after it was resumed; null: not made."""

    verify_pages: int | None = None
    """Pages with known content that it owned throughout."""
    verify_bad: int | None = None
    """How many of the verified pages are wrong."""
    checksum_matches: bool | None = None
    """Whether the checksum over them is the one that the host computes from the seed."""
    exercise_pages: int | None = None
    """Pages that it allocated, filled, verified and freed after the migration."""
    exercise_bad: int | None = None
    """Of those, the ones that did not keep their content."""
    kernel_warnings: list[str] | None = None
    """Warnings in its kernel's log."""


class Result(Part):
    """The result of one run."""

    version: Literal[1] = 1
    """The version of this format."""
    verdict: VerdictWord
    """pass, fail or inconclusive."""
    reason: str
    """One sentence."""
    expected: VerdictWord = "pass"
    """The verdict that the scenario is written to show."""
    expected_rule: str | None = None
    """The rule by which it is written to fail; null: any, or it is not written to fail."""
    scenario: str
    """Its name; the whole of it is in scenario.yaml beside the result."""
    arm: Arm
    """off, hint or info."""
    accelerator: str
    """kvm or tcg, of the guest; in a nested machine the chain of them: kvm-in-tcg, kvm-in-kvm."""
    accelerator_reason: str
    """Why that one."""
    seed: int
    """The seed: a run with this seed loads the same bytes."""
    strict: bool
    """Whether "unchanged since the request" rests on digests."""
    memory_bytes: int
    """The guest's memory."""
    warm: bool = False
    """Whether the guest has gone on from a file, and was not booted; see docs/warm.md."""
    machine: MachineReport | None = None
    """null in older results."""
    guests: Guests | None = None
    """null: there was one guest. Else pages, protocol and bytes are sums over all of them, and time, rounds
    and phases are the longest; what cannot be added is null, and stands in each guest's own result."""
    pages: Pages
    findings: list[FoundRule]
    """Every rule that was broken; empty unless the verdict is fail."""
    wrong_pages: list[WrongPageEntry]
    """The first 100 wrong pages."""
    observed: dict[str, int]
    """Counted, and harmless; docs/oracle.md says what each means."""
    witnesses: Witnesses | None = None
    """null: there was no second witness."""
    not_compared: list[NotCompared]
    """Migrated blocks that nobody looked into."""
    devices: Devices | None = None
    """The state of devices and vCPUs; null in older results."""
    liveness: list[Liveness] = Field(default=[])
    """Each of the scenario's devices (guest.devices), used by the guest after it has arrived."""
    wire: WireReport | None = None
    """The stream, as a tap has heard it; null: nobody listened."""
    protocol: Protocol
    bytes: Bytes | None
    """null: the migration came to no switch-over."""
    time: Time | None
    """null: the migration came to no switch-over."""
    postcopy: Postcopy | None = None
    """null: the migration was not switched to postcopy."""
    rounds: int | None
    """Bitmap syncs (QEMU's dirty-sync-count); null: the migration came to no switch-over."""
    commands: list[GuestCommand] = Field(default=[])
    """Commands that the guest ran, in order."""
    qmp: list[QmpCommand] = Field(default=[])
    """QMP commands of the script, in order."""
    file: FileReport | None = None
    """null: the guest went through no file."""
    moves: list[MoveEnd] = Field(default=[])
    """The run's migrations in order; everything above is of the last one."""
    guest: GuestReport
    cost: Cost | None = None
    """Processor time and memory of both QEMUs."""
    work: Work | None = None
    """What the guest got done before, during and after."""
    walk: Walk | None = None
    """The guest's walks; arm info only."""
    free_blocks: list[int] | None = None
    """Free blocks of the guest by order, from 0, just before the migration."""
    by_hand: list[StoppedByHand] = Field(default=[])
    """Where the run stood still for a person (--keep, --pause-at)."""
    remote: RemoteReport | None = None
    """null: both hosts were this machine, in a lab."""
    phases: dict[str, float]
    """Seconds by phase of the run."""
    checks: dict[str, float] = Field(default={})
    """Of these, the seconds that each of the checks beside memory took: `devices`, `locks`, `ends`."""
    versions: dict[str, Any]
    """Versions and hashes of every binary that was used."""
    replay: str
    """The command that makes this run again."""
    folder: str | None = Field(default=None)
    """The run folder."""

    @property
    def as_expected(self) -> bool:
        """Whether the verdict is what the scenario is written to show, by the rule that it names."""
        if self.verdict != self.expected:
            return False
        return self.expected_rule is None or any(one.rule == self.expected_rule for one in self.findings)

    @property
    def moved_bytes(self) -> Bytes:
        """What was sent by a migration that came to its switch-over."""
        if self.bytes is None:
            raise MachineryError(_NOT_MOVED)
        return self.bytes

    @property
    def moved_time(self) -> Time:
        """How long a migration took that came to its switch-over."""
        if self.time is None:
            raise MachineryError(_NOT_MOVED)
        return self.time

    def to_json(self) -> str:
        """The document, indented, with a newline at its end."""
        return self.model_dump_json(indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, name: str = "result.json") -> Result:
        """Read a document back; :class:`InputError` if it is none of this version."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise InputError(
                f"{name} is not a result of version {RESULT_VERSION}: {first_problem(error)}"
            ) from error


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


def result_schema() -> dict[str, object]:
    """The JSON Schema of ``result.json``."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Result.model_json_schema()}
