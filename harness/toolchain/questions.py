# SPDX-License-Identifier: GPL-2.0-or-later
"""What a QEMU says of the machines and CPUs that it can make, asked by QMP before any guest runs.

    machine_types(path)["pc-q35-7.2"].cpu_max
    cpu_models(path, "tcg")["Skylake-Client"]               # what of it the accelerator lacks
    trial(path, firmware, Board("pc-q35-7.2", "tcg", "Skylake-Client,+svm")).cpu_lacks

A trial starts the very machine, without a guest: what QEMU refuses it refuses there, with its own words.
All answers come from one short process each, which reads its commands from a pipe and ends with the last.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.errors import MachineryError
from harness.events import patience
from harness.toolchain.probe import BALLOON_DEVICE
from harness.toolchain.run import ProgramFailed, run_program

#: For a process that does nothing but answer; on a busy machine, of a large binary.
_SECONDS: Final = 30.0
#: Memory of a trial's machine, which runs nothing.
_TRIAL_MEMORY: Final = "64M"
#: Where QEMU keeps the first CPU of a board that makes its CPUs first.
_FIRST_CPU: Final = "/machine/unattached/device[0]"
_NOTHING_ELSE: Final = ("-nodefaults", "-no-user-config", "-display", "none", "-qmp", "stdio")
_BALLOON: Final = "freepage-balloon"


class Refusal(Exception):  # noqa: N818 - it is QEMU's answer
    """QEMU does not start like this; ``words`` are its own."""

    def __init__(self, words: str) -> None:
        super().__init__(words)
        self.words = words


@dataclass(frozen=True, slots=True)
class MachineType:
    """A machine that a QEMU can make."""

    name: str
    #: Another name for it, such as ``q35``.
    alias: str | None
    #: The most vCPUs that it takes.
    cpu_max: int


@dataclass(frozen=True, slots=True)
class TrialBoard:
    """A machine to be tried: its type, the accelerator, and the CPU as ``-cpu`` is told."""

    machine: str
    accelerator: str
    cpu: str | None = None


@dataclass(frozen=True, slots=True)
class Trial:
    """What a machine is like that QEMU has made for a moment."""

    #: Features that its CPU was to have, and that the accelerator does not give it.
    cpu_lacks: tuple[str, ...]
    #: Its virtio devices know only the protocol before virtio 1.0.
    legacy_virtio: bool
    #: Its firmware configuration device writes into the guest's memory, which vmcoreinfo needs.
    fw_cfg_dma: bool


def machine_types(qemu: Path) -> Mapping[str, MachineType]:
    """All machine types, by name and by alias (``query-machines``)."""
    (answer,) = _ask_none(qemu, "tcg", [("query-machines", {})])
    found: dict[str, MachineType] = {}
    for entry in _rows(answer):
        name, alias, most = entry.get("name"), entry.get("alias"), entry.get("cpu-max")
        if isinstance(name, str) and isinstance(most, int):
            machine = MachineType(name, alias if isinstance(alias, str) else None, most)
            found[name] = machine
            if machine.alias is not None:
                found[machine.alias] = machine
    return found


def cpu_models(qemu: Path, accelerator: str) -> Mapping[str, tuple[str, ...]]:
    """All CPU models, each with what of it the accelerator lacks (``query-cpu-definitions``)."""
    (answer,) = _ask_none(qemu, accelerator, [("query-cpu-definitions", {})])
    found: dict[str, tuple[str, ...]] = {}
    for entry in _rows(answer):
        lacking = entry.get("unavailable-features")
        found[str(entry.get("name"))] = tuple(map(str, lacking)) if isinstance(lacking, list) else ()
    return found


def cpu_properties(qemu: Path, accelerator: str, model: str) -> frozenset[str]:
    """What a CPU of this model can be told (``query-cpu-model-expansion``); nothing if QEMU does not say."""
    expansion = {"type": "full", "model": {"name": model}}
    (answer,) = _ask_none(qemu, accelerator, [("query-cpu-model-expansion", expansion)])
    expanded = answer.get("model") if isinstance(answer, dict) else None
    known = expanded.get("props") if isinstance(expanded, dict) else None
    return frozenset(known) if isinstance(known, dict) else frozenset()


def type_names(qemu: Path) -> frozenset[str]:
    """The names of everything that QEMU is made of, devices among them (``qom-list-types``)."""
    (answer,) = _ask_none(qemu, "tcg", [("qom-list-types", {"abstract": True})])
    return frozenset(str(row.get("name")) for row in _rows(answer))


def properties_of_type(qemu: Path, name: str) -> frozenset[str]:
    """What a thing of this type can be told; nothing if QEMU does not say, as of one that is abstract."""
    asked = [(command, {"typename": name}) for command in ("device-list-properties", "qom-list-properties")]
    answers = _ask_none(qemu, "tcg", asked)
    return frozenset(str(row.get("name")) for answer in answers for row in _rows(answer))


def trial(qemu: Path, firmware: Sequence[Path], board: TrialBoard) -> Trial:
    """Have QEMU make a machine, and look at it.  Raises :class:`Refusal` if QEMU does not make it."""
    words = ["-machine", board.machine, "-accel", board.accelerator, "-m", _TRIAL_MEMORY, "-S"]
    words += ["-cpu", board.cpu] if board.cpu is not None else []
    words += ["-device", f"{BALLOON_DEVICE},id={_BALLOON}"]
    for folder in firmware:
        words += ["-L", str(folder)]
    legacy, dma, cpus, lacking = _converse(
        qemu,
        words,
        [
            ("qom-get", {"path": f"/machine/peripheral/{_BALLOON}", "property": "disable-modern"}),
            ("qom-get", {"path": "/machine/fw_cfg", "property": "dma_enabled"}),
            ("query-cpus-fast", {}),
            _unavailable(_FIRST_CPU),
        ],
    )
    path = next(iter(_rows(cpus)), {}).get("qom-path")
    if path != _FIRST_CPU:
        (lacking,) = _converse(qemu, words, [_unavailable(str(path))])
    lacks = tuple(map(str, lacking)) if isinstance(lacking, list) else ()
    return Trial(lacks, legacy_virtio=legacy is True, fw_cfg_dma=dma is not False)


def _unavailable(cpu: str) -> tuple[str, Mapping[str, object]]:
    return "qom-get", {"path": cpu, "property": "unavailable-features"}


_Commands = Sequence[tuple[str, Mapping[str, object]]]


def _ask_none(qemu: Path, accelerator: str, commands: _Commands) -> list[object]:
    try:
        return _converse(qemu, ["-machine", "none", "-accel", accelerator], commands)
    except Refusal as refusal:
        raise MachineryError(f"{qemu} answers no questions: {refusal.words}") from refusal


def _converse(qemu: Path, words: Sequence[str], commands: _Commands) -> list[object]:
    """What QEMU answers to each command, None where it refuses one."""
    script = [{"execute": "qmp_capabilities"}]
    script += [{"execute": name, "arguments": dict(given)} for name, given in commands]  # type: ignore[dict-item]
    script.append({"execute": "quit"})
    argv: list[str | Path] = [
        qemu,
        *words,
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-qmp",
        "stdio",
    ]
    try:
        said = run_program(
            argv,
            what=f"ask {qemu} of the machines that it makes",
            seconds=patience(_SECONDS),
            stdin="".join(json.dumps(line) + "\n" for line in script),
        )
    except ProgramFailed as error:
        refused = [line for line in error.lines if " warning: " not in line]
        # One that was killed, or said nothing, has refused nothing.
        if error.status < 0 or not refused:
            raise
        raise Refusal("; ".join(refused)) from error
    answers = [reply for reply in map(_reply, said.splitlines()) if reply is not None]
    if len(answers) != len(script):
        raise MachineryError(f"{qemu} answered {len(answers)} of {len(script)} questions: {said[-500:]}")
    return [answer.get("return") for answer in answers[1:-1]]


def _reply(line: str) -> Mapping[str, object] | None:
    if not line.startswith(("{", "\r{")):
        return None
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and ("return" in found or "error" in found) else None


def _rows(answer: object) -> list[Mapping[str, object]]:
    return [row for row in answer if isinstance(row, dict)] if isinstance(answer, list) else []
