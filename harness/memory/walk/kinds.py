# SPDX-License-Identifier: GPL-2.0-or-later
"""What a page is, as far as its ``struct page`` tells.

A page that is on no buddy list is in use, or is on its way.  Why it is there is
written in the page itself: a type, a flag, a mapping, or a tail's pointer to its
head.  Bits and values come from VMCOREINFO, which knows two fashions of types:

- one bit each, cleared in an otherwise set word (``PAGE_BUDDY_MAPCOUNT_VALUE``
  is -129): kernels up to 6.11;
- a number in the top byte (it is ``0xf0000000``): since 6.12.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from harness.memory.image import Flags
from harness.memory.walk.layout import PageLayout
from harness.memory.walk.pages import PageViews, Words
from harness.memory.walk.vmcoreinfo import VmcoreInfo

Kinds = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.int64]


class Kind(IntEnum):
    """What a frame is.  Values may change; names are what reports print."""

    ABSENT = 0
    """No memory."""
    UNKNOWN = 1
    """Memory that the kernel keeps no struct page for, or an uninitialised one."""
    OFFLINE = 2
    """Taken out of the kernel's hands: an offline block, or a page that a balloon holds."""
    RESERVED = 3
    FREE = 4
    """On a buddy list."""
    PER_CPU = 5
    """Free, but on a per-cpu list: the buddy allocator does not have it."""
    LOOSE = 6
    """Nobody holds a reference, and it is on no list that was looked at: on a per-cpu list that
    could not be read, on its way, or a further page of a kernel allocation of several."""
    SLAB = 7
    PAGE_TABLE = 8
    ANONYMOUS = 9
    PAGE_CACHE = 10
    SHARED = 11
    """Page cache without a file: tmpfs, shared memory."""
    HUGETLB = 12
    KERNEL = 13
    """In use, and nothing says by whom: the kernel's own."""
    POISONED = 14
    """Broken memory."""
    IN_TRANSIT = 15
    """A free block that a processor was moving when the guest stopped."""

    @property
    def label(self) -> str:
        """As reports print it."""
        return self.name.lower().replace("_", "-")


#: The numbers of page types since 6.12 (enum pagetype); VMCOREINFO gives only some.
_NUMBERED = {
    0xF1: Kind.OFFLINE,
    0xF2: Kind.PAGE_TABLE,
    0xF3: Kind.KERNEL,  # guard
    0xF4: Kind.HUGETLB,
    0xF5: Kind.SLAB,
    0xF6: Kind.KERNEL,  # zsmalloc
    0xF7: Kind.OFFLINE,  # unaccepted
    0xF8: Kind.SLAB,  # a kmalloc too large for a slab
}
_TYPE_NAMES = {
    "offline": Kind.OFFLINE,
    "unaccepted": Kind.OFFLINE,
    "table": Kind.PAGE_TABLE,
    "hugetlb": Kind.HUGETLB,
    "slab": Kind.SLAB,
    "large_kmalloc": Kind.SLAB,
}
_GIVEN = {
    "PAGE_OFFLINE_MAPCOUNT_VALUE": Kind.OFFLINE,
    "PAGE_SLAB_MAPCOUNT_VALUE": Kind.SLAB,
    "PAGE_HUGETLB_MAPCOUNT_VALUE": Kind.HUGETLB,
    "PAGE_UNACCEPTED_MAPCOUNT_VALUE": Kind.OFFLINE,
}
_LOW = 0xFF_FFFF
_WORD = 0xFFFF_FFFF
_ALL_ONES = np.uint64(0xFFFF_FFFF_FFFF_FFFF)

#: page.mapping: what its low bits say.
_ANONYMOUS, _MOVABLE = 1, 2
_TAIL = 1


@dataclass(frozen=True, slots=True)
class HugeMark:
    """How kernels up to 6.8 mark a huge page: a byte in the page after its head says who frees it."""

    head: int
    offset: int
    value: int

    @classmethod
    def of(cls, info: VmcoreInfo) -> HugeMark | None:
        """Read from VMCOREINFO how this kernel does it; None if it does it another way."""
        head, value = info.get("NUMBER", "PG_head_mask"), info.get("NUMBER", "HUGETLB_PAGE_DTOR")
        offset = info.get("OFFSET", "page.compound_dtor")
        if head is None or value is None or offset is None:
            return None
        if not (0 < head < 1 << 64 and 0 <= value < 256 and 0 <= offset < info.size("page")):
            return None
        return cls(head, offset, value)


