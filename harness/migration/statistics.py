# SPDX-License-Identifier: GPL-2.0-or-later
"""A migration's numbers, from QEMU's ``query-migrate`` or from libvirt's job statistics.

Both report the same counters of the same QEMU.  QEMU's own answer is the better
one (it has every field), but the source's QEMU lives only for a moment after the
migration; libvirt hands its copy to the destination, where it stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TypeAlias

from harness.errors import DeadlineExceeded, MachineryError

Numbers: TypeAlias = Mapping[str, object]


class MigrationError(MachineryError):
    """Libvirt or QEMU gave the migration up."""


class OutOfTimeError(DeadlineExceeded):
    """The migration has not come to its end within its time, and was cancelled."""


class StuckError(MigrationError):
    """Nothing of the migration moved any more, or QEMU did not answer."""


@dataclass(frozen=True, slots=True)
class MigrationStatistics:
    """What a completed migration cost.  ``sent`` is QEMU's ``ram.transferred``."""

    origin: str
    total_ms: int
    downtime_ms: int
    setup_ms: int
    sent: int
    normal_pages: int
    zero_pages: int
    rounds: int
    multifd_bytes: int
    page_size: int

    def as_dict(self) -> dict[str, object]:
        """Plain values, for the result."""
        return asdict(self)


def _number(where: Numbers, key: str, default: int | None = None) -> int:
    value = where.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int):
        raise MachineryError(f"the migration's statistics have no {key!r}: {sorted(where)}")
    return value


def from_query_migrate(answer: object) -> MigrationStatistics:
    """Read the answer of ``query-migrate`` after completion."""
    if not isinstance(answer, Mapping) or answer.get("status") != "completed":
        raise MachineryError(f"query-migrate does not speak of a completed migration: {answer!r}")
    ram = answer.get("ram")
    if not isinstance(ram, Mapping):
        raise MachineryError("query-migrate says nothing of RAM")
    return MigrationStatistics(
        origin="query-migrate",
        total_ms=_number(answer, "total-time"),
        downtime_ms=_number(answer, "downtime"),
        setup_ms=_number(answer, "setup-time", 0),
        sent=_number(ram, "transferred"),
        normal_pages=_number(ram, "normal"),
        zero_pages=_number(ram, "duplicate"),
        rounds=_number(ram, "dirty-sync-count"),
        multifd_bytes=_number(ram, "multifd-bytes", 0),
        page_size=_number(ram, "page-size"),
    )


def from_job_stats(stats: Numbers) -> MigrationStatistics:
    """Read ``virDomain.jobStats(VIR_DOMAIN_JOB_STATS_COMPLETED)`` of the destination's domain."""
    return MigrationStatistics(
        origin="libvirt",
        total_ms=_number(stats, "time_elapsed"),
        downtime_ms=_number(stats, "downtime"),
        setup_ms=_number(stats, "setup_time", 0),
        sent=_number(stats, "memory_processed"),
        normal_pages=_number(stats, "memory_normal"),
        zero_pages=_number(stats, "memory_constant"),
        rounds=_number(stats, "memory_iteration", 0),
        multifd_bytes=0,
        page_size=_number(stats, "memory_page_size", 4096),
    )


@dataclass(frozen=True, slots=True)
class RamBlock:
    """One RAMBlock as ``info ramblock`` prints it.

    ``address`` is where QEMU has it mapped; None: it does not tell (before 8.1).
    """

    name: str
    used: int
    total: int
    address: int | None


def parse_ramblocks(text: str) -> tuple[RamBlock, ...]:
    """Read the table of ``info ramblock`` (QMP: ``x-query-ramblock``).

    Its columns are found by their headings: QEMU has added to them over time
    (``HVA`` and ``RO`` in 8.1).  A block without a name is no part of the machine, and none of a
    migration: a memory backend that nobody uses.
    """
    lines = text.splitlines()
    if not lines or not {"PSize", "Used", "Total"} <= set(lines[0].split()):
        raise MachineryError(f"'info ramblock' has an unknown form: {lines[:1]!r}")
    # The name is padded on the left and has no spaces; "PSize" values do ("4 KiB").
    headings = lines[0].split()
    tail = headings[headings.index("PSize") + 1 :]
    blocks = []
    for line in lines[1:]:
        cells = line.split()
        name, page_size = cells[: -len(tail) - 2], cells[-len(tail) - 2 : -len(tail)]
        if len(name) != 1 or len(page_size) != 2:
            continue
        row = dict(zip(tail, cells[-len(tail) :], strict=True))
        address = int(row["HVA"], 16) if "HVA" in row else None
        blocks.append(RamBlock(name[0], int(row["Used"], 16), int(row["Total"], 16), address))
    return tuple(blocks)
