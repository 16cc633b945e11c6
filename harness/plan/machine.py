# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's machine and CPU, held against the QEMUs that are to make them, before a guest boots."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from harness import arch
from harness.arch import GUEST
from harness.plan.common_machine import newest_common
from harness.toolchain.questions import (
    MachineType,
    Refusal,
    Trial,
    TrialBoard,
    cpu_models,
    cpu_properties,
    machine_types,
    properties_of_type,
    trial,
    type_names,
)

if TYPE_CHECKING:
    from harness.scenario.load import Scenario
    from harness.toolchain import QemuBinary

#: So many names are offered in place of one that is not known.
_OFFERED: Final = 6


@dataclass(frozen=True, slots=True)
class MachineBoard:
    """The guest's machine, as both QEMUs make it."""

    #: The type under its own name: ``pc-q35-10.0`` for ``q35``.
    machine: str
    #: What kind of board that is, such as ``q35``.
    family: str
    #: Features of the CPU's model that the accelerator lacks, so that the guest does without.
    cpu_lacks: tuple[str, ...] = ()
    #: Whether the guest can say where its kernel is.
    vmcoreinfo: bool = True
    #: Of what the testbed adds to the CPU of a scenario that names none: what not both QEMUs can emulate.
    cpu_without: tuple[str, ...] = ()


def demand_board(scenario: Scenario, qemus: Sequence[QemuBinary], accelerator: str) -> MachineBoard:
    """Raise :class:`harness.errors.InputError` unless both QEMUs make the guest's machine with its CPU.

    A plain ``pc`` or ``q35`` with the default CPU is not asked for of QEMUs of one version: every QEMU
    here has it.  Between two versions it stands for the version that both have
    (:mod:`harness.plan.common_machine`).
    """
    guest = scenario.guest
    plain = guest.machine in GUEST.board.types
    different = list(dict.fromkeys(qemus))
    same = len({qemu.version for qemu in different}) == 1
    if plain and guest.cpu is None and same:
        return MachineBoard(guest.machine, guest.machine)
    machine = _demand_type(scenario, different, between=plain and not same)
    family = GUEST.board.family(machine.name)
    assert family is not None
    if guest.most_vcpus > machine.cpu_max:
        key = "guest.vcpus" if guest.topology is None else "guest.topology"
        raise scenario.wrong(key, f"{guest.machine} takes at most {machine.cpu_max} vCPUs")
    trials = [_try(scenario, qemu, machine.name, accelerator) for qemu in different]
    if scenario.arm == "info" and any(found.legacy_virtio for found in trials):
        raise scenario.wrong(
            "guest.machine",
            f"the virtio devices of {machine.name} know nothing of virtio 1.0, whose feature bits the arm "
            "info needs",
            hint="take a version from 2.7 on, or arm off or hint",
        )
    vmcoreinfo = all(found.fw_cfg_dma for found in trials)
    if scenario.walk and not vmcoreinfo:
        raise scenario.wrong(
            "guest.machine",
            f"on {machine.name} the guest cannot say where its kernel is (vmcoreinfo), which the walk needs",
            hint="take a version from 2.5 on, or walk: false",
        )
    lacks = dict.fromkeys(feature for found in trials for feature in found.cpu_lacks)
    if guest.cpu is None:
        # The testbed's own choice, which no word of the scenario stands for.
        return MachineBoard(machine.name, family, vmcoreinfo=vmcoreinfo, cpu_without=tuple(lacks))
    return MachineBoard(machine.name, family, tuple(lacks), vmcoreinfo)


def _demand_type(scenario: Scenario, qemus: Sequence[QemuBinary], *, between: bool) -> MachineType:
    """The machine type, by its own name; every QEMU has to have that.

    ``between``: the scenario's word is a plain one, and the QEMUs are of two versions.
    """
    wanted, board = scenario.guest.machine, GUEST.board
    known = [machine_types(qemu.path) for qemu in qemus]
    if between:
        wanted = newest_common(wanted, known) or wanted
    if wanted not in known[0]:
        # Of another architecture's boards, or such without a PCI bus, none can be offered.
        usable = [name for name, machine in known[0].items() if board.family(machine.name) is not None]
        if not wanted.startswith(board.types):
            others = [f"--arch {name}" for name in arch.known() if name != GUEST.name]
            raise scenario.wrong(
                "guest.machine",
                f"{_named(qemus[0])} has no machine {wanted!r}; for guests of {GUEST.name} there are "
                f"{', '.join(board.types)} and their versions",
                hint=f"of the other architectures there are guests by {', '.join(others)}",
            )
        raise scenario.wrong(
            "guest.machine", f"{_named(qemus[0])} has no machine {wanted!r}; {_offer(wanted, usable)}"
        )
    machine = known[0][wanted]
    if board.family(machine.name) is None:
        raise scenario.wrong(
            "guest.machine",
            f"{machine.name} is none of {', '.join(board.types)} and their versions: the balloon, the NIC "
            "and the ports of the guest are PCI devices, and its bus is known on those boards only",
            hint="take pc or q35, or one of their versions",
        )
    for qemu, there in zip(qemus[1:], known[1:], strict=True):
        if machine.name not in there:
            common = [name for name in known[0] if name in there and known[0][name].name == name]
            raise scenario.wrong(
                "guest.machine",
                f"{_named(qemus[0])} makes a {machine.name}, which {_named(qemu)} does not have; "
                f"{_offer(machine.name, common)}",
            )
    return machine


