# SPDX-License-Identifier: GPL-2.0-or-later
"""What a walk found, frame by frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from harness.memory.image import Flags
from harness.memory.spill import on_disk
from harness.memory.walk.errors import WalkError
from harness.memory.walk.kernel import KernelLayout
from harness.memory.walk.kinds import Kind, Kinds
from harness.memory.walk.lists import Proof
from harness.memory.walk.percpu import PerCpu
from harness.memory.walk.zones import FreeLists, Zone

Counts = npt.NDArray[np.int64]

#: In arrays that say something only of free frames.
NONE = 255


@dataclass(frozen=True, slots=True)
class FrameReport:
    """One frame in words."""

    frame: int
    kind: str
    zone: str | None
    order: int | None
    """The order of the free block that the frame lies in."""
    migrate_type: str | None

    def __str__(self) -> str:
        words = f"frame {self.frame:#x}: {self.kind}"
        if self.order is not None:
            words += f", {self.zone}, order {self.order}, {self.migrate_type}"
        return words


@dataclass(frozen=True, eq=False)
class FreeWalk:
    """Every frame of a stopped guest: free or not, and what it is.

    Arrays have one entry a frame, from frame 0 on, holes in the address space
    included.  ``order``, ``zone`` and ``migrate_type`` are those of the free
    block that a frame lies in; NONE for a frame that is not free.
    """

    release: str
    """The kernel's."""
    zones: tuple[Zone, ...]
    orders: int
    types: tuple[str, ...]
    kind: Kinds
    order: npt.NDArray[np.uint8]
    zone: npt.NDArray[np.uint8]
    """An index into ``zones``, which knows node and name."""
    migrate_type: npt.NDArray[np.uint8]
    blocks: Counts
    """How many free blocks there are, by zone, order and migrate type."""
    frames_per_page: int = 1
    """How many frames a page of the kernel's is: orders count those pages."""
    in_transit: tuple[int, ...] = ()
    """Blocks that a processor had in its hands; not counted as free."""
    notes: tuple[str, ...] = ()
    """What could not be told, and why."""

    def spilt(self, folder: Path) -> FreeWalk:
        """This walk, with its arrays on disk."""
        return replace(
            self,
            kind=on_disk(self.kind, folder),
            order=on_disk(self.order, folder),
            zone=on_disk(self.zone, folder),
            migrate_type=on_disk(self.migrate_type, folder),
        )

    def in_frames(self, each: int, frames: int) -> FreeWalk:
        """This walk of pages by guest frame: each page is so many of them, and there are ``frames``."""
        if each == 1:
            return self
        return replace(
            self,
            frames_per_page=each,
            kind=np.repeat(self.kind, each)[:frames],
            order=np.repeat(self.order, each)[:frames],
            zone=np.repeat(self.zone, each)[:frames],
            migrate_type=np.repeat(self.migrate_type, each)[:frames],
            in_transit=tuple(first * each for first in self.in_transit),
        )

    @property
    def frames(self) -> int:
        """The number of frames: one more than the highest."""
        return len(self.kind)

    @property
    def free(self) -> Flags:
        """Whether each frame is on a buddy list."""
        free: Flags = self.kind == np.uint8(Kind.FREE)
        return free

    @property
    def node(self) -> npt.NDArray[np.int16]:
        """The node of each free frame; -1 for all others."""
        nodes = np.full(256, -1, dtype=np.int16)
        nodes[: len(self.zones)] = [zone.node for zone in self.zones]
        return nodes[self.zone]

    def is_type(self, name: str) -> Flags:
        """Whether each frame is free with this migrate type."""
        if name not in self.types:
            return np.zeros(self.frames, dtype=np.bool_)
        of_type: Flags = self.migrate_type == np.uint8(self.types.index(name))
        return of_type

    @property
    def histogram(self) -> Mapping[int, int]:
        """Free blocks by order."""
        return dict(enumerate(self.blocks.sum(axis=(0, 2)).tolist()))

    @property
    def free_pages(self) -> Mapping[str, int]:
        """Free frames by zone."""
        sizes = np.int64(self.frames_per_page) << np.arange(self.orders, dtype=np.int64)
        pages = (self.blocks.sum(axis=2) * sizes).sum(axis=1)
        return {str(zone): int(count) for zone, count in zip(self.zones, pages, strict=True)}

    @property
    def kinds(self) -> Mapping[str, int]:
        """Frames by kind; what does not occur is left out."""
        counts = np.bincount(self.kind, minlength=len(Kind))
        return {kind.label: int(counts[kind]) for kind in Kind if counts[kind]}

    def describe(self, frame: int) -> FrameReport:
        """One frame in words."""
        if not 0 <= frame < self.frames:
            return FrameReport(frame, Kind.ABSENT.label, None, None, None)
        kind = Kind(int(self.kind[frame]))
        if kind is not Kind.FREE:
            return FrameReport(frame, kind.label, None, None, None)
        return FrameReport(
            frame,
            kind.label,
            str(self.zones[int(self.zone[frame])]),
            int(self.order[frame]),
            self.types[int(self.migrate_type[frame])],
        )


