# SPDX-License-Identifier: GPL-2.0-or-later
"""What a page held, in 64 bits: to tell later whether it still holds the same.

"Unchanged since the request" is decided by two digests of the same page, one
taken while the guest was held at the request, one at switch-over.  XXH3 is not
cryptographic; the guest does not know that its pages are hashed, and two
contents share a digest once in 2^64.  It is also as fast as reading (measured:
within a factor of 1.5), which a vectorised sum in numpy was not.

What equal digests do *not* say: that nobody wrote in between.  A page that was
changed and changed back has held its content; docs/oracle.md argues about it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import xxhash

from harness.errors import MachineryError
from harness.memory.access import Image, PageDigests, PageNumbers
from harness.memory.image import BLOCK_PAGES, Flags, RamImage, Words, block_runs
from harness.memory.spill import on_disk
from harness.units import PAGE_SIZE

Digests = npt.NDArray[np.uint64]

#: The digest of a page of zeros, and so of every hole.
ZERO_DIGEST = np.uint64(xxhash.xxh3_64_intdigest(bytes(PAGE_SIZE)))

_STARTS = tuple(range(0, BLOCK_PAGES * PAGE_SIZE, PAGE_SIZE))


def page_digests(image: RamImage, wanted: Flags | None = None) -> Digests:
    """One digest a page; a hole costs nothing.  The digest of a page that is not wanted means nothing."""
    digests = np.full(image.pages, ZERO_DIGEST, dtype=np.uint64)
    for first, words in _blocks(image, wanted):
        _digest(words, digests[first : first + len(words)], None if wanted is None else wanted[first:])
    return digests


def _blocks(image: RamImage, wanted: Flags | None) -> Iterator[tuple[int, Words]]:
    if wanted is None:
        yield from image.blocks()
        return
    for first, count in block_runs(~image.holes(coarse=True) & wanted):
        yield first, image.read(first, count)


def empty_digests(pages: int) -> Digests:
    """The digests of so many pages of zeros."""
    return np.full(pages, ZERO_DIGEST, dtype=np.uint64)


def digest_rows(words: Words, into: Digests) -> None:
    """The digest of each page of a block that was read."""
    _digest(words, into)


def _digest(words: Words, into: Digests, wanted: Flags | None = None) -> None:
    digest = xxhash.xxh3_64_intdigest
    count = len(words)
    view = words.data.cast("B")
    if wanted is None:
        pages = (digest(view[start : start + PAGE_SIZE]) for start in _STARTS[:count])
        into[:] = np.fromiter(pages, dtype=np.uint64, count=count)
        return
    for row in np.flatnonzero(wanted[:count]).tolist():
        into[row] = digest(view[row * PAGE_SIZE : (row + 1) * PAGE_SIZE])


def page_marks(image: RamImage) -> tuple[Digests, Digests]:
    """The digest of every page, and its first word: what a formula's content is recognised by."""
    digests = np.full(image.pages, ZERO_DIGEST, dtype=np.uint64)
    firsts = np.zeros(image.pages, dtype=np.uint64)
    for first, words in image.blocks():
        here = slice(first, first + len(words))
        _digest(words, digests[here])
        firsts[here] = words[:, 0]
    return digests, firsts


def zero_flags(digests: Digests) -> Flags:
    """Which pages held nothing but zeros when the digests were taken."""
    flags: Flags = digests == ZERO_DIGEST
    return flags


class LocalDigests:
    """One look at an image of this machine."""

    def __init__(self, values: Digests, firsts: Digests | None = None) -> None:
        self._values = values
        self._firsts = firsts

    @property
    def zero(self) -> Flags:
        """Which pages held nothing but zeros."""
        return zero_flags(self._values)

    def unchanged(self, later: PageDigests) -> Flags:
        """Which pages held the same content when ``later`` was taken."""
        if not isinstance(later, LocalDigests):
            raise MachineryError("looks at two different images say nothing of a change")
        same: Flags = self._values == later._values
        return same

    def marks(self, pages: PageNumbers) -> tuple[Digests, Digests]:
        """The first words of some pages, and their digests."""
        assert self._firsts is not None
        return self._firsts[pages], self._values[pages]

    def digest(self, content: bytes) -> int:
        """The digest that a page with this content has."""
        return xxhash.xxh3_64_intdigest(content)

    def spilt(self, folder: Path) -> LocalDigests:
        """These digests, with their arrays on disk."""
        firsts = None if self._firsts is None else on_disk(self._firsts, folder)
        return LocalDigests(on_disk(self._values, folder), firsts)


def look(image: Image, wanted: Flags | None = None, *, marks: bool = False) -> PageDigests:
    """Digests of every page, made where the image is; the guest must stand still.

    The digest of a page that is not wanted means nothing.  ``marks``: first words are kept as well.
    """
    if not isinstance(image, RamImage):
        return image.digests()
    return LocalDigests(*page_marks(image)) if marks else LocalDigests(page_digests(image, wanted))


class RequestDigests:
    """The digests taken at each request, by request id and block.

    Costs 0.4 % of the guest's memory a request: :meth:`spill` puts older ones on disk.
    """

    def __init__(self) -> None:
        self._taken: dict[int, dict[str, PageDigests]] = {}

    def take(self, request: int, images: Mapping[str, Image]) -> None:
        """Digest every image; the guest is held at the request with this id."""
        self._taken[request] = {block: look(image, marks=True) for block, image in images.items()}

    def spill(self, folder: Path, *, but: int) -> None:
        """Put everything but the last ``but`` requests' digests on disk."""
        for request in self.requests[: -but or None]:
            self._taken[request] = {
                block: one.spilt(folder) if isinstance(one, LocalDigests) else one
                for block, one in self._taken[request].items()
            }

    @property
    def requests(self) -> tuple[int, ...]:
        """The ids for which there are digests, oldest first."""
        return tuple(self._taken)

    def at(self, request: int) -> Mapping[str, PageDigests] | None:
        """The digests that were taken at this request, by block."""
        return self._taken.get(request)

    def zero_at(self, request: int) -> dict[str, Flags]:
        """By block, which pages held nothing at this request; empty if nothing was taken."""
        return {block: digests.zero for block, digests in self._taken.get(request, {}).items()}

    def unchanged(self, now: Mapping[str, PageDigests]) -> dict[int, dict[str, Flags]]:
        """For each request and block: which pages hold now what they held then."""
        return {
            request: {block: then.unchanged(now[block]) for block, then in taken.items() if block in now}
            for request, taken in self._taken.items()
        }
