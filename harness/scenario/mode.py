# SPDX-License-Identifier: GPL-2.0-or-later
"""How a key of a scenario's section ``migration`` is switched on: one row for each, on the key itself.

::

    class Migration(Section):
        multifd: Annotated[int, Mode("multifd", flag="PARALLEL", parameter="PARALLEL_CONNECTIONS")] = 0
        #: Parallel channels; 0: one stream.

To add a capability or a parameter of QEMU's is to add such a field.  :mod:`harness.migration.modes` makes
of the rows what libvirt and QEMU are told; what a key does not go together with is refused from its row.
Capabilities and parameters that have no key are named as QEMU names them, in ``capabilities`` and
``parameters`` of the same section; for one that has a key its row counts all the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Final, TypeVar

from pydantic import BaseModel
from pydantic_core import PydanticCustomError

_Section = TypeVar("_Section", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Exclusion:
    """A key of the scenario, with its section, that another one does not go together with."""

    key: str
    #: What the user is told; ``{name}`` is the other key.
    words: str = "does not go together with {name}"


@dataclass(frozen=True, slots=True)
class Mode:
    """How a key is switched on.  It is off where its value is false, 0 or null.

    The row has to be in the outermost ``Annotated`` of its field: ``Annotated[int | None, Mode(...)]``.
    """

    #: QEMU's capability, by its name in ``query-migrate-capabilities``.
    capability: str | None = None
    #: libvirt's flag, without ``VIR_MIGRATE_``.  A capability without one is libvirt's to refuse, or
    #: unknown to it: then libvirt is passed by, and QEMU is told itself.
    flag: str | None = None
    #: libvirt's typed parameter, without ``VIR_MIGRATE_PARAM_``; it gets ``value``, or the key's.
    parameter: str | None = None
    value: str | None = None
    #: QEMU's parameter, for ``migrate-set-parameters``; it gets the key's value.  Where libvirt has a typed
    #: parameter for it, libvirt is told that instead; it leaves alone what it was not asked for.
    qemu_parameter: str | None = None
    #: The destination has to have the parameter too.  libvirt starts that QEMU and begins at once, so that
    #: nobody else can tell it anything: what libvirt has no words for then goes past libvirt.
    both_sides: bool = False
    #: Values of the key that libvirt has no words for, though it has some for others.
    past_libvirt_for: tuple[object, ...] = ()
    excludes: tuple[Exclusion, ...] = ()

    @property
    def past_libvirt(self) -> bool:
        """Whether libvirt has no words for it."""
        if self.capability is not None and self.flag is None:
            return self.capability not in LIBVIRTS_OWN
        return self.both_sides and self.parameter is None


#: Capabilities that every migration of the testbed has on; libvirt switches them on by itself.
LIBVIRTS_OWN: Final = ("events", "return-path", "pause-before-switchover")
#: Without these nobody could follow a migration.
FOLLOWED_BY: Final = ("events", "pause-before-switchover")

#: Parameters that only the source heeds: libvirt neither knows nor touches them, or does so only where it
#: was asked to.
SOURCES_OWN: Final = frozenset(
    {
        "avail-switchover-bandwidth",
        "cpu-throttle-increment",
        "cpu-throttle-initial",
        "cpu-throttle-tailslow",
        "downtime-limit",
        "max-bandwidth",
        "max-cpu-throttle",
        "max-postcopy-bandwidth",
        "multifd-zlib-level",
        "multifd-zstd-level",
        "throttle-trigger-threshold",
        "vcpu-dirty-limit",
        "x-vcpu-dirty-limit-period",
        "xbzrle-cache-size",
        "zero-page-detection",
    }
)

#: Keys that say by what a migration goes, and what libvirt does itself.
ROUTES: Final[Mapping[str, str]] = {"over": "tcp", "address": "uri"}

#: Capabilities that a migration over TCP between two hosts cannot have, or not by themselves, and why.  QEMU
#: itself takes them, and fails later, or moves no memory.
NOT_ALONE: Final[Mapping[str, str]] = {
    "rdma-pin-all": "is of migrations over RDMA, and the testbed's go over TCP: no lab has RDMA",
    "x-ignore-shared": "leaves memory where it is that the other host does not have: say guest.shared, which "
    "gives the guest memory that both have, and switches it on",
}

#: The same of values of parameters.
NOT_OVER_TCP: Final[Mapping[tuple[str, object], str]] = {
    ("mode", "cpr-exec"): "starts the new QEMU in place of the old one, and there is no destination",
}

#: Capabilities that QEMU has with KVM only.
KVMS_OWN: Final = frozenset({"dirty-limit"})

#: Parameters that the testbed sets itself, and what by.
OURS: Final[Mapping[str, str]] = {
    "tls-creds": "migration.tls",
}
#: What an encrypted migration can have otherwise than the testbed has it: the name that the destination's
#: certificate must be for, and who may connect there.
_OF_TLS: Final = ("tls-hostname", "tls-authz")


@dataclass(frozen=True, slots=True)
class ModeSetting:
    """A mode that is switched on, and the value that its key has."""

    mode: Mode
    #: None: QEMU's own.
    value: object = True

    @property
    def past_libvirt(self) -> bool:
        """Whether libvirt has no words for it."""
        return self.mode.past_libvirt or self.value in self.mode.past_libvirt_for


def modes_of(section: type[BaseModel]) -> dict[str, Mode]:
    """The rows of a section, by key."""
    return {
        key: row
        for key, field in section.model_fields.items()
        for row in field.metadata
        if isinstance(row, Mode)
    }


def settings_of(section: BaseModel) -> Iterator[tuple[str, ModeSetting]]:
    """What a section switches on, by key: with keys of its own, and by QEMU's names."""
    rows = modes_of(type(section))
    on = set()
    for key, mode in rows.items():
        value = getattr(section, key)
        if value:
            on.add(mode.capability)
            yield key, ModeSetting(mode, value)
    capabilities = {mode.capability: mode for mode in rows.values() if mode.capability is not None}
    for name, state in _named(section, "capabilities").items():
        if state and name not in on:
            mode = capabilities.get(name) or Mode(name)
            # A key's value is not known here: libvirt and QEMU have their own.
            yield f"capabilities.{name}", ModeSetting(mode, None)
    parameters = {mode.qemu_parameter: mode for mode in rows.values() if mode.qemu_parameter is not None}
    for name, value in _named(section, "parameters").items():
        row = parameters.get(name) or Mode(qemu_parameter=name, both_sides=name not in SOURCES_OWN)
        # Of a row only what concerns the parameter: it switches no capability on.
        mode = Mode(parameter=row.parameter, qemu_parameter=name, both_sides=row.both_sides)
        yield f"parameters.{name}", ModeSetting(mode, value)


