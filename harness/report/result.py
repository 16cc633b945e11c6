# SPDX-License-Identifier: GPL-2.0-or-later
"""``result.json``: what a run found, for programs.  docs/result.md describes every field.

    result = Result(verdict=judgement.verdict, ..., pages=Pages.of(judgement), bytes=Bytes.of(account, ...))
    result.to_json()
    Result.from_json(text)          # refuses another version

Fields are only ever added within version 1; a program that reads it must ignore
what it does not know.  What could not be found out is null, never a made-up 0.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationError

from harness.errors import InputError, MachineryError
from harness.report.by_hand import StoppedByHand
from harness.report.commands import GuestCommand, QmpCommand
from harness.report.costs import Cost, Walk, Work
from harness.report.devices import Devices, Liveness
from harness.report.guests import Guests
from harness.report.judged_pages import FoundRule, NotCompared, Pages, Witnesses, WrongPageEntry
from harness.report.machine import MachineReport
from harness.report.migration import Bytes, FileReport, Postcopy, Protocol, Time
from harness.report.move import MoveEnd
from harness.report.part import Part
from harness.report.remote import RemoteReport
from harness.report.wire import WireReport
from harness.scenario.expectations import VerdictWord
from harness.scenario.model import Arm

RESULT_VERSION = 1
_NOT_MOVED = "this result is of a migration that came to no switch-over"


def first_problem(error: ValidationError) -> str:
    """The first thing that is wrong with a document that was read back: where, and what."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "document"
    return f"{where}: {first['msg']}"


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


def result_schema() -> dict[str, object]:
    """The JSON Schema of ``result.json``."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Result.model_json_schema()}
