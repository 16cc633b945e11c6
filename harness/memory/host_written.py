# SPDX-License-Identifier: GPL-2.0-or-later
"""Pages that the host writes while the guest stands still, told by what they hold.

Under KVM a guest's clock is fed through its memory.  When QEMU gives the
destination's vCPUs their registers, KVM writes the wall clock at boot anew: the
write to MSR_KVM_WALL_CLOCK is the trigger (``kvm_write_wall_clock()``), and the
migrated guest has that register set.  The source never sees this write, so one
page differs, rightly, and by these bytes alone::

    struct pvclock_wall_clock { u32 version; u32 sec; u32 nsec; };

KVM makes the version odd while it writes and even again after it, so it grows by
two.  Likewise the time of a vCPU (MSR_KVM_SYSTEM_TIME), which KVM writes when
the vCPU next runs, and which it may have been about to::

    struct pvclock_vcpu_time_info {
        u32 version; u32 pad0; u64 tsc_timestamp; u64 system_time;
        u32 tsc_to_system_mul; s8 tsc_shift; u8 flags; u8 pad[2]; };

A page gets a name only if *every* byte in which it differs belongs to such a
structure, if both sides hold a valid one, and if there are no more of them than
a guest has.  Anything else stays what it is: a difference.

Pure: bytes in, names out.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np

WALL_CLOCK: Final = "kvmclock-wall-clock"
VCPU_TIME: Final = "kvmclock-vcpu-time"

_WALL: Final = struct.Struct("<III")
_TIME: Final = struct.Struct("<IIQQIbB2s")
#: Linux keeps a vCPU's time in a structure of its own of this size (pvclock_vsyscall_time_info).
_TIME_STRIDE: Final = 64

_NANOSECONDS: Final = 1_000_000_000
#: A wall clock at boot lies after the year 2001, and is not corrected by more than this.
_EARLIEST: Final = 1_000_000_000
_LARGEST_STEP: Final = 7 * 86400

#: More pages than this are not looked into: a guest has one wall clock, and its vCPUs fill few pages.
MOST_CANDIDATES: Final = 64


def name_of(source: bytes, destination: bytes) -> str | None:
    """What a page that differs is, if it differs in nothing but a structure of the host's."""
    differing = np.flatnonzero(np.frombuffer(source, np.uint8) != np.frombuffer(destination, np.uint8))
    if not differing.size:
        return None
    first, last = int(differing[0]), int(differing[-1])
    if _is_wall_clock(source, destination, first, last):
        return WALL_CLOCK
    if times_in(source, destination):
        return VCPU_TIME
    return None


def _is_wall_clock(source: bytes, destination: bytes, first: int, last: int) -> bool:
    # The version is the first field, is small, and always differs.
    start = first - first % 4
    if last >= start + _WALL.size or start + _WALL.size > len(source):
        return False
    before, after = _WALL.unpack_from(source, start), _WALL.unpack_from(destination, start)
    return (
        before[0] % 2 == 0
        and after[0] == (before[0] + 2) & 0xFFFFFFFF
        and all(clock[1] > _EARLIEST and clock[2] < _NANOSECONDS for clock in (before, after))
        and abs(after[1] - before[1]) <= _LARGEST_STEP
    )


def times_in(source: bytes, destination: bytes) -> int:
    """How many vCPUs' times account for all of a page's differences; 0 if they do not."""
    differing = np.flatnonzero(np.frombuffer(source, np.uint8) != np.frombuffer(destination, np.uint8))
    starts = np.unique(differing // _TIME_STRIDE * _TIME_STRIDE).tolist()
    for start in starts:
        here = differing[(differing >= start) & (differing < start + _TIME_STRIDE)]
        if int(here[-1]) >= start + _TIME.size:
            return 0
        before, after = _TIME.unpack_from(source, start), _TIME.unpack_from(destination, start)
        if not _same_clock(before, after):
            return 0
    return len(starts)


def _same_clock(before: tuple[Any, ...], after: tuple[Any, ...]) -> bool:
    even = before[0] % 2 == 0 and after[0] % 2 == 0 and before[0] != after[0]
    # The same frequency: source and destination count the same ticks for this guest.
    same_rate = before[4:6] == after[4:6] and before[4] != 0
    padding = all(clock[1] == 0 and clock[7] == b"\0\0" for clock in (before, after))
    return bool(even and same_rate and padding)


def named_pages(pages: Iterable[tuple[int, bytes, bytes]], vcpus: int) -> Mapping[int, str]:
    """Names for those of the (number, source, destination) that have one.

    One wall clock, and as many times as there are vCPUs: more than that is not
    what it looks like, and none of them is named.
    """
    found: dict[int, str] = {}
    times = 0
    for number, source, destination in pages:
        name = name_of(source, destination)
        if name is not None:
            found[number] = name
        if name == VCPU_TIME:
            times += times_in(source, destination)
    clocks = [number for number, name in found.items() if name == WALL_CLOCK]
    if len(clocks) > 1:
        found = {number: name for number, name in found.items() if name != WALL_CLOCK}
    if times > vcpus:
        found = {number: name for number, name in found.items() if name != VCPU_TIME}
    return found
