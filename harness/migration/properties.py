# SPDX-License-Identifier: GPL-2.0-or-later
"""Asks a QEMU for the properties of its devices and its first vCPU (QMP's qom-list and qom-get)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from harness.errors import MachineryError
from harness.migration.qmp import CommandError, Monitor
from harness.verdict.properties import MachineProperties, PropertyValue

#: Where QEMU has the devices that have an id: all of libvirt's, and those of the user's that say one.
_DEVICES: Final = "/machine/peripheral"
#: Types of properties that a machine type can fix.  Texts are names of files, nodes and addresses.
_NUMBERS: Final = frozenset(
    {"bool", "int", "int32", "uint8", "uint16", "uint32", "uint64", "size", "OnOffAuto"}
)


def machine_properties(monitor: Monitor) -> MachineProperties:
    """All that there are.  It takes a second or two, and changes nothing.

    Raises what :meth:`Monitor.execute` raises.
    """
    devices = {
        str(one["name"]): dict(_values(monitor, f"{_DEVICES}/{one['name']}", _NUMBERS))
        for one in _listed(monitor, _DEVICES)
        # A vCPU that was plugged in is there as well, and is looked at as one.
        if str(one["type"]).startswith("child<") and not str(one["type"]).endswith("-cpu>")
    }
    cpus = monitor.execute("query-cpus-fast")
    if not isinstance(cpus, list) or not cpus:
        raise MachineryError(f"the {monitor.side} QEMU does not tell its vCPUs: {cpus!r}")
    path = str(cpus[0]["qom-path"])
    lacks: object = ()
    # x86 has it, and no other architecture.
    with contextlib.suppress(CommandError):
        lacks = monitor.execute("qom-get", {"path": path, "property": "unavailable-features"})
    cpu = dict(_values(monitor, path, frozenset({"bool"})))
    return MachineProperties(devices, cpu, tuple(map(str, lacks)) if isinstance(lacks, list) else ())


def _values(monitor: Monitor, path: str, types: frozenset[str]) -> Iterator[tuple[str, PropertyValue]]:
    for one in _listed(monitor, path):
        if one["type"] not in types:
            continue
        # Some can be set only, or read only while something else is on.
        with contextlib.suppress(CommandError):
            value = monitor.execute("qom-get", {"path": path, "property": one["name"]})
            if isinstance(value, bool | int | str):
                yield str(one["name"]), value


def _listed(monitor: Monitor, path: str) -> Iterable[Mapping[str, object]]:
    answer = monitor.execute("qom-list", {"path": path})
    if not isinstance(answer, list):
        raise MachineryError(f"the {monitor.side} QEMU does not tell what is at {path}: {answer!r}")
    return answer
