# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest's memory on another machine: looked at there, compared by digests.

Which pages differ is found in steps, each of which asks only about what the one
before has left open:

1. flags, a bit or less a page: which pages are zero, on either side.  A page that is
   zero on one side only differs; one that is zero on both is equal.  That settles
   every page that was skipped, by ``memcmp`` and not by a digest.
2. one digest for 512 pages, over those that are zero on neither side.  Equal: so are they all.
3. digests of single pages, where step 2 has found a difference.

A digest is BLAKE2b of 128 bits with a key of the run's own, which no guest knows.
docs/remote.md argues why that is as good as comparing bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from harness.errors import MachineryError
from harness.hosts.remote_deputy import DeputyClient, unpacked
from harness.memory.access import Comparison, FarImage, PageDigests, PageNumbers
from harness.memory.image import BLOCK_PAGES, WORDS, Flags, Words
from harness.units import PAGE_SIZE

#: Under this name bytes are counted that the oracle's questions cost.
ORACLE: Final = "oracle"

DIGEST_BYTES: Final = 16
CHUNK_PAGES: Final = 512
#: Digests of so many pages are asked for at once.
_MOST_PAGES: Final = 1 << 18
#: Pages that are kept of what a walk has read: memmap, symbols, types.
_MOST_READ: Final = 1 << 14
_UNKNOWN: Final = (bytes(DIGEST_BYTES), b"")


@dataclass(frozen=True, eq=False)
class LookContext:
    """What the looks (sets of digests) of one run have in common, on both hosts."""

    #: Of the digests; the deputies have it as well.
    key: bytes
    #: By RAMBlock and page, what was read before, with its digest: the next walk reads nearly the same,
    #: and so does the first one after the guest has moved.
    read: dict[str, dict[int, tuple[bytes, bytes]]] = field(default_factory=dict)