def _try(scenario: Scenario, qemu: QemuBinary, machine: str, accelerator: str) -> Trial:
    """The machine as QEMU makes it; what it refuses, and what was asked for and is lacking, is an error."""
    cpu = scenario.guest.cpu
    models = cpu_models(qemu.path, accelerator) if cpu is not None else {}
    model, *features = cpu.split(",") if cpu is not None else ("",)
    if cpu is not None:
        _demand_model(scenario, qemu, models, accelerator)
    try:
        board = TrialBoard(machine, accelerator, cpu or _own_cpu(accelerator))
        found = trial(qemu.path, qemu.firmware, board)
    except Refusal as refusal:
        if cpu is None:
            raise scenario.wrong("guest.machine", f"{_named(qemu)} says: {refusal.words}") from refusal
        known = cpu_properties(qemu.path, accelerator, model)
        odd = [
            name for name in map(_property, features) if name not in known and f".{name}'" in refusal.words
        ]
        advice = f"; {_offer(odd[0], known)}" if odd else ""
        raise scenario.wrong("guest.cpu", f"{_named(qemu)} says: {refusal.words}{advice}") from refusal
    if cpu is None:
        added = GUEST.board.cpu_features
        return dataclasses.replace(found, cpu_lacks=tuple(name for name in found.cpu_lacks if name in added))
    # A feature may have a second name; so what the model alone lacks is asked as well.
    asked, own = set(_switched_on(features)), models.get(model, ())
    refused = [feature for feature in found.cpu_lacks if feature in asked or feature not in own]
    if refused:
        raise scenario.wrong(
            "guest.cpu",
            f"{accelerator.upper()} cannot give a guest {', '.join(refused)}",
            hint="leave it out" + ("" if accelerator == "kvm" else ", or run where there is KVM"),
        )
    return found


def _demand_model(
    scenario: Scenario, qemu: QemuBinary, models: Mapping[str, tuple[str, ...]], accelerator: str
) -> None:
    model = (scenario.guest.cpu or "").partition(",")[0]
    if model == "host" and accelerator != "kvm":
        raise scenario.wrong(
            "guest.cpu",
            "host is the CPU of this machine, which only KVM can give to a guest, and this one is emulated",
            hint="take max, all that the emulation can do; or run where there is KVM",
        )
    if model not in models:
        raise scenario.wrong(
            "guest.cpu", f"{_named(qemu)} has no CPU model {model!r}; {_offer(model, models)}"
        )


def _own_cpu(accelerator: str) -> str | None:
    """What a guest has whose scenario names no CPU; None: this machine's own, whatever that is."""
    board = GUEST.board
    return (
        ",".join([board.cpu, *(f"+{name}" for name in board.cpu_features)]) if accelerator == "tcg" else None
    )


def _property(feature: str) -> str:
    """The property that a word of ``-cpu`` sets."""
    return feature.partition("=")[0].lstrip("+-")


def _switched_on(features: Iterable[str]) -> Iterable[str]:
    for feature in features:
        _, _, value = feature.partition("=")
        if feature.startswith("+") or (not feature.startswith("-") and value in ("on", "yes", "true", "")):
            yield _property(feature)


def demand_globals(scenario: Scenario, qemus: Sequence[QemuBinary]) -> None:
    """Raise :class:`harness.errors.InputError` for a driver or property that a QEMU does not have.

    QEMU itself only warns of a driver that it does not know, and changes nothing.
    """
    for number, text in enumerate(scenario.guest.globals):
        driver, _, rest = text.partition(".")
        name = rest.partition("=")[0]
        for qemu in dict.fromkeys(qemus):
            types = type_names(qemu.path)
            if driver not in types:
                what, near = f"no driver {driver!r}", _offer(driver, types)
            else:
                known = properties_of_type(qemu.path, driver)
                if not known or name in known:
                    continue
                what, near = f"no property {name!r} of {driver}", _offer(name, known)
            raise scenario.wrong(f"guest.globals.{number}", f"{_named(qemu)} has {what}; {near}")


def demand_firmware(scenario: Scenario) -> None:
    """Raise :class:`harness.errors.InputError` for firmware that this machine type cannot have."""
    name = scenario.guest.firmware
    if name == "seabios":
        return
    if scenario.remote is not None:
        raise scenario.wrong(
            "guest.firmware", "between two machines of yours only seabios", hint="leave it out"
        )
    if name == "ovmf-smm" and GUEST.board.family(scenario.guest.machine) not in (None, "q35"):
        raise scenario.wrong(
            "guest.firmware", f"a {scenario.guest.machine} has no SMM for it", hint="take guest.machine: q35"
        )
    if "/" in name and not Path(name).is_file():
        raise scenario.wrong("guest.firmware", f"there is no file {name}")


def _named(qemu: QemuBinary) -> str:
    return f"the QEMU {qemu.path} ({qemu.version})"


def _offer(wanted: str, known: Iterable[str]) -> str:
    """The names that come closest."""
    names = sorted(known)
    close = difflib.get_close_matches(wanted, names, n=_OFFERED, cutoff=0.5)
    if not close:
        return f"there are {', '.join(names[:40])}" if names else "there are none"
    return f"the nearest are {', '.join(close)}"
