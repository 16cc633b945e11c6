# SPDX-License-Identifier: GPL-2.0-or-later
"""``bench.json``: everything that a bench found, for programs.  docs/bench.md describes every field.

Fields are only ever added within version 1.  What could not be measured is null.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.errors import InputError
from harness.report.result import first_problem

BENCH_VERSION = 1
#: Bytes: a bench of thousands of runs has some megabytes.
LARGEST = 256 << 20


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)


class Range(_Part):
    """An interval; ``coverage``: with which probability such intervals hold the true value."""

    low: float
    high: float
    coverage: float


class BenchRun(_Part):
    """One run, whatever came of it."""

    number: int
    """Its place in the order in which runs were made, from 1."""
    repeat: int
    """Which repeat, from 1."""
    seed: int
    """The seed of the run's workload."""
    verdict: str
    """pass, fail, inconclusive; or error, where there was no verdict."""
    reason: str
    """One sentence."""
    counted: bool
    """Whether it enters the numbers: only a pass does."""
    values: dict[str, float | None]
    """Every measure by name; empty without a result."""
    free_blocks: list[int] | None = None
    """Free blocks by order, just before the migration."""
    folder: str
    """The run's folder, below the bench's own."""
    load: float | None = None
    """The machine's load average when it began."""
    replay: str = ""
    """The command that makes it again."""


class BenchPoint(_Part):
    """A scenario at a size in an arm, and all its runs."""

    scenario: str
    arm: str
    memory_bytes: int
    accelerator: str
    runs: list[BenchRun]
    median: dict[str, float | None]
    """The median of each measure, by name, over the runs that count."""
    interval: dict[str, Range | None]
    """The interval of each median, by name of the measure."""


class Contrast(_Part):
    """Two arms of the same scenario and size, by one measure."""

    scenario: str
    memory_bytes: int
    accelerator: str
    measure: str
    first: str
    """The arm in the numerator."""
    second: str
    """The arm in the denominator."""
    quotient: float | None
    """The median of all quotients; null where a value is not positive."""
    interval: Range | None
    p: float
    """Two-sided, by ranks."""
    least_p: float
    """The smallest that so few runs can give."""


class Slope(_Part):
    """By how much a measure grows for each GiB."""

    per_gib: float
    interval: Range | None


class GrowthFit(_Part):
    """measure = fixed + by_total * total + by_used * used."""

    scenario: str
    arm: str
    accelerator: str
    measure: str
    fixed: float
    by_total: Slope | None
    by_used: Slope | None
    explained: float
    runs: int


class Doubling(_Part):
    """What became of a measure when the memory was doubled."""

    scenario: str
    arm: str
    measure: str
    memory_bytes: int
    """The smaller of the two."""
    used_factor: float | None
    """By which factor the memory in use grew."""
    factor: float
    """By which factor the measure grew."""


class Goal(_Part):
    """A goal, and whether it was met."""

    text: str
    scenario: str
    memory_bytes: int
    value: str
    outcome: Literal["met", "missed", "undecided"]


class Overhead(_Part):
    """A whole run beside the least that it takes; seconds."""

    arm: str
    floor: list[float]
    """Two QEMUs over QMP, from the process's start to the completed migration."""
    whole: list[float]
    """The whole command, from its start to the completed migration, in the same order of pairs."""
    held: list[float]
    """For how long the guest of each whole run was held for digests."""
    quotient: float
    quotient_without_holds: float
    interval: Range | None


class BenchDocument(_Part):
    """One bench."""

    version: Literal[1] = 1
    started: str
    """UTC."""
    command: str
    """Repeats it."""
    seed: int
    strict: bool
    """Whether guests were held for digests at each request."""
    host: dict[str, Any]
    """The machine."""
    versions: dict[str, Any]
    """Versions and hashes of every binary."""
    points: list[BenchPoint]
    contrasts: list[Contrast]
    growth: list[GrowthFit]
    doublings: list[Doubling]
    goals: list[Goal]
    overhead: list[Overhead] = []
    notes: list[str] = []
    """What a reader must know of these numbers."""

    def to_json(self) -> str:
        """The document, indented."""
        return self.model_dump_json(indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, name: str = "bench.json") -> BenchDocument:
        """Read one back; :class:`InputError` if it is none of this version."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise InputError(
                f"{name} is not a bench of version {BENCH_VERSION}: {first_problem(error)}",
                hint="it is made by 'freepage bench ... --json', or is bench.json in a bench's folder",
            ) from error
