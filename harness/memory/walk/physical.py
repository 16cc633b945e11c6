# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's physical memory: which file, and where in it, holds which address.

    memory = GuestMemory.of([(image, block.gpa)])       # one entry a RAMBlock
    memory.read(0x1000, 64)

The map is the machine's own (the device's record has it, in BLOCKS), never
arithmetic on a PCI hole: 5 GiB are one file and two stretches of addresses on
one machine type and two other ones on the next, and each NUMA node is a file of
its own.

Reading is preadv() by way of the image: holes of the file stay holes.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from harness.arch import GUEST
from harness.errors import MachineryError
from harness.memory.image import BLOCK_PAGES, Flags, Words
from harness.memory.record import Block
from harness.memory.walk.errors import WalkError
from harness.units import PAGE_SIZE

ByteArray = npt.NDArray[np.uint8]

#: (guest address, offset in the image, length), in bytes; as in the device's record.
GpaRange = tuple[int, int, int]

#: No physical address is as high.
_HIGHEST = 1 << GUEST.page_tables.physical_bits


class PageReader(Protocol):
    """What a walk needs of an image; :class:`harness.memory.image.RamImage` is one."""

    @property
    def name(self) -> str:
        """What to call it in messages."""

    @property
    def pages(self) -> int:
        """How many it has."""

    def read(self, first: int, count: int) -> Words:
        """``count`` pages (at most BLOCK_PAGES) as rows of words, valid until the next read."""

    def blocks_with(self, needle: bytes) -> Iterator[tuple[int, Words]]:
        """(first page, words) of every block in which these bytes may be, and perhaps of others."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Frames ``first`` to ``end`` (exclusive) are the pages of ``image`` from ``page`` on."""

    first: int
    end: int
    image: PageReader
    page: int


class GuestMemory:
    """Guest-physical memory, read by address.  The guest must stand still."""

    def __init__(self, stretches: Iterable[Stretch]) -> None:
        self.stretches: Sequence[Stretch] = sorted(stretches, key=lambda stretch: stretch.first)
        if not self.stretches:
            raise MachineryError("no guest memory to walk")
        for stretch in self.stretches:
            last = stretch.page + stretch.end - stretch.first
            if stretch.page < 0 or last > stretch.image.pages:
                raise MachineryError(
                    f"{stretch.image.name}: has {stretch.image.pages} pages, "
                    f"but is said to hold guest memory up to its page {last}"
                )
        for one, two in zip(self.stretches, self.stretches[1:], strict=False):
            if one.end > two.first:
                raise MachineryError(
                    f"guest frame {two.first:#x} is said to be in both {one.image.name} and {two.image.name}"
                )
        self._starts = [stretch.first for stretch in self.stretches]
        #: One more than the highest frame.
        self.frames = max(stretch.end for stretch in self.stretches)

    @classmethod
    def of(cls, images: Iterable[tuple[PageReader, Iterable[GpaRange]]]) -> GuestMemory:
        """From images and the guest addresses that each is mapped at."""
        return cls(_stretches(images))

    @classmethod
    def of_blocks(cls, images: Mapping[str, PageReader], blocks: Mapping[str, Block]) -> GuestMemory:
        """From images by RAMBlock, and what the device's record says about each block."""
        return cls.of((image, blocks[name].gpa) for name, image in images.items() if name in blocks)

    def present(self, together: int = 1) -> Flags:
        """For each frame, or each so many of them together, whether there is memory behind all of it."""
        flags = np.zeros(-(-self.frames // together) * together, dtype=np.bool_)
        for stretch in self.stretches:
            flags[stretch.first : stretch.end] = True
        whole: Flags = np.logical_and.reduce(flags.reshape(-1, together), axis=1)
        return whole

    def holds(self, address: int, length: int) -> bool:
        """Whether all of this lies in known memory."""
        frame, end = address // PAGE_SIZE, -(-(address + length) // PAGE_SIZE)
        while frame < end:
            stretch = self._find(frame)
            if stretch is None:
                return False
            frame = stretch.end
        return True

    def read(self, address: int, length: int) -> bytes:
        """Bytes from a physical address."""
        first = address // PAGE_SIZE
        pages = np.empty((-(-(address + length) // PAGE_SIZE) - first, PAGE_SIZE), dtype=np.uint8)
        self.read_frames(first, pages)
        start = address % PAGE_SIZE
        return pages.tobytes()[start : start + length]

    def read_frames(self, frame: int, out: ByteArray) -> None:
        """Fill ``out``, an array of rows of a page each, from ``frame`` on."""
        done, count = 0, len(out)
        while done < count:
            stretch = self._find(frame + done)
            if stretch is None:
                raise WalkError(
                    "outside-memory",
                    f"guest frame {frame + done:#x}",
                    "there is no known memory behind it",
                    hint="a guest with memory in no file of its own cannot be walked",
                )
            here = min(count - done, stretch.end - frame - done, BLOCK_PAGES)
            words = stretch.image.read(stretch.page + frame + done - stretch.first, here)
            out[done : done + here] = words.view(np.uint8)
            done += here

    def blocks_with(self, needle: bytes) -> Iterator[tuple[int, Words]]:
        """(first frame, words) of all in which these bytes may be, in no order."""
        for image in {id(s.image): s.image for s in self.stretches}.values():
            mine = [stretch for stretch in self.stretches if stretch.image is image]
            for first, words in image.blocks_with(needle):
                for stretch in mine:
                    low = max(first, stretch.page)
                    high = min(first + len(words), stretch.page + stretch.end - stretch.first)
                    if low < high:
                        yield stretch.first + low - stretch.page, words[low - first : high - first]

    def _find(self, frame: int) -> Stretch | None:
        number = bisect.bisect_right(self._starts, frame) - 1
        if number < 0 or frame >= self.stretches[number].end:
            return None
        return self.stretches[number]


def _stretches(images: Iterable[tuple[PageReader, Iterable[GpaRange]]]) -> Iterator[Stretch]:
    for image, ranges in images:
        for address, offset, length in ranges:
            if min(address, offset, length) < 0 or address + length > _HIGHEST:
                raise MachineryError(
                    f"{image.name}: is said to lie at {address:#x}+{length:#x}, where no memory can be"
                )
            if (address - offset) % PAGE_SIZE:
                raise MachineryError(f"{image.name}: its pages are not pages of the guest ({address:#x})")
            # Inwards to whole pages; a block may be mapped with more than its used length.
            first = -(-address // PAGE_SIZE)
            page = first - (address - offset) // PAGE_SIZE
            end = min((address + length) // PAGE_SIZE, first + image.pages - page)
            if first < end:
                yield Stretch(first, end, image, page)
