# SPDX-License-Identifier: GPL-2.0-or-later
"""The properties of devices and vCPUs that a machine type fixes, on every QEMU that has it.

A versioned machine type is a promise that a guest finds the same machine on every QEMU that has it.  QEMU
keeps it by lists of properties that are otherwise by default (``hw_compat_8_1`` and its like in
hw/core/machine.c).  One that stands in the wrong list makes another machine: a guest that goes there is
refused, or finds a feature gone.
Pure: :mod:`harness.migration.properties` asks.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from harness.verdict.finding import Finding
from harness.verdict.outcome import KIND

#: The rule.
MACHINE_DIFFERS: Final = "machine-differs"

PropertyValue: TypeAlias = bool | int | str

#: Of a device of any name: what may differ, and why.
MAY_DIFFER: Final[Mapping[str, str]] = {
    "hotplugged": "one that was plugged in is there from the start on its new host",
    "rombar": "QEMU's default is another number since 10.0, of the same meaning",
    "guest-cid": "of vsock: both hosts of a lab are one kernel, which has each context id once",
    "requested-size": "of virtio-mem: how much the guest is asked to have, at this moment",
    "size": "of virtio-mem: how much it has, at this moment",
    "guest-stats-polling-interval": "of the balloon: who manages the guest sets it, on each host",
    "attached": "of a USB device: whether it is plugged in just now",
    "logical_block_size": "of a USB disk: 0 in newer QEMUs, which is the same 512",
    "physical_block_size": "as logical_block_size",
    "events": "of pvpanic: newer QEMUs offer one more, whatever the machine (docs/found.md)",
    "streams": "of xhci: QEMU's default since 8.0, whatever the machine; seen of 7.2 and 10.0, pc-q35-7.2",
}

#: Second names of CPU features that are not the first written otherwise (target/i386/cpu.c).
_SHORT: Final[Mapping[str, str]] = {
    "sse3": "pni",
    "pclmuldq": "pclmulqdq",
    "ffxsr": "fxsr-opt",
    "xd": "nx",
    "i64": "lm",
    "hv-apicv": "hv-avic",
}


@dataclass(frozen=True, slots=True)
class MachineProperties:
    """Of one QEMU: each device's properties by its id, those of the first vCPU, and what its CPU lacks.

    Only numbers, switches and words of a set are among them: names of files and the like are the host's.
    """

    devices: Mapping[str, Mapping[str, PropertyValue]]
    cpu: Mapping[str, PropertyValue] = field(default_factory=dict)
    #: Features of the CPU model that this QEMU's accelerator lacks: the model is not to blame.
    lacks: Collection[str] = ()


def property_findings(
    source: MachineProperties, destination: MachineProperties, *, named_cpu: bool = True
) -> Iterator[Finding]:
    """What is otherwise on the destination, of devices and properties that both have.

    ``named_cpu``: the CPU has a model's name.  ``max`` and the host's own are by definition what a QEMU
    can offer on its machine, and no machine type promises them.
    """
    for device, here in source.devices.items():
        there = destination.devices.get(device, {})
        yield from _differing(f"the device {device}", here, there, MAY_DIFFER)
    if named_cpu:
        lacking = {_canonical(name) for name in (*source.lacks, *destination.lacks)}
        aside = {name for name in source.cpu if _canonical(name) in lacking}
        yield from _differing("the CPU", source.cpu, destination.cpu, aside)


def _canonical(feature: str) -> str:
    """A CPU's feature by one of its names: QEMU has others for some (``x86_cpu_initfn()``)."""
    name = feature.replace("_", "-").replace(".", "-")
    return _SHORT.get(name, name)


def _differing(
    whose: str, here: Mapping[str, PropertyValue], there: Mapping[str, PropertyValue], aside: Collection[str]
) -> Iterator[Finding]:
    told = [
        f"{name} {_word(value)} -> {_word(there[name])}"
        for name, value in here.items()
        if name in there and name not in aside and there[name] != value
    ]
    if told:
        yield Finding(
            MACHINE_DIFFERS,
            KIND,
            f"{whose} of the same machine is another on the destination: {', '.join(told)}",
        )


def _word(value: PropertyValue) -> str:
    return ("on" if value else "off") if isinstance(value, bool) else str(value)
