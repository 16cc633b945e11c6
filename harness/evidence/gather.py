# SPDX-License-Identifier: GPL-2.0-or-later
"""From two paused QEMUs to what the judge needs: both memories compared, the device's record read."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from harness.devicestate.compare import Comparison
from harness.devicestate.hints import hints_taken
from harness.devicestate.virtio_mem import plugged_pages
from harness.errors import MachineryError
from harness.events import EventStream
from harness.evidence.after_switch import SinceSwitch, WorkloadSteps, last_step, since_switch
from harness.evidence.check_times import timed
from harness.evidence.copied_disks import compare_copies
from harness.evidence.device_state import compare_states
from harness.evidence.host_writes import names_of
from harness.evidence.switch_over import PostcopyMove, SwitchOver
from harness.evidence.wire_witness import HeardStream, heard_stream
from harness.evidence.witnesses import is_quiet, witnesses_of
from harness.explain.sendings import Sendings
from harness.explain.store import LOOK_AT_END, LookKey
from harness.guest.devices.dimm import VIRTIO_MEM
from harness.memory.access import Image, PageDigests, PageNumbers
from harness.memory.compare import compare
from harness.memory.digest import RequestDigests, look
from harness.memory.image import Flags, RamImage
from harness.memory.record import Block, MigrationRecord, read_record
from harness.memory.walk import FreeWalk
from harness.migration.hold import ANSWER, REQUEST, START, HoldKeeper
from harness.migration.outside import Look
from harness.scenario.model import Arm
from harness.scenario.resolve import ResolvedScenario
from harness.units import PAGE_SIZE
from harness.verdict.judge import BlockState, JudgeInput
from harness.verdict.log import NEVER, replay_record
from harness.verdict.rules.copied_disks import CopiedDisks
from harness.verdict.wire import WireFacts

_NO_RECORD: Final = MigrationRecord()


@dataclass(frozen=True, eq=False)
class Free:
    """What was free when the floor is counted, by the outside walk: at a request, or at the start."""

    request: int
    walk: FreeWalk


@dataclass(frozen=True, eq=False)
class Evidence:
    """All that was found at switch-over."""

    case: JudgeInput
    record: MigrationRecord
    digests: RequestDigests
    #: Blocks that could not be compared: their size, and why.
    not_compared: Mapping[str, tuple[int | None, str]]
    #: The walk by which the floor counts what is free, and the digests of the same instant.
    free: Free | None
    #: The walk at switch-over, or why there is none; None: nobody walked.
    at_end: Look | None
    #: The device's record's file, and both QEMUs' traces if they were asked for.
    record_file: Path
    traces: tuple[Path, Path] | None
    #: Every other walk, by request and point, in order.
    looks: Mapping[LookKey, Look]
    #: Between two instants at which digests were taken, by block: which pages changed.
    changed: Mapping[tuple[LookKey, LookKey], Mapping[str, Flags]]
    #: Both sides' devices, held against each other; words say why they were not.
    devices: Comparison | str
    #: What the stream says of it all; None: nobody listened.
    wire: WireFacts | None = None
    #: Where it was written to.
    stream: Path | None = None
    #: Which page came in which round, by the stream.
    sendings: Mapping[str, Sendings] = field(default_factory=dict)
    #: The disks that were copied with the guest; None: none was.
    disks: CopiedDisks | None = None


def gather(switch_over: SwitchOver, resolved: ResolvedScenario, events: EventStream) -> Evidence:
    """Compare the two memories, and read what the device says that it did, and what a tap has heard."""
    if switch_over.stream is None:
        return _gather(switch_over, resolved, events, None)
    with contextlib.ExitStack() as stack:
        with events.step("wire") as step:
            heard = stack.enter_context(heard_stream(switch_over.stream))
            step.note(bytes=heard.size, **({} if heard.unread is None else {"unread": heard.unread}))
        return _gather(switch_over, resolved, events, heard)


def _gather(
    switch_over: SwitchOver, resolved: ResolvedScenario, events: EventStream, heard: HeardStream | None
) -> Evidence:
    record = _read_record(switch_over.record)
    scenario = resolved.scenario
    not_compared: dict[str, tuple[int | None, str]] = {}
    states = []
    held, now = bool(switch_over.holds.holds), dict[str, PageDigests]()
    moved = switch_over.postcopy
    again = _SinceSwitch.of(switch_over, resolved)
    # What is handed over has to have come through it as it was.
    staying = {} if switch_over.handed_over else _left_where_it_is(switch_over)
    for name, source, destination in _pairs(switch_over, staying, not_compared):
        with events.step("compare", block=name, bytes=source.size) as step:
            wanted = held or moved is not None
            found = compare(source, destination, digests=wanted and name in switch_over.source.images)
            # To be judged, each of them: skipped pages are among them, and are right.
            step.note(block=name, to_judge=int(found.differing.size))
        if found.digests is not None:
            now[name] = found.digests
        block = record.blocks.get(name) or _block(name, source.pages, switch_over)
        since = again.look(source, destination, found.differing) if again is not None else None
        states.append(
            BlockState(
                block=block,
                differing=found.differing,
                zero_on_source=found.zero_on_source,
                zero_on_destination=found.zero_on_destination,
                hole_on_source=found.hole_on_source,
                sent=_sent(record, heard, name, block.pages),
                recorded=name in record.sent,
                absent=_absent(switch_over, name),
                named={
                    **(since.named if since is not None else {}),
                    **names_of(switch_over.host_written, block, found, source, destination),
                },
                lost=since.lost if since is not None else None,
                changed_since_switch=_changed(name, moved, now),
            )
        )
    _demand_seen(record, switch_over, staying, not_compared)
    if held:
        now |= {name: look(image) for name, image in switch_over.source.images.items() if name not in now}
    unchanged = switch_over.holds.requests.unchanged(now)
    at_end = switch_over.outside.look() if switch_over.outside is not None else None
    case = JudgeInput(
        arm=scenario.arm,
        blocks=states,
        log=record.log,
        unchanged=unchanged,
        strict=scenario.strict,
        statistics=record.statistics,
        totals=record.totals,
        counters=switch_over.counters,
        expect=scenario.expect,
        witnesses=witnesses_of(record, switch_over.holds, at_end, unchanged, resolved),
        quiet=is_quiet(resolved),
        left_where_it_is=tuple(staying.values()),
        hints_taken=hints_taken(switch_over.devices[0].sections) if scenario.arm == "hint" else None,
    )
    return Evidence(
        case,
        record,
        switch_over.holds.requests,
        not_compared,
        _free(case, switch_over),
        at_end,
        switch_over.record,
        switch_over.traces,
        switch_over.holds.looks,
        _changes(switch_over.holds, now),
        _devices(switch_over, resolved.accelerator, heard, events),
        _wire(heard, switch_over, record, states, scenario.arm, events),
        switch_over.stream,
        heard.sendings() if heard is not None else {},
        compare_copies(switch_over.copied, events),
    )


def _sent(record: MigrationRecord, heard: HeardStream | None, name: str, pages: int) -> Flags | None:
    """Which pages were sent, by the device's record; else by the stream."""
    if name in record.sent:
        return record.sent[name].flags()
    return heard.sent(name, pages) if heard is not None else None


