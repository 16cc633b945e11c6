# SPDX-License-Identifier: GPL-2.0-or-later
"""The workloads of a scenario: what the guest does with its memory."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, ClassVar, Final, Literal, TypeAlias

from pydantic import Field

from harness.scenario.registry import OneOf, Registry
from harness.scenario.values import MIB, Section, Share, Size
from harness.units import Percent


class Workload(Section):
    """What every workload has."""

    kind: str
    """Which workload."""

    #: What its counter of work counts; empty: it does none.
    work_unit: ClassVar[str] = ""
    #: Once it is loaded it neither allocates nor frees.
    stands_still: ClassVar[bool] = True
    #: How long its loading may take, emulated on a busy machine.
    load_seconds_per_mib: ClassVar[float] = 0.2
    #: The guest that has what it needs.
    image: ClassVar[Literal["small", "debian"]] = "small"
    #: It reads a disk that holds the formula, of the size of its noise.
    reads_disk: ClassVar[bool] = False

    @classmethod
    def __pydantic_init_subclass__(cls, **_: object) -> None:
        """Register it by its kind."""
        WORKLOADS.add(cls)


#: By the word that chooses them.
WORKLOADS: Final[Registry[Workload]] = Registry(Workload, key="kind", noun="workload")


class Idle(Workload):
    """The guest has booted and does nothing."""

    kind: Literal["idle"] = "idle"
    """Which workload."""
    keep: Size | None = None
    """Memory with known content that it owns and verifies afterwards."""


class Freed(Workload):
    """Memory was filled with noise and freed again: free, but not zero."""

    kind: Literal["freed"] = "freed"
    """Which workload."""
    noise: Share = Percent(Decimal(73))
    """How much is filled: a size, or a share of the guest's memory."""
    keep: Size = 16 * MIB
    """Memory with known content that it owns and verifies afterwards."""


class Fragmented(Workload):
    """As freed, but only every other page: free memory is single pages between pages in use."""

    kind: Literal["fragmented"] = "fragmented"
    """Which workload."""
    noise: Share = Percent(Decimal(73))
    """How much is filled: a size, or a share of the guest's memory. Half of it stays in use."""


class Churn(Workload):
    """Pages are written, freed and allocated again for as long as the migration runs."""

    work_unit = "pages"
    stands_still = False

    kind: Literal["churn"] = "churn"
    """Which workload."""
    noise: Share = Percent(Decimal(40))
    """How much memory it works on: a size, or a share of the guest's memory."""
    rate: Annotated[int, Field(ge=1, le=10_000_000)] = 4000
    """Pages a second that it writes, frees or allocates."""


class Rewrite(Workload):
    """The same pages are written for as long as the migration runs; none is freed, none allocated."""

    work_unit = "pages"

    kind: Literal["rewrite"] = "rewrite"
    """Which workload."""
    noise: Share = Percent(Decimal(40))
    """How much memory it works on: a size, or a share of the guest's memory."""
    rate: Annotated[int, Field(ge=1, le=10_000_000)] = 4000
    """Pages a second that it writes."""


class _DiskReader(Workload):
    """What workloads that read a disk have in common."""

    work_unit = "pages"
    stands_still = False
    reads_disk = True


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
    """How much memory the device writes: a size, or a share of the guest's memory."""
    rate: Annotated[int, Field(ge=0, le=10_000_000)] = 4000
    """Pages a second that are read, 16 at a time."""


class Compile(Workload):
    """A C library's sources are compiled over and over; each object must come out as the first time."""

    work_unit = "files"
    stands_still = False

    kind: Literal["compile"] = "compile"
    """Which workload."""
    jobs: Annotated[int, Field(ge=1, le=64)] = 2
    """Compilers at a time."""
    files: Annotated[int, Field(ge=1, le=1000)] = 12
    """Files, drawn by the seed, that are compiled again and again."""
    keep: Size = 16 * MIB
    """Memory with known content that it owns and verifies afterwards."""


class Database(Workload):
    """SQLite on the guest's disk: money moves between accounts; none may be lost, every row must be right."""

    work_unit = "transactions"
    stands_still = False
    load_seconds_per_mib = 20.0
    image = "debian"

    kind: Literal["database"] = "database"
    """Which workload."""
    noise: Share = Percent(Decimal(6))
    """How large the database is: a size, or a share of the guest's memory."""
    rate: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    """Transactions a second at most; 0: as many as go."""
    keep: Size = 16 * MIB
    """Memory with known content that it owns and verifies afterwards."""


AnyWorkload: TypeAlias = Annotated[Workload, OneOf(WORKLOADS)]
