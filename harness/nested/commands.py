# SPDX-License-Identifier: GPL-2.0-or-later
"""``--nested``: the same command in a machine around it that has KVM.

What can be said or built on this host is said and built first: a typing error
costs no boot, and nothing is compiled under emulation.  Then one machine boots,
runs the commands one after the other, and is gone::

    with nested(events, memory=2 * guest, writable=[runs]) as machine:
        status = machine.run(["faults", "run", "--only", "late-arming"], cwd=Path.cwd())
"""

from __future__ import annotations

import compileall
import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness import accel
from harness.errors import FreepageError, InputError, LostError
from harness.events import EventStream
from harness.hosts import capscache
from harness.hosts.signals import polite_signals
from harness.hosts.this_machine import command_start, memory_available
from harness.invoke import CONFIG_VARIABLE, NO_CONFIG
from harness.nested.machine import (
    BOOT_SECONDS,
    OWN_FOLDERS,
    OWN_MEMORY,
    Chain,
    MachineSpec,
    NestedMachine,
    SharedFolder,
)
from harness.nested.parts import machine_parts
from harness.plan.here import LabMachines
from harness.plan.kinds import kind_of
from harness.plan.plan import Tools
from harness.plan.prepare import prepare
from harness.report.folder import RunFolder
from harness.report.gravity import INTERRUPTED, worst
from harness.scenario.load import Scenario
from harness.scenario.mode import without_kvm
from harness.scenario.resolve import GUEST_MARGIN, HOST_MARGIN
from harness.terminal import TerminalProgress, print_error
from harness.toolchain import Toolchain
from harness.toolchain.cache import CACHE_VARIABLE, Cache
from harness.toolchain.sources import installation, package_folder
from harness.units import format_size

_MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class NestedRun:
    """One scenario, and where its run folder will be."""

    scenario: Scenario
    tools: Tools
    folder: Path

    def prepare(self, events: EventStream) -> None:
        """Build on this host what the run needs; nothing is built inside."""
        prepare_here(self.scenario, self.tools, events)

    def argv(self, scenario_file: str, *, as_json: bool) -> list[str]:
        """The command inside: the scenario as it was loaded here, changes included."""
        words = ["run", scenario_file, "--accel", "kvm", "--out", str(self.folder), *self.tools.options()]
        return [*words, "--json"] if as_json else words


def run_scenarios_nested(
    runs: Sequence[NestedRun],
    *,
    as_json: bool = False,
    finished: Callable[[NestedRun, int, str], None] | None = None,
) -> int:
    """Run scenarios in one nested machine, one after the other; returns the exit status that counts.

    ``finished`` is told of each that has ended: its exit status, and why it came to no end of its own.
    Then what the runs print themselves is left out.  A machine that is lost keeps the rest from running.
    """
    events = EventStream()
    with TerminalProgress(events) as terminal, interruptible():
        for run in runs:
            run.prepare(events)
        memory = memory_for(run.scenario for run in runs)
        writable = {run.folder.parent for run in runs}
        statuses: list[int] = []
        with nested(events, memory=memory, writable=writable, visible=named_files(runs)) as machine:
            for run in runs:
                why = ""
                try:
                    with terminal.suspended():
                        statuses.append(_run_one(machine, run, as_json=as_json, told=finished is not None))
                except LostError as error:
                    if finished is None:
                        raise
                    print_error(f"freepage: {error.render()}")
                    statuses.append(error.exit_code)
                    why = error.message
                if finished is not None:
                    finished(run, statuses[-1], why)
                if why or statuses[-1] == INTERRUPTED:
                    break
    return worst(statuses)


def prepare_here(scenario: Scenario, tools: Tools, events: EventStream) -> None:
    """Build on this host what a scenario needs in a nested machine."""
    # Emulated, as far as this host is concerned: its KVM is not asked for, nor what only KVM has.
    guest = scenario.guest.model_copy(update={"kvm_dirty": "bitmap", "vhost": False, "cpu": None})
    script = [entry for entry in scenario.script if not any(action.needs_kvm for action in entry.do)]
    moves = [
        move if move.migration is None else move.model_copy(update={"migration": without_kvm(move.migration)})
        for move in scenario.moves
    ]
    here = scenario.model_copy(
        update={
            "accelerator": "tcg",
            "guest": guest,
            "script": tuple(script),
            "migration": without_kvm(scenario.migration),
            "moves": tuple(moves),
        }
    )
    prepare(here, tools, events, command_start(), LabMachines(own_kernel=False))
    if scenario.guest.kvm_dirty == "bitmap-without-manual-protect":
        Toolchain(events=events).no_manual_protect()


def memory_for(scenarios: Iterable[Scenario]) -> int:
    """Bytes for these guests, one after the other: each is there twice during its migration."""
    return max(scenario.memory_of_both + (scenario.guests - 1) * GUEST_MARGIN for scenario in scenarios)


def demand_nestable(scenario: Scenario) -> None:
    """Raise for a scenario that says where else, or how else, its guest is to run."""
    if not kind_of(scenario).local:
        raise InputError(
            f"scenario {scenario.name}: its hosts are two other machines, and --nested is for the lab"
        )
    if scenario.accelerator == "tcg":
        raise InputError(
            f"scenario {scenario.name}: accelerator: tcg, and --nested is for KVM",
            hint="leave one of them out",
        )