@dataclass(frozen=True, eq=False)
class _SinceSwitch:
    """Of a guest that was let go at its switch to postcopy."""

    steps: WorkloadSteps
    last: int

    @classmethod
    def of(cls, switch_over: SwitchOver, resolved: ResolvedScenario) -> _SinceSwitch | None:
        """None: the guest has not run on the destination."""
        if switch_over.postcopy is None or not switch_over.postcopy.guest_ran:
            return None
        steps = WorkloadSteps(resolved)
        return cls(steps, last_step(switch_over.source.images, steps))

    def look(self, source: Image, destination: Image, differing: PageNumbers) -> SinceSwitch:
        """At one block."""
        return since_switch(source, destination, differing, self.steps, self.last)


def _changed(name: str, moved: PostcopyMove | None, now: Mapping[str, PageDigests]) -> Flags | None:
    """Which of the source's pages are not what they were when the guest left it for postcopy."""
    then = moved.source.digests.get(name) if moved is not None else None
    return ~then.unchanged(now[name]) if then is not None and name in now else None


def _absent(switch_over: SwitchOver, name: str) -> Flags | None:
    """Which pages of a virtio-mem device's block are not plugged in, by its state on the source."""
    if not name.endswith(VIRTIO_MEM):
        return None
    plugged = plugged_pages(switch_over.devices[0].sections, name, PAGE_SIZE)
    if plugged is None:
        missing = switch_over.devices[0].missing
        raise MachineryError(
            f"the source does not say which blocks of {name!r} are plugged in"
            + (f": {missing}" if missing else ""),
            hint="machines from version 8.1 on do",
        )
    absent: Flags = ~plugged
    return absent


def _wire(
    heard: HeardStream | None,
    switch_over: SwitchOver,
    record: MigrationRecord,
    states: Collection[BlockState],
    arm: Arm,
    events: EventStream,
) -> WireFacts | None:
    if heard is None:
        return None
    named = {state.block.name: state for state in states}
    hinted: dict[str, Flags] = {}
    if arm == "hint":
        blocks = {name: state.block for name, state in named.items()}
        clearings = replay_record(record.log, blocks, arm).clearings
        hinted = {name: clearings[name].answer != NEVER for name in blocks if name in clearings}
    with events.step("wire-compared"):
        return heard.facts(switch_over, record, named, hinted)


