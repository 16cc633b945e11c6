# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether the QEMUs of a run have the modes of its migrations: asked of them before a guest boots.

Each is started without a machine, and told what it would be told: what it does not know, or
what excludes something else, it refuses in its own words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from harness.guest.dirty_log import RING_ENTRIES
from harness.migration.modes import modes_of_move
from harness.scenario.problems import did_you_mean
from harness.toolchain.silent_qemu import RefusedError, SilentQemu

if TYPE_CHECKING:
    from harness.scenario.resolve import ResolvedScenario
    from harness.toolchain import QemuBinary

_SECTIONS: Final = {
    "capabilities": ("capability", "query-migrate-capabilities"),
    "parameters": ("parameter", "query-migrate-parameters"),
}


@dataclass(frozen=True, slots=True)
class _Asked:
    """What one of the moves wants of a QEMU, and where it is written."""

    capabilities: Sequence[str]
    parameters: Mapping[str, object]
    #: The keys of QEMU's own names, by section and name.
    written: Mapping[tuple[str, str], str]
    #: Of what else it says.
    key: str


def demand_modes(resolved: ResolvedScenario, qemus: Iterable[QemuBinary]) -> None:
    """Raise :class:`harness.errors.InputError` for the first mode that a QEMU does not take."""
    # Most runs ask for nothing but the plain migration, and start no QEMU for it.
    wanted = _asked(resolved)
    for qemu in dict.fromkeys(qemus) if wanted else ():
        for asked in wanted:
            with SilentQemu(qemu.path, _accelerator(resolved)) as silent:
                wrong = _demand(silent, asked)
            if wrong is not None:
                key, words = wrong
                who = f"the QEMU {qemu.path} ({qemu.version})"
                raise resolved.scenario.wrong(key, f"{who} {words}")


def _asked(resolved: ResolvedScenario) -> list[_Asked]:
    scenario, found = resolved.scenario, list[_Asked]()
    for number, move in enumerate(scenario.moves, 1):
        if number > 1 and move.migration is None:
            continue
        modes = modes_of_move(scenario, number)
        written: dict[tuple[str, str], str] = {}
        own = f"moves.{number - 1}.migration"
        for key, section in (("migration", scenario.migration), (own, move.migration)):
            for kind in _SECTIONS:
                names = getattr(section, kind, {})
                written |= {(kind, name): f"{key}.{kind}.{name}" for name in names}
        if modes.settings or written:
            capabilities, parameters = modes.all_capabilities(), modes.all_parameters()
            # Of any name: here it is to see what does not go together with encryption.
            parameters |= {"tls-creds": "freepage"} if modes.tls else {}
            found.append(_Asked(capabilities, parameters, written, own if move.migration else "migration"))
    return found


def _accelerator(resolved: ResolvedScenario) -> tuple[str, ...]:
    ring = resolved.scenario.guest.kvm_dirty == "ring"
    if resolved.accelerator == "kvm":
        return ("-accel", f"kvm,dirty-ring-size={RING_ENTRIES}" if ring else "kvm")
    return ("-accel", "tcg")


def _demand(qemu: SilentQemu, asked: _Asked) -> tuple[str, str] | None:
    """The key that it does not take, and why, in words; None: it takes all."""
    known = {
        "capabilities": [one["capability"] for one in qemu.execute("query-migrate-capabilities")],
        "parameters": list(qemu.execute("query-migrate-parameters")),
    }
    for (kind, name), key in asked.written.items():
        if name not in known[kind] and not _takes(qemu, kind, name, asked.parameters):
            noun, query = _SECTIONS[kind]
            advice = did_you_mean(name, known[kind])
            return key, f"has no {noun} of that name; {advice}{query} lists {', '.join(sorted(known[kind]))}"
    try:
        _set(qemu, asked.capabilities)
    except RefusedError as error:
        return _culprit(qemu, asked) or asked.key, f"refuses it: {error}"
    for name, value in asked.parameters.items():
        try:
            qemu.execute("migrate-set-parameters", {name: value})
        except RefusedError as error:
            return asked.written.get(("parameters", name), asked.key), f"refuses it: {error}"
    return None


def _takes(qemu: SilentQemu, kind: str, name: str, parameters: Mapping[str, object]) -> bool:
    """Whether a QEMU knows a parameter that it does not list, as one without a value of its own."""
    if kind != "parameters" or name not in parameters:
        return False
    try:
        qemu.execute("migrate-set-parameters", {name: parameters[name]})
    except RefusedError as error:
        # QAPI's words for a member that there is not (qapi/qobject-input-visitor.c); others are of the value.
        return "is unexpected" not in str(error)
    return True


def _culprit(qemu: SilentQemu, asked: _Asked) -> str | None:
    """Where that capability is written without which QEMU takes the others."""
    for (kind, name), key in asked.written.items():
        if kind != "capabilities" or name not in asked.capabilities:
            continue
        try:
            _set(qemu, [other for other in asked.capabilities if other != name])
        except RefusedError:
            continue
        return key
    return None


def _set(qemu: SilentQemu, capabilities: Sequence[str]) -> None:
    states = [{"capability": name, "state": True} for name in capabilities]
    qemu.execute("migrate-set-capabilities", {"capabilities": states})
