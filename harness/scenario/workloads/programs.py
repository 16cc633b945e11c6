# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests in which programs are at work that people run: compile, database."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import Field

from harness.scenario.values import MIB, Share, Size
from harness.scenario.workloads.base import Filling, Workload
from harness.units import Percent

if TYPE_CHECKING:
    from harness.memory.formula import Generations

#: How long one file may take to compile, emulated on a busy machine.
_SECONDS_PER_FILE: Final = 10.0


class Compile(Workload):
    """A C library's sources are compiled over and over; each object must come out as the first time."""

    work_unit = "files"
    stands_still = False
    needs_compiler = True

    kind: Literal["compile"] = "compile"
    """Which workload."""
    jobs: Annotated[int, Field(ge=1, le=64)] = 2
    """Compilers at a time."""
    files: Annotated[int, Field(ge=1, le=1000)] = 12
    """Files, drawn by the seed, that are compiled again and again."""
    keep: Size = 16 * MIB
    """Memory with known content that it owns and verifies afterwards."""

    def load_seconds(self, noise: int) -> float:
        """Each file is compiled once while it is loaded."""
        return super().load_seconds(noise) + _SECONDS_PER_FILE * self.files

    def generations(self, seed: int, noise: int, steps: int) -> Generations:
        """What it keeps; its objects are compared in the guest."""
        from harness.memory import formula

        return formula.unchanged(self.keep)


class Database(Filling):
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

    def generations(self, seed: int, noise: int, steps: int) -> Generations:
        """What it keeps; its rows are checked in the guest."""
        from harness.memory import formula

        return formula.unchanged(self.keep)