def _devices(
    switch_over: SwitchOver, accelerator: str, heard: HeardStream | None, events: EventStream
) -> Comparison | str:
    with events.step("devices") as step, timed(events, "devices"):
        sent = heard.devices() if heard is not None else None
        describe, acted = switch_over.describe, switch_over.acted
        found = compare_states(*switch_over.devices, describe, accelerator, acted, sent)
        if isinstance(found, str):
            step.note(compared=0, reason=found)
        else:
            step.note(compared=found.devices, bytes=found.bytes, differing=len(found.wrong))
    return found


def _changes(
    holds: HoldKeeper, now: Mapping[str, PageDigests]
) -> Mapping[tuple[LookKey, LookKey], Mapping[str, Flags]]:
    """What changed from one request to the next, to its answer, and to switch-over."""
    found: dict[tuple[LookKey, LookKey], Mapping[str, Flags]] = {}
    requests = holds.requests.requests
    if not requests:
        return found
    following = [((request, REQUEST), holds.requests.at(request) or {}) for request in requests[1:]]
    for request, (then, later) in zip(requests, [*following, (LOOK_AT_END, now)], strict=True):
        here, taken = (request, REQUEST), holds.requests.at(request) or {}
        if request in holds.unchanged:
            same = holds.unchanged[request]
            found[here, (request, ANSWER)] = {name: ~flags for name, flags in same.items()}
        found[here, then] = {
            name: ~digests.unchanged(later[name]) for name, digests in taken.items() if name in later
        }
    return found


def _demand_seen(
    record: MigrationRecord,
    switch_over: SwitchOver,
    staying: Mapping[str, Block],
    not_compared: Mapping[str, tuple[int | None, str]],
) -> None:
    """Memory that the guest sees and nobody compared leaves no verdict; a device's own may be listed."""
    for name, (_, reason) in not_compared.items():
        # Arms off and hint have no record: there the source's own map says what the guest sees.
        block = record.blocks.get(name) or _block(name, 0, switch_over)
        # A record that has it says that it was migrated all the same.
        if block.gpa and (name in record.blocks or name not in staying):
            raise MachineryError(
                f"the guest sees memory in {name!r}, which cannot be compared: {reason}",
                hint="its memory has to be in files, or readable in both QEMUs",
            )


def _free(case: JudgeInput, switch_over: SwitchOver) -> Free | None:
    """The walk at the first accepted answer's request; in the other arms, the one before the migration."""
    blocks = {state.block.name: state.block for state in case.blocks}
    request = replay_record(case.log, blocks, case.arm).first if case.arm == "info" else START
    for instant in (request, START):
        look = switch_over.holds.looks.get((instant, REQUEST)) if instant is not None else None
        if instant is not None and isinstance(look, FreeWalk):
            return Free(instant, look)
    return None


def _block(name: str, pages: int, switch_over: SwitchOver) -> Block:
    """A block of which no record tells where the guest sees it: by the source's own map."""
    return Block(name, pages, tuple(switch_over.places.get(name, ())))


def _read_record(path: Path) -> MigrationRecord:
    """What the source's device recorded of this migration; nothing where it keeps no record."""
    if not path.exists():
        return _NO_RECORD
    migrations = read_record(path)
    if not migrations:
        return _NO_RECORD
    if not migrations[-1].complete:
        raise MachineryError(f"the device's record {path} ends before the migration did")
    return migrations[-1]


def _same(source: Image, destination: Image) -> bool:
    return (
        isinstance(source, RamImage) and isinstance(destination, RamImage) and source.same_file(destination)
    )


def _left_where_it_is(switch_over: SwitchOver) -> dict[str, Block]:
    """Memory that both QEMUs map: no page of it is the migration's business."""
    return {
        name: _block(name, image.pages, switch_over)
        for name, image in switch_over.source.images.items()
        if name in switch_over.destination.images and _same(image, switch_over.destination.images[name])
    }


def _pairs(
    switch_over: SwitchOver, staying: Mapping[str, Block], not_compared: dict[str, tuple[int | None, str]]
) -> Iterator[tuple[str, Image, Image]]:
    """Every RAMBlock that both sides have, as two images."""
    for name, image in switch_over.source.images.items():
        other = switch_over.destination.images.get(name)
        if other is None:
            not_compared[name] = (image.size, "the destination has it in no file")
        elif name in staying:
            not_compared[name] = (image.size, "both QEMUs have the same file: it stays where it is")
        else:
            yield name, image, other
    for name, here in switch_over.source.others.items():
        there = switch_over.destination.others.get(name, OSError("the destination has no such block"))
        if isinstance(here, OSError) or isinstance(there, OSError):
            errors = [side for side in (here, there) if isinstance(side, OSError)]
            not_compared[name] = (None, f"it could not be read: {errors[0]}")
        elif here.size != there.size:
            raise MachineryError(
                f"images of different size: {name!r} has {here.size} bytes on the source, "
                f"{there.size} on the destination"
            )
        else:
            yield name, here, there