class RemoteDigests:
    """One look at one image.  The digests stay where they were made."""

    def __init__(self, image: RemoteImage, look: int, zero: Flags, hole: Flags) -> None:
        self.image = image
        self.look = look
        self._zero = zero
        self.hole = hole

    @property
    def zero(self) -> Flags:
        """Which pages held nothing but zeros."""
        return self._zero

    def unchanged(self, later: PageDigests) -> Flags:
        """Which pages held the same content at a later look."""
        if not isinstance(later, RemoteDigests) or later.image is not self.image:
            raise MachineryError(f"{self.image.name}: looks at two different images say nothing of a change")
        _, data = self.image.deputy.call("same", purpose=ORACLE, before=self.look, after=later.look)
        return _flags(data, self.image.pages)

    def chunks(self, wanted: bytes) -> bytes:
        """A digest for each :data:`CHUNK_PAGES` pages, over those wanted (flags, compressed)."""
        _, data = self.image.deputy.call("chunks", wanted, purpose=ORACLE, look=self.look, chunk=CHUNK_PAGES)
        if len(data) != DIGEST_BYTES * -(-self.image.pages // CHUNK_PAGES):
            raise MachineryError(f"the {self.image.deputy.name} gave {len(data)} bytes of digests")
        return data

    def marks(self, pages: PageNumbers) -> tuple[Words, Words]:
        """The first words of some pages, and the first halves of their digests."""
        parts = []
        for first in range(0, len(pages), _MOST_PAGES):
            part = pages[first : first + _MOST_PAGES].astype("<u4")
            _, data = self.image.deputy.call("firsts", part.tobytes(), purpose=ORACLE, look=self.look)
            if len(data) != 8 * len(part):
                raise MachineryError(f"the {self.image.deputy.name} gave {len(data)} bytes of words")
            parts.append(data)
        return np.frombuffer(b"".join(parts), dtype="<u8"), self.of_pages(pages)[:, 0]

    def digest(self, content: bytes) -> int:
        """The first half of the digest that a page with this content has."""
        if not any(content):
            return 0
        return int.from_bytes(_digest(content, self.image.key)[:8], "little")

    def of_pages(self, numbers: PageNumbers) -> Words:
        """The digests of some pages, a row each."""
        parts = []
        for first in range(0, len(numbers), _MOST_PAGES):
            part = numbers[first : first + _MOST_PAGES].astype("<u4")
            _, data = self.image.deputy.call("pages", part.tobytes(), purpose=ORACLE, look=self.look)
            if len(data) != DIGEST_BYTES * len(part):
                raise MachineryError(f"the {self.image.deputy.name} gave {len(data)} bytes of digests")
            parts.append(data)
        return np.frombuffer(b"".join(parts), dtype="<u8").reshape(-1, DIGEST_BYTES // 8)

    def forget(self) -> None:
        """Have the deputy drop these digests."""
        self.image.deputy.call("drop", purpose=ORACLE, look=self.look)


class RemoteImage:
    """One RAMBlock of a QEMU over there."""

    def __init__(self, deputy: DeputyClient, number: int, name: str, size: int, shared: LookContext) -> None:
        self.deputy = deputy
        self.key = shared.key
        self.name = name
        self.size = size
        self.pages = size // PAGE_SIZE
        self._number = number
        self._closed = False
        self._shared = shared
        self._read = shared.read.setdefault(name, {})

    def digests(self) -> RemoteDigests:
        """Look at every page.  The guest must stand still."""
        header, data = self.deputy.call("digest", purpose=ORACLE, image=self._number)
        both = _flags(data, 2 * self.pages)
        look = header.get("look")
        if not isinstance(look, int):
            raise MachineryError(f"the {self.deputy.name} did not say which look that was")
        return RemoteDigests(self, look, both[: self.pages], both[self.pages :])

    def page(self, number: int) -> bytes:
        """What one page holds now."""
        if not 0 <= number < self.pages:
            raise ValueError(f"page {number} of {self.pages}")
        _, data = self.deputy.call("page", purpose=ORACLE, image=self._number, page=number)
        if len(data) != PAGE_SIZE:
            raise MachineryError(f"the {self.deputy.name} gave {len(data)} bytes for a page")
        return data

    def read(self, first: int, count: int) -> Words:
        """Some pages, for a walk: it reads what describes memory, which is little and packs well."""
        if not 0 < count <= BLOCK_PAGES or first < 0 or first + count > self.pages:
            raise ValueError(f"pages {first}+{count} of {self.pages}")
        numbers = range(first, first + count)
        known = b"".join(self._read.get(number, _UNKNOWN)[0] for number in numbers)
        _, data = self.deputy.call(
            "read", known, purpose=ORACLE, image=self._number, first=first, count=count
        )
        content = unpacked(data, count * (PAGE_SIZE + 1))
        flags, position = content[:count], count
        rows = []
        for number, comes in zip(numbers, flags, strict=True):
            if comes:
                page = content[position : position + PAGE_SIZE]
                position += PAGE_SIZE
                if len(self._read) < _MOST_READ or number in self._read:
                    self._read[number] = (_digest(page, self.key), page)
            else:
                page = self._read.get(number, _UNKNOWN)[1]
            rows.append(page)
        if position != len(content) or any(len(page) != PAGE_SIZE for page in rows):
            raise MachineryError(f"the {self.deputy.name} gave {len(content)} bytes for {count} pages")
        return np.frombuffer(b"".join(rows), dtype="<u8").reshape(count, WORDS)

    def blocks_with(self, needle: bytes) -> Iterator[tuple[int, Words]]:
        """(first page, words) of every page that has these bytes in it: looked for over there."""
        header, _ = self.deputy.call("search", needle, purpose=ORACLE, image=self._number)
        numbers = header.get("pages")
        if not isinstance(numbers, list) or not all(isinstance(n, int) for n in numbers):
            raise MachineryError(f"the {self.deputy.name} did not say where it found anything")
        for number in sorted(set(numbers)):
            yield number, self.read(number, 1)

    def again(self) -> RemoteImage:
        """Another object for this image, for use in another thread; closing it closes nothing."""
        same = RemoteImage(self.deputy, self._number, self.name, self.size, self._shared)
        same._closed = True
        return same

    def compared_with(self, destination: FarImage) -> Comparison:
        """Compare with the block of this name on the other host; both guests must stand still."""
        assert isinstance(destination, RemoteImage)
        if self.size != destination.size:
            raise MachineryError(
                f"images of different size: {self.name} has {self.size} bytes on the source, "
                f"{destination.size} on the destination"
            )
        with ThreadPoolExecutor(2, "look") as pool:
            looks = list(pool.map(lambda image: image.digests(), (self, destination)))
        try:
            return _compare(*looks)
        finally:
            for look in looks:
                look.forget()

    def close(self) -> None:
        """Let go of the image; may be called twice."""
        if not self._closed and not self.deputy.is_lost:
            self._closed = True
            self.deputy.call("close", image=self._number)


def _digest(content: bytes, key: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES, key=key).digest()


def _flags(data: bytes, count: int) -> Flags:
    content = unpacked(data, count)
    if len(content) != count:
        raise MachineryError(f"a remote host gave {len(content)} flags for {count} pages")
    flags: Flags = np.frombuffer(content, dtype=np.uint8) != 0
    return flags


def _compare(source: RemoteDigests, destination: RemoteDigests) -> Comparison:
    differ = source.zero ^ destination.zero
    both = ~source.zero & ~destination.zero
    if both.any():
        suspects = np.flatnonzero(both & _suspected(source, destination, both))
        if suspects.size:
            unequal = (source.of_pages(suspects) != destination.of_pages(suspects)).any(axis=1)
            differ[suspects[unequal]] = True
    return Comparison(source.image.pages, np.flatnonzero(differ), source.zero, destination.zero, source.hole)


def _suspected(source: RemoteDigests, destination: RemoteDigests, wanted: Flags) -> Flags:
    """The pages of chunks that are not the same on both sides."""
    import zlib

    question = zlib.compress(wanted.astype(np.uint8).tobytes(), 1)
    here, there = (
        np.frombuffer(side.chunks(question), dtype="<u8").reshape(-1, 2) for side in (source, destination)
    )
    unequal: Flags = np.repeat((here != there).any(axis=1), CHUNK_PAGES)[: len(wanted)]
    return unequal