def walk_result(
    kernel: KernelLayout, lists: FreeLists, kinds: Kinds, proof: Proof, per_cpu: PerCpu
) -> FreeWalk:
    """Lay out by frame what was found by block.  ``kinds`` is taken over."""
    if len(lists.zones) >= NONE:
        raise WalkError("zones", f"the kernel {kernel.info.release}", f"has {len(lists.zones)} zones")
    types = len(lists.types)
    zone, rest = np.divmod(proof.lists, lists.orders * types)
    order, kind = np.divmod(rest, types)
    paint = _Painter(kinds, int(order.max(initial=0)))
    paint.blocks(per_cpu.frames, per_cpu.orders, paint.kind, np.uint8(Kind.PER_CPU))
    for first, size in proof.in_transit:
        paint.kind[first : first + (1 << min(size, lists.orders))] = Kind.IN_TRANSIT
    paint.blocks(proof.blocks.frames, order, paint.kind, np.uint8(Kind.FREE))
    zones, orders, migrate = paint.new(), paint.new(), paint.new()
    for target, values in ((zones, zone), (orders, order), (migrate, kind)):
        paint.blocks(proof.blocks.frames, order, target, values.astype(np.uint8))
    count = len(kinds)
    shape = (len(lists.zones), lists.orders, types)
    return FreeWalk(
        release=kernel.info.release,
        zones=lists.zones,
        orders=lists.orders,
        types=lists.types,
        kind=paint.kind[:count],
        order=orders[:count],
        zone=zones[:count],
        migrate_type=migrate[:count],
        blocks=np.bincount(proof.lists, minlength=len(lists.heads.addresses)).reshape(shape),
        in_transit=tuple(frame for frame, _ in proof.in_transit),
        notes=kernel.extras.gaps + per_cpu.notes,
    )


class _Painter:
    """Sets all frames of aligned blocks at once: blocks of one order are rows of the array."""

    def __init__(self, kinds: Kinds, most: int) -> None:
        # To whole blocks of the largest order, so that every order divides it.
        self._length = -(-len(kinds) >> most) << most
        self.kind = np.full(self._length, Kind.ABSENT, dtype=np.uint8)
        self.kind[: len(kinds)] = kinds

    def new(self) -> npt.NDArray[np.uint8]:
        """An array that says nothing yet."""
        return np.full(self._length, NONE, dtype=np.uint8)

    def blocks(
        self,
        frames: Counts,
        orders: npt.NDArray[np.integer],
        target: npt.NDArray[np.uint8],
        values: npt.NDArray[np.uint8] | np.uint8,
    ) -> None:
        """Give every frame of each block its block's value."""
        for order in np.unique(orders).tolist():
            mine = np.flatnonzero(orders == order)
            if self._length >> order << order != self._length:
                continue  # only per-cpu lists are not proven, and may claim more than there can be
            value = values if isinstance(values, np.uint8) else values[mine, None]
            target.reshape(-1, 1 << order)[frames[mine] >> order] = value
