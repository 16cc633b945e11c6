# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory of a guest, wherever it is: what the oracle asks of it.

An image on this machine is a :class:`harness.memory.image.RamImage`, and is read.
One on another machine (:mod:`harness.hosts.remote_memory`) is asked, and answers in
flags: contents stay where they are, but for single pages.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from harness.memory.image import Flags, RamImage, Words

if TYPE_CHECKING:
    pass


PageNumbers = npt.NDArray[np.int64]


class PageDigests(Protocol):
    """What the pages of one image held at one moment."""

    @property
    def zero(self) -> Flags:
        """Which pages held nothing but zeros."""

    def unchanged(self, later: PageDigests) -> Flags:
        """Which pages held the same at a later look at the same image."""

    def marks(self, pages: PageNumbers) -> tuple[Words, Words]:
        """The first words of some pages, and their digests as :meth:`digest` makes them."""

    def digest(self, content: bytes) -> int:
        """The digest that a page with this content has."""


class FarImage(Protocol):
    """One RAMBlock of a guest on another machine.  Page numbers count from its start."""

    @property
    def name(self) -> str:
        """QEMU's name of the block."""

    @property
    def size(self) -> int:
        """The block's size in bytes."""

    @property
    def pages(self) -> int:
        """The number of the block's pages."""

    def digests(self) -> PageDigests:
        """Look at every page.  The guest must stand still."""

    def compared_with(self, destination: FarImage) -> Comparison:
        """Compare with the block of this name on the other host."""

    def page(self, number: int) -> bytes:
        """What one page holds now."""

    def read(self, first: int, count: int) -> Words:
        """Some pages (at most BLOCK_PAGES) as rows of words: for a walk, which needs few."""

    def blocks_with(self, needle: bytes) -> Iterator[tuple[int, Words]]:
        """(first page, words) of every page that has these bytes in it."""

    def again(self) -> FarImage:
        """Another object for this image, for use in another thread."""

    def close(self) -> None:
        """Let go of the image; may be called twice."""


Image: TypeAlias = RamImage | FarImage


@dataclass(frozen=True, eq=False)
class Comparison:
    """How one block's pages differ between source and destination.  Flags have one entry a page."""

    pages: int
    differing: PageNumbers
    zero_on_source: Flags
    zero_on_destination: Flags
    hole_on_source: Flags
    digests: PageDigests | None = None
    """Of the source's pages, where they were asked for and are read here."""

    @property
    def equal(self) -> bool:
        """Whether every byte is the same."""
        return self.differing.size == 0
