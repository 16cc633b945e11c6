# SPDX-License-Identifier: GPL-2.0-or-later
"""The migrations of a run, one after the other: each judged, then the next, or the end of the run.

Most runs have one.  A scenario with several takes a guest there and back, or
cancels a migration and tries again; each that completes takes the guest to the
other host, and what is wrong after any of them ends the run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from harness.errors import GuestLost, HostLost, MachineryError
from harness.events import Deadline, EventStream
from harness.evidence.gather import Evidence, gather
from harness.evidence.guest_checks import CHECK_SECONDS, WRONG_GUEST_SECONDS, Answers, check, look, resume
from harness.evidence.guest_meter import GuestMeter
from harness.evidence.keep import keep_pages
from harness.evidence.moved import Given, Moved
from harness.memory.record import Request
from harness.migration.statistics import MigrationError
from harness.report.folder import RunFolder
from harness.run.boot import Booted
from harness.run.findings import Findings, LegEnd
from harness.run.move import Move
from harness.verdict.finding import Finding

if TYPE_CHECKING:
    import libvirt

    from harness.hosts.interface import Host
    from harness.report.measures import Work
    from harness.scenario.model import Leg
    from harness.scenario.script import Entry
    from harness.verdict.judge import Judgement

#: What is left of the script once the guest runs on its new host.
SCRIPT_SECONDS: Final = 600.0
#: The guest's first answer after a migration that was given up.
GOES_ON_SECONDS: Final = 60.0


@dataclass(slots=True)
class _Course:
    """What has come of the run so far."""

    meter: GuestMeter
    legs: list[LegEnd] = field(default_factory=list)
    found: list[Finding] = field(default_factory=list)
    unexercised: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Leg:
    """One of the migrations, and where it leads."""

    number: int
    of: int
    wanted: Leg
    hosts: tuple[Host, Host]

    @property
    def last(self) -> bool:
        return self.number == self.of

    def named(self, text: str) -> str:
        """With the migration's number in front, where there are several."""
        return text if self.of == 1 else f"move {self.number}: {text}"


def migrate_and_judge(here: Booted, folder: RunFolder, events: EventStream, since: int) -> Findings:
    """Steps 6 to 9; ``since`` is the guest's last kernel message from before."""
    wanted = here.plan.resolved.scenario.moves
    last_message = since
    course = _Course(GuestMeter(here.guest.control, here.plan.resolved.scenario, events))
    course.meter.begin()
    domain, hosts = here.domain, (here.lab.source, here.lab.destination)
    for number, leg_wanted in enumerate(wanted, 1):
        leg = _Leg(number, len(wanted), leg_wanted, hosts)
        place = folder if number == 1 else folder.below(f"move-{number}")
        with Move(here.guest, hosts, place, events, _entries(here, number)) as move:
            moved = _migrate(here, leg, move, domain, course, events)
            if move.stage.guest.since is not None:
                last_message = move.stage.guest.since
            if isinstance(moved, Given):
                _gone_on(here, leg, moved, course)
                continue
            with events.step("judge"):
                evidence = gather(moved, here.plan.resolved, events)
                memory = evidence.judge(None)
                # The guest that goes on writes to its pages.
                keep_pages(memory, moved, place)
            course.legs.append(_ended(memory, evidence))
            if memory.verdict == "fail" or leg.last:
                return _finish(here, leg, move, moved, (evidence, memory), course, last_message, events)
            _on_the_way(here, leg, move, moved, memory, course, events)
            domain, hosts = moved.domain, (hosts[1], hosts[0])
    raise AssertionError("the last move is one that completes")


def _entries(here: Booted, number: int) -> tuple[Entry, ...]:
    return tuple(entry for entry in here.plan.resolved.scenario.script if entry.move == number)


def _migrate(
    here: Booted, leg: _Leg, move: Move, domain: libvirt.virDomain, course: _Course, events: EventStream
) -> Moved | Given:
    resolved = here.plan.resolved
    given: Given | None = None
    moved: Moved | None = None
    with events.step("migrate", arm=resolved.scenario.arm, move=leg.number) as step:
        try:
            moved = move.run(domain, resolved.scenario.migration)
        except MigrationError as error:
            if leg.wanted.ends == "completed":
                raise
            given = move.given_up(error)
            step.note(ended=given.ended, reason=given.reason)
        else:
            numbers = moved.statistics
            step.note(sent=numbers.sent, total_ms=numbers.total_ms, downtime_ms=numbers.downtime_ms)
    course.found += move.stage.outcome.findings
    ended = "completed" if given is None else given.ended
    if ended != leg.wanted.ends:
        text = f"the migration ended {ended}, expected {leg.wanted.ends}"
        course.found.append(Finding("migration-ended", "expectation", leg.named(text)))
    if given is not None:
        _unreached(leg, move, course)
        return given
    assert moved is not None
    return moved


