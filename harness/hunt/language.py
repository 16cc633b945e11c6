# SPDX-License-Identifier: GPL-2.0-or-later
"""What of the scenario language a hunt draws: keys with their values, from the pydantic models.  Pure.

    keys = setting_keys()                # every key of a scenario that is drawn, with its values
    left = not_drawn()                   # every other key, with the reason

A key whose type has few values (a word of several, true or false) is drawn without more ado, so a new one
needs nothing here.  Where the type allows too much, :data:`SMALL_VALUES` names small, quick values.  What can
be neither is in :data:`LEFT_OUT`, with why.  A key in none of the three is not drawn, and the report says so.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Literal, TypeAlias

from pydantic import BaseModel
from pydantic.fields import FieldInfo

import harness.scenario.load  # noqa: F401 - with it all kinds are registered
from harness.scenario.actions.base import ACTIONS
from harness.scenario.devices.base import DEVICES
from harness.scenario.model import Scenario
from harness.scenario.registry import Registry
from harness.scenario.workloads.base import WORKLOADS

Value: TypeAlias = Any

#: Values of keys whose type does not say which: as a file has them, the simplest first.
SMALL_VALUES: Final[Mapping[str, Sequence[Value]]] = {
    "guest.memory": ("128MiB", "160MiB", "256MiB", "384MiB"),
    "guest.vcpus": (2, 3),
    "guest.topology": ({"cores": 2}, {"sockets": 2}, {"cores": 2, "threads": 2}, {"dies": 2, "cores": 2}),
    "guest.machine": ("pc", "q35", "pc-q35-7.2", "pc-i440fx-7.2"),
    "guest.cpu": ("qemu64", "max", "EPYC", "Skylake-Client", "Nehalem,+xsave"),
    "guest.nodes": (2, 3),
    "guest.dimm": ("128MiB",),
    "guest.shared": ("128MiB",),
    "guest.virtio_mem": (
        {"size": "128MiB", "plugged": "64MiB"},
        {"size": "256MiB", "block": "4MiB", "plugged": "128MiB"},
        {"size": "128MiB", "plugged": "128MiB"},
    ),
    "guest.memory_backend.offset": ("4KiB", "1MiB"),
    "guest.below_4g": ("128MiB",),
    "guest.cmdline": ("init_on_free=1", "init_on_alloc=0", "page_poison=1", "nokaslr", "clocksource=tsc"),
    "migration.bandwidth": ("64MiB/s", "32MiB/s", "256MiB/s"),
    "migration.downtime_limit_ms": (50, 10, 2000),
    "migration.multifd": (2, 1, 5),
    "migration.clear_bitmap_shift": (6, 12),
    "migration.capabilities": (
        {"return-path": False},
        {"zero-copy-send": True},
        {"release-ram": True},
        {"late-block-activate": True},
        {"validate-uuid": True},
        {"dirty-limit": True},
        {"switchover-ack": True},
        {"postcopy-blocktime": True},
        {"x-colo": True},
        {"auto-converge": True},
    ),
    "migration.parameters": (
        {"multifd-compression": "zlib"},
        {"multifd-compression": "zstd"},
        {"xbzrle-cache-size": 4194304},
        {"cpu-throttle-initial": 60},
        {"announce-rounds": 1},
        {"max-cpu-throttle": 30},
        {"avail-switchover-bandwidth": 67108864},
        {"mode": "cpr-reboot"},
        {"x-checkpoint-delay": 100},
    ),
    "wire.delay_ms": (5.0, 40.0),
    "wire.loss_percent": (1.0, 0.1),
    "wire.reorder_percent": (5.0,),
    "wire.bandwidth": ("128MiB/s", "32MiB/s"),
    "workload.noise": ("10%", "20%", "30%"),
    "workload.keep": ("1MiB", "8MiB"),
    "workload.rate": (2000, 500, 8000),
    "workload.every_ms": (5, 50),
    "workload.disk": ("4MiB",),
    "workload.depth": (8, 1, 32),
    "workload.patience": (30,),
    "workload.stream.rate": ("1MiB", "64KiB", "4MiB"),
    "script.pages": (256, 2048),
    "script.blocks": (1,),
    "script.count": (1,),
    "script.limit": ("16MiB/s", "512MiB/s"),
    "script.bandwidth": ("32MiB/s", "128MiB/s"),
    "script.size": ("112MiB", "96MiB"),
    "script.plugged": ("32MiB", "128MiB"),
    "script.nic": (0,),
    "script.entries": (1, 100),
    "script.within_s": (60,),
}

_HOST: Final = "it takes what this machine need not have"
_OURS: Final = "it is the testbed's own, and no part of a guest or its migration"
_FREE: Final = "free text: what it breaks would be the draw's own fault"
_SLOW: Final = "a guest with it is not quick"
_LIMIT: Final = "a limit, which changes only when a run counts as hung"
_KVM: Final = "for KVM only"
_WRONG: Final = "it makes a run wrong on purpose"

#: Keys that are not drawn, and why.
LEFT_OUT: Final[Mapping[str, str]] = {
    "name": _OURS,
    "summary": _OURS,
    "accelerator": _OURS,
    "seed": _OURS,
    "expect": _OURS,
    "remote": _HOST,
    "measure": _OURS,
    "trace": _OURS,
    "moves": "drawn as legs: see harness.hunt.episodes",
    "script": "drawn in episodes: see harness.hunt.episodes",
    "guest.image": _SLOW,
    "guest.ssh": _SLOW,
    "guest.firmware": _SLOW,
    "guest.kernel": _SLOW,
    "guest.hugepages": _HOST,
    "guest.memory_backend.page": _HOST,
    "guest.vhost": _KVM,
    "guest.kvm_dirty": _KVM,
    "guest.disks": "short for guest.devices",
    "guest.nics": "short for guest.devices",
    "guest.commands": _FREE,
    "guest.xml": _FREE,
    "guest.qemu_args": _FREE,
    "guest.globals": _FREE,
    "guest.boot_timeout_s": _LIMIT,
    "migration.timeout_s": _LIMIT,
    "migration.stuck_s": _LIMIT,
    "migration.postcopy": "drawn with the switch to it: see harness.hunt.episodes",
    "migration.postcopy_preempt": "drawn with the switch to postcopy: see harness.hunt.episodes",
    "migration.file.keep": _OURS,
    "migration.file.cut_to": _WRONG,
    "migration.file.instead": _WRONG,
    "migration.file.room": _WRONG,
}

#: Why a key is not drawn for which neither values nor a reason are named.
UNNAMED: Final = "its type has too many values, and none are named for it"

#: Workloads that are not drawn, and why.
SLOW_WORKLOADS: Final[Mapping[str, str]] = {"compile": _SLOW, "database": _SLOW}


@dataclass(frozen=True, slots=True)
class DrawnKey:
    """A key that is drawn, dotted, and the values that it is given beside its default."""

    key: str
    values: tuple[Value, ...]


def setting_keys() -> tuple[DrawnKey, ...]:
    """The keys of a scenario that one value each is drawn for, in the order of the language."""
    return _sections()[0]


def not_drawn() -> Mapping[str, str]:
    """Every other key of the scenario and its sections, with the reason."""
    return _sections()[1]


@cache
def _sections() -> tuple[tuple[DrawnKey, ...], Mapping[str, str]]:
    drawn: list[DrawnKey] = []
    left: dict[str, str] = {}
    for key, info in _keys_of(Scenario, ""):
        values = SMALL_VALUES.get(key) or few_values(info)
        if key in LEFT_OUT:
            left[key] = LEFT_OUT[key]
        elif values:
            drawn.append(DrawnKey(key, tuple(values)))
        else:
            left[key] = UNNAMED
    return tuple(drawn), left


def _keys_of(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    """Each key below a section; a section of its own is entered, unless it is chosen or left out whole."""
    for name, info in model.model_fields.items():
        key = f"{prefix}{name}"
        inner = _section_of(info.annotation)
        if key in ("workload", "guest.devices"):
            continue  # their kinds register themselves: see kinds()
        if inner is not None and key not in SMALL_VALUES and key not in LEFT_OUT:
            yield from _keys_of(inner, f"{key}.")
        else:
            yield key, info


def _section_of(annotation: Any) -> type[BaseModel] | None:
    for one in _members(annotation):
        if isinstance(one, type) and issubclass(one, BaseModel):
            return one
    return None


def _members(annotation: Any) -> tuple[Any, ...]:
    """The parts of a union, without what is around them."""
    while typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return tuple(part for one in typing.get_args(annotation) for part in _members(one))
    return (annotation,)


def few_values(info: FieldInfo) -> tuple[Value, ...]:
    """What a key can be beside its default, where its type has few values; else nothing."""
    found: list[Value] = []
    for one in _members(info.annotation):
        if typing.get_origin(one) is Literal:
            found += typing.get_args(one)
        elif one is bool:
            found += [False, True]
        elif one is not type(None):
            return ()
    return tuple(value for value in found if value is not None and not _same(value, info.default))


def _same(one: Value, other: Value) -> bool:
    # True is no 1.
    return type(one) is type(other) and bool(one == other)


@dataclass(frozen=True, slots=True)
class DrawnKind:
    """A kind of workload, device or action, and the values of its keys; another key keeps its default."""

    word: str
    keys: tuple[DrawnKey, ...]
    #: Keys that have to be given.
    required: tuple[str, ...]


@cache
def workloads() -> tuple[DrawnKind, ...]:
    """The kinds of workload that are drawn; the simplest first."""
    found = _kinds(WORKLOADS, "workload")
    return tuple(kind for kind in found if kind.word not in SLOW_WORKLOADS)


@cache
def devices() -> tuple[DrawnKind, ...]:
    """The kinds of devices that are drawn: those whose keys all have values or defaults."""
    return _kinds(DEVICES, "guest.devices")


@cache
def drawn_actions() -> Mapping[str, DrawnKind]:
    """The actions whose keys all have values or defaults, by their word."""
    return {kind.word: kind for kind in _kinds(ACTIONS, "script")}


def _kinds(registry: Registry[Any], prefix: str) -> tuple[DrawnKind, ...]:
    found = []
    for word, model in registry.items():
        keys, required, possible = [], [], True
        for name, info in model.model_fields.items():
            if name == registry.key:
                continue
            chosen = SMALL_VALUES.get(f"{prefix}.{word}.{name}") or SMALL_VALUES.get(f"{prefix}.{name}")
            values = chosen or few_values(info)
            if info.is_required():
                required.append(name)
                possible = possible and bool(values)
            if values:
                keys.append(DrawnKey(name, tuple(values)))
        if possible:
            found.append(DrawnKind(word, tuple(keys), tuple(required)))
    return tuple(found)
