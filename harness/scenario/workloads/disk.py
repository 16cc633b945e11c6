# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests that read a disk, through the page cache or past it, or write to it: pagecache, dma, journal."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from harness.scenario.values import MIB, Share, Size
from harness.scenario.workloads.base import Filling, Workload
from harness.units import Percent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.guestview.report import Aftermath
    from harness.memory.formula import Generations, VerifyAnswer


class _DiskReader(Filling):
    """What workloads that read a disk have in common: their pages are the disk's."""

    work_unit = "pages"
    stands_still = False
    reads_disk = True

    def content_seed(self, seed: int) -> int:
        """The disk's: it is the same in all runs."""
        from harness.memory import formula

        return formula.DISK_SEED

    def generations(self, seed: int, noise: int, steps: int) -> Generations:
        """All that was read of the disk."""
        from harness.memory import formula

        return formula.unchanged(noise)


class PageCache(_DiskReader):
    """A disk was read into the page cache, stays there, and is read again at random."""

    kind: Literal["pagecache"] = "pagecache"
    """Which workload."""
    noise: Share = Percent(Decimal(50))
    """How much is read and kept: a size, or a share of the guest's memory."""
    rate: Annotated[int, Field(ge=0, le=10_000_000)] = 4000
    """Pages a second that are read again."""


class Dma(_DiskReader):
    """A disk is read past the page cache, over and over, into memory that only the device writes."""

    kind: Literal["dma"] = "dma"
    """Which workload."""
    noise: Share = Percent(Decimal(10))
    """How much memory the device writes, and how large the disk is: a size, or a share of the guest's
    memory."""
    rate: Annotated[int, Field(ge=0, le=10_000_000)] = 4000
    """Pages a second that are read, 16 at a time."""

    def expected(self, seed: int, noise: int, steps: int = 0) -> VerifyAnswer:
        """Which piece of the disk each piece of memory holds follows from the number of steps."""
        from harness.memory import formula

        return formula.expected_pieces(seed, noise // formula.PAGE // formula.PIECE, steps)


class Journal(Workload):
    """A disk is written, read, flushed and discarded past the page cache, several requests at a time.

    What was acknowledged is known block by block; after the migration the guest reads it back, and the
    host reads the image itself.
    """

    work_unit = "requests"
    stands_still = False
    writes_disk = True
    reports = True

    kind: Literal["journal"] = "journal"
    """Which workload."""
    disk: Annotated[Size, Field(ge=1 * MIB, le=1024 * MIB)] = 16 * MIB
    """How large its disk is."""
    depth: Annotated[int, Field(ge=1, le=32)] = 8
    """Requests at a time."""
    patience: Annotated[int, Field(ge=1, le=600)] = 10
    """After so many seconds of the guest's time a request counts as never answered."""
    keep: Size = 8 * MIB
    """Memory with known content that it owns and verifies afterwards."""

    @property
    def disk_bytes(self) -> int:
        """Its ``disk``."""
        return self.disk

    def generations(self, seed: int, noise: int, steps: int) -> Generations:
        """What it keeps."""
        from harness.memory import formula

        return formula.unchanged(self.keep)

    def facts(self, aftermath: Aftermath) -> Sequence[object]:
        """What its disk holds, held against what was acknowledged."""
        from harness.guestview.journal import Writers, review

        assert aftermath.disk is not None
        writers = Writers.read(aftermath.after, self.depth)
        return (review(aftermath.disk, aftermath.seed, self.disk, self.patience, writers),)