@dataclass(frozen=True)
class Marks:
    """How this kernel writes down what a page is."""

    buddy: int
    """The type of a page that is on a buddy list, 32 bits."""
    types: Mapping[int, Kind]
    """By the whole word, or by its top byte."""
    numbered: bool
    reserved: int
    """Bits, as masks; 0: there is no such bit."""
    poisoned: int
    slab: int
    swapbacked: int
    huge: HugeMark | None = None
    """Where huge pages are not a type of their own."""

    @classmethod
    def of(
        cls, info: VmcoreInfo, page_types: Mapping[str, int] | None = None, reserved: int | None = None
    ) -> Marks:
        """From VMCOREINFO; and the kernel's own enumeration of types and number of PG_reserved, if known."""
        buddy = info.number("PAGE_BUDDY_MAPCOUNT_VALUE") & _WORD
        numbered = not buddy & _LOW and bool(buddy & ~_LOW)
        given = {
            value & _WORD: kind
            for name, kind in _GIVEN.items()
            if (value := info.get("NUMBER", name)) is not None
        }
        if numbered:
            types = _named(page_types) if page_types else _NUMBERED
            types = types | {value >> 24: kind for value, kind in given.items()}
        else:
            types = given | _page_table_bit(buddy, info.get("NUMBER", "PAGE_OFFLINE_MAPCOUNT_VALUE"))
        # PG_reserved is the one bit that VMCOREINFO leaves out. It comes just before PG_private,
        # as it has in every kernel so far; where it does not, pages are called something else.
        private = info.get("NUMBER", "PG_private")
        if reserved is None and private:
            reserved = private - 1
        return cls(
            buddy,
            types,
            numbered,
            _bit(reserved),
            _bit(info.get("NUMBER", "PG_hwpoison")),
            _bit(info.get("NUMBER", "PG_slab")),
            _bit(info.get("NUMBER", "PG_swapbacked")),
            HugeMark.of(info),
        )


def _named(page_types: Mapping[str, int]) -> dict[int, Kind]:
    """The kernel's own numbers; a type that is not known here is the kernel's business."""
    names = {name.removeprefix("PGTY_"): value for name, value in page_types.items()}
    for name in ("buddy", "mapcount_underflow"):
        names.pop(name, None)
    return {value & 0xFF: _TYPE_NAMES.get(name, Kind.KERNEL) for name, value in names.items()}


def _bit(number: int | None) -> int:
    return 1 << number if number is not None and 0 <= number < 64 else 0


def _page_table_bit(buddy: int, offline: int | None) -> dict[int, Kind]:
    """Buddy, offline, table: three neighbouring bits, in one direction or the other."""
    if offline is None:
        return {}
    one, two = ~buddy & _WORD, ~offline & _WORD
    return {~(two * two // one) & _WORD: Kind.PAGE_TABLE} if one else {}


def buddies(pages: PageViews, marks: Marks, layout: PageLayout) -> Rows:
    """Which pages of a section say that they begin a free block."""
    return np.flatnonzero(pages.u32(layout.type) == np.uint32(marks.buddy))


def classify(pages: PageViews, rows: Rows, marks: Marks, layout: PageLayout) -> tuple[Kinds, Flags]:
    """What these pages are, and which of them are tails: those are what their head is.

    The last assignment wins, so the strongest sign comes last.
    """
    flags, mapping = pages.u64(layout.flags)[rows], pages.u64(layout.mapping)[rows]
    kinds = np.full(len(rows), Kind.KERNEL, dtype=np.uint8)
    mapped = np.flatnonzero(mapping >> np.uint64(63))
    kinds[mapped] = _mapped(mapping[mapped], flags[mapped], marks)
    kinds[pages.u32(layout.refcount)[rows] == 0] = Kind.LOOSE
    tails = np.zeros(len(rows), dtype=np.bool_)
    if layout.compound is not None:
        tails = (pages.u64(layout.compound)[rows] & np.uint64(_TAIL)).astype(np.bool_)
    _flagged(kinds, flags, marks.slab, Kind.SLAB)
    if marks.huge is not None:
        kinds[_huge(pages, rows, flags, marks.huge)] = Kind.HUGETLB
    _flagged(kinds, flags, marks.reserved, Kind.RESERVED)
    of_type = _typed(pages.u32(layout.type)[rows], marks)
    typed = of_type != 0
    kinds[typed] = of_type[typed]
    _flagged(kinds, flags, marks.poisoned, Kind.POISONED)
    blank = (flags == _ALL_ONES) | pages.missing[rows]
    kinds[blank] = Kind.UNKNOWN
    return kinds, tails & ~blank & ~typed


def _mapped(mapping: Words, flags: Words, marks: Marks) -> Kinds:
    kinds = np.full(len(mapping), Kind.PAGE_CACHE, dtype=np.uint8)
    if marks.swapbacked:
        kinds[(flags & np.uint64(marks.swapbacked)) != 0] = Kind.SHARED
    kinds[(mapping & np.uint64(_MOVABLE)) != 0] = Kind.KERNEL
    kinds[(mapping & np.uint64(_ANONYMOUS)) != 0] = Kind.ANONYMOUS
    return kinds


def _huge(pages: PageViews, rows: Rows, flags: Words, mark: HugeMark) -> Rows:
    """Indices into ``rows`` of the heads of huge pages."""
    heads = np.flatnonzero((flags & np.uint64(mark.head)) != 0)
    heads = heads[rows[heads] < len(pages) - 1]
    marked: Rows = heads[pages.u8(mark.offset)[rows[heads] + 1] == np.uint8(mark.value)]
    return marked


def _flagged(kinds: Kinds, flags: Words, mask: int, kind: Kind) -> None:
    if mask:
        kinds[(flags & np.uint64(mask)) != 0] = kind


def _typed(types: npt.NDArray[np.uint32], marks: Marks) -> Kinds:
    """The kind by type, 0 where there is none."""
    kinds = np.zeros(len(types), dtype=np.uint8)
    # Few pages have a type; all others are left out before anything is compared.
    some = np.flatnonzero((types >> np.uint32(31)).astype(np.bool_) & (types != np.uint32(_WORD)))
    values = types[some] >> np.uint32(24) if marks.numbered else types[some]
    for value, kind in marks.types.items():
        kinds[some[values == np.uint32(value)]] = kind
    return kinds