def _unreached(leg: _Leg, move: Move, course: _Course) -> None:
    for entry in move.script.unreached:
        which = f" {entry.number}" if entry.number is not None else ""
        course.unexercised.append(leg.named(f"the script came to no {entry.at}{which}"))


def _gone_on(here: Booted, leg: _Leg, given: Given, course: _Course) -> None:
    """After a migration that was given up the guest goes on where it was."""
    course.legs.append(LegEnd(given.ended, given.reason))
    reason = leg.wanted.reason
    if reason is not None and reason not in given.reason:
        text = f"the reason given is {given.reason!r}, expected {reason!r} in it"
        course.found.append(Finding("migration-reason", "expectation", leg.named(text)))
    control = here.guest.control
    control.rebind(leg.hosts[0].name)
    control.call("ping", deadline=Deadline(GOES_ON_SECONDS, "the guest's answer after a migration given up"))


def _ended(memory: Judgement, evidence: Evidence) -> LegEnd:
    # Those that left, answered or not.
    requests = sum(isinstance(entry, Request) for entry in evidence.record.log)
    return LegEnd("completed", memory.reason, memory.verdict, memory.pages.skipped, requests)


def _on_the_way(
    here: Booted,
    leg: _Leg,
    move: Move,
    moved: Moved,
    memory: Judgement,
    course: _Course,
    events: EventStream,
) -> None:
    """The guest has arrived, and is about to move on."""
    if memory.verdict == "inconclusive":
        course.unexercised.append(leg.named(memory.reason))
    control = here.guest.control
    resume(moved.domain, control, leg.hosts[1].name, events)
    move.resumed(Deadline(SCRIPT_SECONDS, "the rest of the script"))
    _unreached(leg, move, course)
    course.found += here.guest.look_at_devices(leg.hosts[1], moved.monitor, events)
    bad = move.stage.pages.verify(Deadline(SCRIPT_SECONDS, "the script's own pages"))
    if leg.wanted.check:
        bad += look(control, events)
    if bad:
        text = leg.named(f"the guest found {bad} of its own pages with wrong content")
        course.found.append(Finding("guest-verify", "guest", text, bad))


def _finish(
    here: Booted,
    leg: _Leg,
    move: Move,
    moved: Moved,
    judged: tuple[Evidence, Judgement],
    course: _Course,
    since: int,
    events: EventStream,
) -> Findings:
    """The last migration, or the one that went wrong: the guest's checks, and everything put together."""
    evidence, memory = judged
    answers: Answers | None = None
    work: Work | None = None
    gone: GuestLost | None = None
    with events.step("check"):
        try:
            control = here.guest.control
            resume(moved.domain, control, leg.hosts[1].name, events)
            work = course.meter.end()
            # One whose memory is wrong may hang for good, and adds nothing to its verdict.
            wrong = memory.verdict == "fail"
            patience = WRONG_GUEST_SECONDS if wrong else SCRIPT_SECONDS
            move.resumed(Deadline(patience, "the rest of the script"))
            course.found += here.guest.look_at_devices(leg.hosts[1], moved.monitor, events)
            bad = move.stage.pages.verify(Deadline(patience, "the script's own pages"))
            if bad:
                text = leg.named(f"the guest found {bad} of the script's pages with wrong content")
                course.found.append(Finding("guest-pages", "guest", text, bad))
            seconds = WRONG_GUEST_SECONDS if wrong else CHECK_SECONDS
            answers = check(control, here.plan.resolved, since, events, seconds=seconds)
        except MachineryError as error:
            # A guest with wrong memory may well die of it, or lose its mind and talk nonsense:
            # that is the verdict, not its end.
            if memory.verdict != "fail" or isinstance(error, HostLost):
                raise
            gone = error if isinstance(error, GuestLost) else GuestLost(error.message)
    _unreached(leg, move, course)
    return Findings(
        evidence=evidence,
        statistics=moved.statistics,
        counters=moved.counters or {},
        completed_at=moved.completed_at,
        held_seconds=moved.holds.seconds,
        answers=answers,
        lost=gone,
        legs=tuple(course.legs),
        found=tuple(course.found),
        unexercised=tuple(course.unexercised),
        cost=moved.cost,
        work=work,
        free_blocks=course.meter.free_blocks,
    )