def switched_off(section: BaseModel) -> frozenset[str]:
    """The capabilities that a section wants to be off."""
    return frozenset(name for name, on in _named(section, "capabilities").items() if not on)


def goes_past_libvirt(section: BaseModel) -> tuple[str, ...]:
    """The keys of a section for which libvirt has no words; empty: it goes by libvirt."""
    off = switched_off(section)
    keys = [key for key, setting in settings_of(section) if setting.past_libvirt]
    # libvirt has a transport and a form of address of its own.
    keys += [key for key, its_own in ROUTES.items() if getattr(section, key, its_own) != its_own]
    return (*keys, *(f"capabilities.{name}" for name in LIBVIRTS_OWN if name in off))


def _named(section: BaseModel, key: str) -> Mapping[str, object]:
    """QEMU's names and what the section says of them; null leaves it to QEMU."""
    named = getattr(section, key, None)
    found = named if isinstance(named, Mapping) else {}
    return {name: value for name, value in found.items() if value is not None}


def without_kvm(section: _Section) -> _Section:
    """A section without what only KVM has: as it can be asked for where the guest would be emulated."""
    named = _named(section, "capabilities")
    return section.model_copy(
        update={"capabilities": {name: on for name, on in named.items() if name not in KVMS_OWN}}
    )


def layered(base: _Section, over: BaseModel | None) -> _Section:
    """``base`` with what ``over`` says itself, name by name where that is of QEMU's."""
    if over is None:
        return base
    update: dict[str, object] = {}
    for key in over.model_fields_set:
        mine, yours = getattr(base, key), getattr(over, key)
        update[key] = {**mine, **yours} if isinstance(yours, Mapping) else yours
    return base.model_copy(update=update)


def refuse_contradictions(section: BaseModel) -> None:
    """Raise pydantic's error for what a section says twice, or what is not the user's to say."""
    for key, mode in modes_of(type(section)).items():
        if not getattr(section, key):
            continue
        if mode.capability is not None and _named(section, "capabilities").get(mode.capability) is False:
            _refuse(f"{key} switches it on", "capabilities", mode.capability)
        if mode.qemu_parameter is not None and mode.qemu_parameter in _named(section, "parameters"):
            _refuse(f"{key} says it already", "parameters", mode.qemu_parameter)
    for name in FOLLOWED_BY:
        if _named(section, "capabilities").get(name) is False:
            _refuse("expected true: the testbed follows every migration by it", "capabilities", name)
    for name, why in NOT_ALONE.items():
        if _named(section, "capabilities").get(name) is True:
            _refuse(f"{name} {why}", "capabilities", name)
    for (name, value), why in NOT_OVER_TCP.items():
        if _named(section, "parameters").get(name) == value:
            _refuse(f"{value} {why}", "parameters", name)
    for name, what in OURS.items():
        if name in _named(section, "parameters"):
            _refuse(f"it is set by the testbed itself: see {what}", "parameters", name)
    for name in _OF_TLS:
        if name in _named(section, "parameters") and not getattr(section, "tls", None):
            _refuse("expected only with migration.tls", "parameters", name)
    if getattr(section, "bandwidth", None) and "max-bandwidth" in _named(section, "parameters"):
        _refuse("bandwidth says it already", "parameters", "max-bandwidth")


def _refuse(words: str, *path: str) -> None:
    raise PydanticCustomError("in-entry", "{words}", {"path": path, "words": words})


def refuse_excluded(scenario: BaseModel, section: BaseModel, place: str) -> None:
    """Raise pydantic's error, at its place, for the first key that a key of ``section`` excludes.

    ``place`` is what the section is called in messages.
    """
    for key, setting in settings_of(section):
        for exclusion in setting.mode.excludes:
            path = tuple(exclusion.key.split("."))
            # A key of the same section: of this one, and not of another move's.
            beside = path[0] == "migration"
            if reduce(getattr, path[1:], section) if beside else reduce(getattr, path, scenario):
                raise PydanticCustomError("at", exclusion.words, {"path": path, "name": f"{place}.{key}"})
