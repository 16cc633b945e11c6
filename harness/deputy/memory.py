# SPDX-License-Identifier: GPL-2.0-or-later
"""The images that are open on this machine, and what was found in them."""

from __future__ import annotations

import struct
import zlib

from . import qemus
from .images import DIGEST, PAGE, RUN, WORD, ImageFile, Taken, chunk_digests, digest_all, page_digest, same

_MOST_FOUND = 1000
#: For what is worth some time: tables of the guest's kernel.
_BEST = 9

_Blocks = list[tuple[str, int, int]]


class MemoryLooks:
    """Images and looks at them, each known by a number."""

    def __init__(self) -> None:
        self._key = b""
        self._images: dict[int, ImageFile] = {}
        self._taken: dict[int, Taken] = {}
        self._next = 1

    def set_key(self, key: bytes) -> None:
        """The secret of all digests of this run: nobody can look for two contents with the same."""
        self._key = key

    def open(self, pid: int, blocks: _Blocks) -> dict[str, int]:
        """Open the blocks of a QEMU that are files: their numbers, by name."""
        return {name: self._add(image) for name, image in qemus.memory(pid, blocks).items()}

    def copy(self, pid: int, blocks: _Blocks) -> tuple[dict[str, int], dict[str, str]]:
        """Copy blocks that are no files out of a QEMU that stands still; and why some could not be."""
        found, failed = {}, {}
        for name, address, used in blocks:
            try:
                found[name] = self._add(qemus.anonymous(pid, name, address, used))
            except (OSError, ValueError) as error:
                failed[name] = getattr(error, "strerror", None) or str(error)
        return found, failed

    def _add(self, image: ImageFile) -> int:
        self._images[self._number()] = image
        return self._next - 1

    def _number(self) -> int:
        self._next += 1
        return self._next - 1

    def close(self, image: int) -> None:
        """Close an image."""
        self._images.pop(image).close()

    def digest(self, image: int) -> tuple[int, bytes]:
        """Look at every page: the look's number, and flags (zero, then hole) of a byte a page, compressed."""
        number = self._number()
        taken = self._taken[number] = digest_all(self._images[image], self._key)
        return number, zlib.compress(bytes(taken.zero + taken.hole), 1)

    def drop(self, look: int) -> None:
        """Forget a look."""
        self._taken.pop(look, None)

    def same(self, before: int, after: int) -> bytes:
        """Which pages held the same at both looks, as flags, compressed."""
        return zlib.compress(bytes(same(self._taken[before], self._taken[after])), 1)

    def chunks(self, look: int, chunk: int, wanted: bytes) -> bytes:
        """Digests of chunks over those pages that are wanted."""
        taken = self._taken[look]
        flags = zlib.decompressobj().decompress(wanted, len(taken.zero) + 1)
        if len(flags) != len(taken.zero):
            raise ValueError("the flags are not one a page")
        return chunk_digests(taken, flags, chunk, self._key)

    def pages(self, look: int, numbers: bytes) -> bytes:
        """Digests of single pages, by their numbers."""
        taken = self._taken[look]
        return b"".join(
            bytes(taken.digests[page * DIGEST : page * DIGEST + DIGEST])
            for (page,) in struct.iter_unpack("<I", numbers)
        )

    def firsts(self, look: int, numbers: bytes) -> bytes:
        """First words of single pages, by their numbers."""
        taken = self._taken[look]
        return b"".join(
            bytes(taken.firsts[page * WORD : page * WORD + WORD])
            for (page,) in struct.iter_unpack("<I", numbers)
        )

    def read(self, image: int, first: int, count: int, known: bytes) -> bytes:
        """Some pages as they are now, of which those are left out whose digest is the one that is known.

        Compressed: a flag of a byte for each page, whether it comes; then those that come.
        """
        data = self._images[image].read(first, count)
        flags, parts = bytearray(count), [b""]
        for row in range(count):
            content = data[row * PAGE : row * PAGE + PAGE]
            if page_digest(content, self._key) != known[row * DIGEST : row * DIGEST + DIGEST]:
                flags[row] = 1
                parts.append(content)
        parts[0] = bytes(flags)
        return zlib.compress(b"".join(parts), _BEST)

    def search(self, image: int, needle: bytes) -> list[int]:
        """The pages that have these bytes in them; a needle across two pages is not found."""
        looked = self._images[image]
        found: list[int] = []
        for start, length in looked.extents():
            for first in range(start, start + length, RUN):
                data = looked.read(first, min(RUN, start + length - first))
                place = data.find(needle)
                while place >= 0 and len(found) < _MOST_FOUND:
                    if place % PAGE + len(needle) <= PAGE:
                        found.append(first + place // PAGE)
                    place = data.find(needle, place + 1)
        return found

    def page(self, image: int, number: int) -> bytes:
        """What a page holds now."""
        return self._images[image].read(number, 1)
