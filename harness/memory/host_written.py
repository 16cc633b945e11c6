# SPDX-License-Identifier: GPL-2.0-or-later
"""Pages that the host writes while the guest stands still.

Under KVM a guest's clock, its stolen time and more are fed through its memory.
When QEMU gives the destination's vCPUs their registers, KVM writes the wall clock
at boot anew: the write to MSR_KVM_WALL_CLOCK is the trigger
(``kvm_write_wall_clock()``), and the migrated guest has that register set.  The
clock is the VM's, but QEMU sets the register of each vCPU: so many times it is
written.  The source never sees that, so one page differs, rightly.

A page gets a name only if *every* byte in which it differs lies in a structure
that the guest has registered with its hypervisor (:mod:`harness.memory.registered`),
and if each of these structures is on both sides what it should be.  A guest may
lie about what it has registered; what it gains is those few bytes, of that shape.

Pure: bytes in, names out.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from harness.memory.registered import (
    ASYNC_PF,
    GENERATION,
    LINK_EVENT,
    PV_EOI,
    SIZES,
    STEAL_TIME,
    VCPU_TIME,
    WALL_CLOCK,
    HostStructure,
)
from harness.units import PAGE_SIZE

#: struct pvclock_wall_clock: version, seconds, nanoseconds.
_WALL: Final = struct.Struct("<III")
#: struct pvclock_vcpu_time_info: version, pad, tsc stamp, system time, multiplier, shift, flags, pad.
_TIME: Final = struct.Struct("<IIQQIbB2s")
#: struct kvm_steal_time: steal, version, flags, preempted, padding.
_STEAL: Final = struct.Struct("<QIIB47s")
#: struct kvm_vcpu_pv_apf_data: flags, token, padding.
_APF: Final = struct.Struct("<II56s")

#: VMXNET3_ECR_LINK of QEMU's hw/net/vmxnet3.h.
_ECR_LINK: Final = 1 << 2

_NANOSECONDS: Final = 1_000_000_000
#: A wall clock at boot lies after the year 2001, and is not corrected by more than this.
_EARLIEST: Final = 1_000_000_000
_LARGEST_STEP: Final = 7 * 86400
#: Nobody is robbed of more than this between two looks.
_MOST_STOLEN: Final = 3600 * _NANOSECONDS

#: More pages than this are not looked into: what is registered fills few.
MOST_CANDIDATES: Final = 64


@dataclass(frozen=True, slots=True)
class Page:
    """A page that differs: its guest physical address, and what both sides hold."""

    number: int
    address: int
    source: bytes
    destination: bytes


def name_of(
    page: Page,
    structures: Iterable[HostStructure],
    guids: tuple[bytes, bytes] | None = None,
    *,
    vcpus: int = 1,
) -> str | None:
    """What a page is, if it differs in nothing but what the host writes.

    ``guids``: the generation id that source and destination QEMU say they have.
    ``vcpus``: of how many QEMU has set the registers.
    """
    differing = _differing(page)
    names: set[str] = set()
    for one in structures:
        start = one.address - page.address
        inside = (differing >= start) & (differing < start + SIZES[one.name])
        if not inside.any():
            continue
        # One that reaches over the page's end cannot be judged, and explains nothing.
        if not 0 <= start <= PAGE_SIZE - SIZES[one.name]:
            continue
        here = slice(start, start + SIZES[one.name])
        if not _is(one.name, page.source[here], page.destination[here], guids, vcpus):
            return None
        names.add(one.name)
        differing = differing[~inside]
    return None if differing.size or not names else "+".join(sorted(names))


def _differing(page: Page) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.flatnonzero(np.frombuffer(page.source, np.uint8) != np.frombuffer(page.destination, np.uint8))


def _is(name: str, before: bytes, after: bytes, guids: tuple[bytes, bytes] | None, vcpus: int) -> bool:
    if name == GENERATION:
        return guids is not None and (before, after) == guids
    if name == WALL_CLOCK:
        return _wall_clock(before, after, vcpus)
    return _SHAPES[name](before, after)


def _wall_clock(source: bytes, destination: bytes, writes: int) -> bool:
    """KVM makes the version odd while it writes and even again after it, so it grows by two each time."""
    before, after = _WALL.unpack(source), _WALL.unpack(destination)
    return (
        before[0] % 2 == 0
        and after[0] == (before[0] + 2 * writes) & 0xFFFFFFFF
        and all(clock[1] > _EARLIEST and clock[2] < _NANOSECONDS for clock in (before, after))
        and abs(after[1] - before[1]) <= _LARGEST_STEP
    )


def _vcpu_time(source: bytes, destination: bytes) -> bool:
    before: tuple[Any, ...] = _TIME.unpack(source)
    after: tuple[Any, ...] = _TIME.unpack(destination)
    even = before[0] % 2 == 0 and after[0] % 2 == 0 and before[0] != after[0]
    # The same frequency: source and destination count the same ticks for this guest.
    same_rate = before[4:6] == after[4:6] and before[4] != 0
    padding = all(clock[1] == 0 and clock[7] == b"\0\0" for clock in (before, after))
    return bool(even and same_rate and padding)


def _steal_time(source: bytes, destination: bytes) -> bool:
    before, after = _STEAL.unpack(source), _STEAL.unpack(destination)
    even = before[1] % 2 == 0 and after[1] % 2 == 0
    flags = before[2] == after[2] == 0 and before[4] == after[4] == bytes(47)
    # KVM_VCPU_PREEMPTED and KVM_VCPU_FLUSH_TLB.
    preempted = max(before[3], after[3]) <= 3
    return bool(even and flags and preempted and abs(after[0] - before[0]) <= _MOST_STOLEN)


def _pv_eoi(source: bytes, destination: bytes) -> bool:
    return all(int.from_bytes(side, "little") in (0, 1) for side in (source, destination))


def _async_pf(source: bytes, destination: bytes) -> bool:
    before, after = _APF.unpack(source), _APF.unpack(destination)
    # KVM_PV_REASON_PAGE_NOT_PRESENT is 1; a token is any number.
    return bool(max(before[0], after[0]) <= 2 and before[2] == after[2] == bytes(56))


def _link_event(source: bytes, destination: bytes) -> bool:
    """The source's QEMU has said that the link is down (VMXNET3_ECR_LINK), as it ended; nothing else."""
    before, after = (int.from_bytes(side, "little") for side in (source, destination))
    return before == after | _ECR_LINK and before != after


_SHAPES: Final[Mapping[str, Callable[[bytes, bytes], bool]]] = {
    VCPU_TIME: _vcpu_time,
    STEAL_TIME: _steal_time,
    PV_EOI: _pv_eoi,
    ASYNC_PF: _async_pf,
    LINK_EVENT: _link_event,
}


def named_pages(
    pages: Iterable[Page],
    structures: Iterable[HostStructure],
    guids: tuple[bytes, bytes] | None = None,
    *,
    vcpus: int = 1,
) -> Mapping[int, str]:
    """Names for those of the pages that have one, by page number; see :func:`name_of`."""
    known = sorted(structures)
    names = ((page.number, name_of(page, known, guids, vcpus=vcpus)) for page in pages)
    return {number: name for number, name in names if name is not None}


def guid_in_memory(text: str) -> bytes:
    """A generation id as QEMU says it, in the order of bytes that the guest sees.

    Raises :class:`ValueError` if the text is none.
    """
    parts = text.split("-")
    if [len(part) for part in parts] != [8, 4, 4, 4, 12]:
        raise ValueError(f"no GUID: {text!r}")
    little = b"".join(bytes.fromhex(part)[::-1] for part in parts[:3])
    return little + bytes.fromhex("".join(parts[3:]))
