# SPDX-License-Identifier: GPL-2.0-or-later
"""The variables in which a kernel has what its hypervisor writes, by its symbols.

The guest's drivers keep what they register with KVM in variables of the kernel,
which kallsyms names.  So the places are found in memory alone, without a word of
the guest's processors.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from harness.memory.registered import (
    ASYNC_PF,
    PV_EOI,
    STEAL_TIME,
    VCPU_TIME,
    WALL_CLOCK,
    HostStructure,
    SourceFinding,
)
from harness.memory.walk.errors import WalkError
from harness.memory.walk.kallsyms import find_symbols
from harness.memory.walk.kernel import KernelLayout
from harness.memory.walk.pagetables import AddressSpace
from harness.memory.walk.physical import GuestMemory

#: Of each processor one.
_PER_CPU = {"steal_time": STEAL_TIME, "kvm_apic_eoi": PV_EOI, "apf_reason": ASYNC_PF}
#: Of each processor a pointer to one.
_POINTER = {"hv_clock_per_cpu": VCPU_TIME}
_ONCE = {"wall_clock": WALL_CLOCK}
_64_BITS = (1 << 64) - 1


def registered_by_kernel(memory: GuestMemory, kernel: KernelLayout) -> SourceFinding | None:
    """Every structure that the kernel has for its hypervisor; None if its symbols do not tell.

    That a kernel has a variable does not say that it is registered: a hypervisor
    that is not KVM writes none of them.
    """
    layout = kernel.extras.per_cpu
    if layout is None:
        return None
    space = kernel.space(memory)
    try:
        symbols = find_symbols(space, kernel.info, (*_PER_CPU, *_POINTER, *_ONCE))
        mask = np.frombuffer(space.read(layout.possible, layout.cpus // 8, "__cpu_possible_mask"), np.uint8)
        cpus = np.flatnonzero(np.unpackbits(mask, bitorder="little")).tolist()
        offsets = space.words(layout.offsets, cpus[-1] + 1 if cpus else 0, "__per_cpu_offset")
    except WalkError:
        return None
    each = [offsets[cpu] for cpu in cpus]
    found: set[HostStructure] = set()
    for symbol, address in symbols.items():
        name = (_PER_CPU | _POINTER | _ONCE)[symbol]
        if symbol in _ONCE:
            places = [address]
        else:
            places = [(address + offset) & _64_BITS for offset in each]
            if symbol in _POINTER:
                places = [target for place in places for target in _pointed(space, place)]
        found.update(HostStructure(name, physical) for physical in _physical(space, places))
    names = {(_PER_CPU | _POINTER | _ONCE)[symbol] for symbol in symbols}
    return SourceFinding("kernel", frozenset(found), frozenset(names))


def _pointed(space: AddressSpace, place: int) -> Iterator[int]:
    try:
        (target,) = space.words(place, 1, "a pointer of a processor")
    except WalkError:
        return
    if target:
        yield target


def _physical(space: AddressSpace, places: list[int]) -> Iterator[int]:
    for place in places:
        try:
            physical = space.translate(place)
        except WalkError:
            continue
        if physical is not None:
            yield physical
