# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a guest has told its hypervisor to write to its memory.

Two independent sources: KVM's registers, as the guest's processors read them
(:func:`from_registers`), and the kernel's own variables, found in its memory
(:mod:`harness.memory.walk.paravirt`).  Where both are known, only what both say
counts: a guest that names another page by one of them gains nothing.

Pure: values in, values out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

WALL_CLOCK: Final = "kvmclock-wall-clock"
VCPU_TIME: Final = "kvmclock-vcpu-time"
STEAL_TIME: Final = "kvm-steal-time"
PV_EOI: Final = "kvm-pv-eoi"
ASYNC_PF: Final = "kvm-async-page-fault"
GENERATION: Final = "vm-generation-id"
LINK_EVENT: Final = "vmxnet3-link-event"

#: Bytes that the hypervisor may write.
SIZES: Final = {
    WALL_CLOCK: 12,
    VCPU_TIME: 32,
    STEAL_TIME: 64,
    PV_EOI: 4,
    ASYNC_PF: 64,
    GENERATION: 16,
    LINK_EVENT: 4,
}


@dataclass(frozen=True, slots=True, order=True)
class HostStructure:
    """One structure: what it is, and its guest physical address in bytes."""

    name: str
    address: int

    @property
    def end(self) -> int:
        """The first address behind the structure."""
        return self.address + SIZES[self.name]


#: By register: what it says the place of, the bit that says that it is in use (0: any value), a mask.
_REGISTERS: Final = {
    "wall_clock": (WALL_CLOCK, 0, ~0x3),
    "system_time": (VCPU_TIME, 1, ~0x3),
    "steal_time": (STEAL_TIME, 1, ~0x3F),
    "pv_eoi": (PV_EOI, 1, ~0x3),
    "async_pf": (ASYNC_PF, 1, ~0x3F),
}


@dataclass(frozen=True)
class SourceFinding:
    """What one source says."""

    name: str
    structures: frozenset[HostStructure]
    knows: frozenset[str]
    """The kinds of structure that it can tell of: one that it does not name is not registered."""


def from_registers(cpus: Sequence[Mapping[str, int | None]]) -> SourceFinding:
    """What the KVM registers of every processor say; a register that is None does not exist."""
    found = frozenset(
        HostStructure(name, value & mask)
        for registers in cpus
        for register, (name, used, mask) in _REGISTERS.items()
        if (value := registers.get(register)) is not None and value & mask and (not used or value & used)
    )
    return SourceFinding("registers", found, frozenset(name for name, _, _ in _REGISTERS.values()))


@dataclass(frozen=True)
class Registrations:
    """What is registered, and who says so."""

    structures: frozenset[HostStructure]
    by: tuple[str, ...] = ()
    """``registers``, ``kernel``; none: nobody could tell."""
    unconfirmed: frozenset[HostStructure] = frozenset()
    """Named by one source and not by another that could tell, and so not believed."""


def agreed(sources: Sequence[SourceFinding]) -> Registrations:
    """The structures that are named by every source which can know of them."""
    everything = frozenset().union(*(source.structures for source in sources))
    common = frozenset(
        one
        for one in everything
        if all(one in source.structures for source in sources if one.name in source.knows)
    )
    return Registrations(common, tuple(source.name for source in sources), everything - common)