@contextlib.contextmanager
def nested(
    events: EventStream,
    *,
    memory: int,
    writable: Iterable[Path],
    visible: Iterable[Path] = (),
    boot_seconds: float = BOOT_SECONDS,
) -> Iterator[NestedMachine]:
    """A nested machine for commands whose guests take ``memory`` bytes together (both hosts).

    ``writable``: existing folders of this host in which the commands may write; all other
    writing stays inside.  ``visible``: further files and folders that they must see.
    ``boot_seconds`` bounds the machine's boot.
    """
    cache = Cache(None, events)
    with events.step("nested-parts"):
        parts = machine_parts(cache)
        chain, reason = choose_chain(cache, events)
        events.emit("nested-chain", chain=chain, reason=reason)
    size = memory + HOST_MARGIN + OWN_MEMORY
    available = memory_available()
    if size > available:
        raise InputError(
            f"a nested machine for these guests takes {format_size(-(-size // _MIB) * _MIB)}, "
            f"of which {available // _MIB} MiB are available",
            hint="use smaller guests: --memory 512MiB",
        )
    capabilities = capscache.capability_cache().parent
    capabilities.mkdir(parents=True, exist_ok=True)
    _compile_harness()
    shares = shares_of([*writable, capabilities], [*cache.layers, *visible])
    with NestedMachine(parts, MachineSpec(chain, size, shares), events, boot_seconds) as machine:
        yield machine


def nested_environment() -> dict[str, str]:
    """What a command inside must know of this host's user: where home and cache are."""
    layers = Cache(None, EventStream()).layers
    # It is told all by its words: a file of configuration is for those who type.
    told = {CONFIG_VARIABLE: NO_CONFIG}
    return {**told, CACHE_VARIABLE: os.pathsep.join(map(str, layers)), "HOME": str(Path.home())}


def choose_chain(cache: Cache, events: EventStream) -> tuple[Chain, str]:
    """``kvm-in-kvm`` where this host's KVM can be nested, else ``kvm-in-tcg``; and why."""
    from harness.accel import hardware_nesting
    from harness.toolchain.built import built_machine

    offered = hardware_nesting()
    if not offered:
        return "kvm-in-tcg", "this host's KVM offers no virtualisation to guests"
    machine = built_machine(cache)
    if machine is None:
        return "kvm-in-tcg", "nothing is built to try this host's KVM with"
    probe = accel.probe_kvm(machine, cache, events)
    return ("kvm-in-kvm" if probe.usable else "kvm-in-tcg"), probe.reason


def _compile_harness() -> None:
    """Have Python's compiler run here: inside it would run at each boot, emulated."""
    # Where nothing may be written it takes longer inside, and that is all.
    compileall.compile_dir(package_folder(), quiet=2)


def shares_of(writable: Iterable[Path], visible: Iterable[Path]) -> tuple[SharedFolder, ...]:
    """What has to be shared beside the root: folders to write in, and what the machine's own folders hide."""
    shares = {path.resolve(): SharedFolder(path.resolve()) for path in writable}
    for path in (Path.cwd(), installation(), Path(sys.prefix), Path(sys.base_prefix), *visible):
        folder = path.resolve() if path.is_dir() else path.resolve().parent
        if any(folder.is_relative_to(own) for own in OWN_FOLDERS) and folder.is_dir():
            shares.setdefault(folder, SharedFolder(folder, writable=False))
    # Outer folders first: an inner one is mounted in what it is in.
    return tuple(shares[path] for path in sorted(shares))


def named_files(runs: Iterable[NestedRun]) -> list[Path]:
    """What the user has named of this host's files, for the machine to see."""
    named = [
        path for run in runs for path in (*run.tools.qemu_files, run.tools.kernel, run.tools.qemu_source)
    ]
    return [Path(path) for path in named if path is not None]


def _run_one(machine: NestedMachine, run: NestedRun, *, as_json: bool, told: bool) -> int:
    place = scenario_file(run)
    with kept_console(machine, run.folder):
        return machine.run(
            run.argv(place, as_json=as_json),
            cwd=Path.cwd(),
            env=nested_environment(),
            files={place: run.scenario.to_yaml()},
            # One table of all is printed in the end.
            out=(lambda _: None) if told else None,
        )


def scenario_file(run: NestedRun) -> str:
    """Where the scenario is inside."""
    return f"/run/freepage-scenario/{run.folder.name}.yaml"


@contextlib.contextmanager
def kept_console(machine: NestedMachine, folder: Path) -> Iterator[None]:
    """The machine's console and command line go into the run folder, and why it was lost, if it was."""
    try:
        yield
    except LostError as error:
        if folder.is_dir():
            RunFolder(folder).finish(f"This run ended without a verdict:\n\n{error.render()}")
        raise
    finally:
        with contextlib.suppress(OSError, FreepageError):
            if folder.is_dir():
                RunFolder(folder).write_text("nested-console.log", machine.console())
                RunFolder(folder).write_text("nested.command", machine.command)
                if machine.inquest:
                    RunFolder(folder).write_text("nested-inquest.txt", machine.inquest)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """An end that somebody asked for is no error: the command says so and ends with its own status."""
    with polite_signals():
        try:
            yield
        except KeyboardInterrupt:
            print_error("freepage: interrupted; nothing is left running")
            raise SystemExit(INTERRUPTED) from None
