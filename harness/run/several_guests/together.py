# SPDX-License-Identifier: GPL-2.0-or-later
"""A run with several guests: the lab is entered once, and each guest is a run of its own in a thread."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from harness.errors import FreepageError, MachineryError
from harness.events import EventStream, JsonLinesFile, step_seconds
from harness.hosts.lab import Lab
from harness.hosts.lab_guest import LabOfGuest
from harness.last_resort import in_words
from harness.plan.plan import RunPlan
from harness.report.folder import RunFolder
from harness.report.gravity import worst
from harness.report.result import Result
from harness.run.boot import ReadyGuest, booted
from harness.run.early_crash import EarlyCrash
from harness.run.guest import Guest
from harness.run.replay_command import REPLAY_FILE, SCENARIO_FILE, replay_command
from harness.run.several_guests.jobs import jobs_of
from harness.run.several_guests.result import folder_of, of_all, of_guest
from harness.run.several_guests.start_line import Line, StartLine
from harness.run.several_guests.streams import guest_stream, hosts_stream

_SEED_BYTES: Final = 8


def guest_seed(seed: int, guest: int) -> int:
    """The seed of one of the guests, drawn from the run's."""
    drawn = hashlib.blake2b(f"{seed} guest {guest}".encode(), digest_size=_SEED_BYTES).digest()
    # A seed has 63 bits.
    return int.from_bytes(drawn, "little") >> 1


@dataclass(frozen=True, slots=True)
class Ways:
    """How the run of a guest goes, as that of one alone does."""

    #: Migrates, judges and checks a guest that is ready: its result.
    judge: Callable[[ReadyGuest, RunFolder, EventStream, Line], Result]
    #: The result of a guest whose QEMU has crashed before.
    of_crash: Callable[[RunPlan, RunFolder, EventStream, EarlyCrash], Result]
    #: Writes a result into its folder.
    put_down: Callable[[Result, RunFolder, EventStream], None]


@dataclass(slots=True)
class _GuestRun:
    """One of the guests, and what came of it."""

    number: int
    plan: RunPlan
    lab: LabOfGuest
    folder: RunFolder
    events: EventStream
    line: StartLine
    ways: Ways
    result: Result | None = None
    error: FreepageError | None = None
    thread: threading.Thread = field(init=False)

    def start(self) -> None:
        """Begin, in a thread that nobody has to wait for when the run is interrupted."""
        self.thread = threading.Thread(target=self._run, name=folder_of(self.number), daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            try:
                found = self._judged()
            except EarlyCrash as crash:
                found = self.ways.of_crash(self.plan, self.folder, self.events, crash)
            result = of_guest(found, self.number)
            self.ways.put_down(result, self.folder, self.events)
            self.events.emit("message", text=f"{result.verdict}: {result.reason}")
            self.result = result
        except BaseException as error:  # whatever it is, the run has to hear of it
            self._fail(in_words(error, self.folder.path))
        finally:
            self.line.leave(self.number)

    def _judged(self) -> Result:
        label = f"{folder_of(self.number)}-"
        with Guest(self.plan, self.lab, self.folder, self.events, label=label) as guest:
            try:
                with booted(self.plan, self.lab, guest, self.folder, self.events) as ready:
                    return self.ways.judge(ready, self.folder, self.events, self.line.of(self.number))
            finally:
                # The others go on, and need what it takes.
                self._end_domains()

    def _end_domains(self) -> None:
        import libvirt

        for host in self.lab.hosts:
            with contextlib.suppress(libvirt.libvirtError, FreepageError):
                host.connect().lookupByName(self.lab.guest_name).destroy()

    def _fail(self, error: FreepageError) -> None:
        self.events.emit("error", text=error.message, type=type(error).__name__)
        with contextlib.suppress(OSError):
            self.folder.finish(f"This guest ended without a verdict:\n\n{error.render()}")
        error.message = f"guest {self.number}: {error.message}"
        self.error = error


def carry_out_together(plan: RunPlan, folder: RunFolder, events: EventStream, ways: Ways) -> Result:
    """The run's result; each guest's own is in its folder.

    Raises the gravest of the errors that have kept a guest from a verdict, once all guests have ended.
    """
    scenario = plan.resolved.scenario
    hosts = hosts_stream(events)
    with contextlib.ExitStack() as stack:
        with events.step(plan.machines.step):
            pair = plan.machines.hosts(scenario, plan.binaries, folder.file("hosts"), hosts)
            lab = stack.enter_context(pair)
            if not isinstance(lab, Lab):
                raise MachineryError("several guests move between the hosts of a lab only")
        numbers = range(1, scenario.guests + 1)
        line = StartLine(numbers)
        runs = [
            _GuestRun(
                number,
                _plan_of(plan, number),
                LabOfGuest.of(lab, number),
                _folder_of(plan, folder, number),
                guest_stream(number, hosts, events),
                line,
                ways,
            )
            for number in numbers
        ]
        for run in runs:
            run.events.subscribe(JsonLinesFile(run.folder.file("events.jsonl")), replay=True)
        for run in runs:
            run.start()
        for run in runs:
            run.thread.join()
    results = _results(runs)
    moves = len(scenario.moves)
    return of_all(
        results,
        jobs_of(events.history()),
        moves,
        seed=plan.resolved.seed,
        replay=replay_command(plan, folder),
        folder=str(folder.path),
        phases=step_seconds(event for event in events.history() if "guest" not in event.data),
    )


def _results(runs: Sequence[_GuestRun]) -> list[Result]:
    errors = [run.error for run in runs if run.error is not None]
    gravest = worst(error.exit_code for error in errors)
    for error in errors:
        if error.exit_code == gravest:
            raise error
    return [run.result for run in runs if run.result is not None]


def _plan_of(plan: RunPlan, guest: int) -> RunPlan:
    """The run of one guest: the same, with a seed of its own."""
    seed = guest_seed(plan.resolved.seed, guest)
    scenario = plan.resolved.scenario.model_copy(update={"seed": seed})
    return replace(plan, resolved=replace(plan.resolved, scenario=scenario, seed=seed))


def _folder_of(plan: RunPlan, folder: RunFolder, guest: int) -> RunFolder:
    """A run folder of the guest's own; its scenario and its replay are those of the whole run."""
    own = RunFolder.create(
        folder.file(folder_of(guest)), plan.resolved.scenario.name, plan.resolved.scenario.arm
    )
    own.write_text(SCENARIO_FILE, plan.resolved.scenario.to_yaml())
    own.write_text(REPLAY_FILE, replay_command(plan, own))
    return own
