# SPDX-License-Identifier: GPL-2.0-or-later
"""What the device's counters say that no page shows.  Pure: no input, no output, no clock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np

from harness.memory.record import Accept, Block
from harness.memory.walk import to_pages
from harness.verdict.case import JudgeInput, RequestWitness
from harness.verdict.finding import Finding


def free_where_it_is(case: JudgeInput) -> int:
    """How many frames of memory that is not migrated can have been reported, by the outside walk.

    Summed over the requests that were answered, as the device's count is.
    """
    answered = {entry.id for entry in case.log if isinstance(entry, Accept)}
    return sum(
        _free_frames(block, case.witnesses.get(one)) for block in case.left_where_it_is for one in answered
    )


def _free_frames(block: Block, seen: RequestWitness | None) -> int:
    walks = [] if seen is None else [walk for walk in (seen.at_request, seen.at_answer) if walk is not None]
    if not walks:
        return block.pages
    free = np.logical_or.reduce([walk.free for walk in walks])
    return int(np.count_nonzero(to_pages(free, block.gpa, block.pages)))


#: Counted where the record ends, for the record alone.
_RECORD_ALONE: Final = frozenset({"dirty-pages", "dirty-bits"})


def _property(recorded: Mapping[str, object], said: Mapping[str, object] | None) -> Iterator[Finding]:
    """What a management tool is told is what the record says, once QEMU has completed."""
    if said is None:
        return
    other = {key: (value, said.get(key)) for key, value in recorded.items() if said.get(key) != value}
    wrong = {key: pair for key, pair in other.items() if key not in _RECORD_ALONE}
    if wrong:
        words = ", ".join(f"{key} {there!r} and not {here!r}" for key, (here, there) in sorted(wrong.items()))
        yield Finding(
            "property-disagrees",
            "record",
            f"the device's property says {words}, as its record does",
            len(wrong),
        )


def counter_findings(case: JudgeInput) -> Iterator[Finding]:
    """Held against each other, and against what a guest with a right driver can report."""
    if case.statistics is None or case.arm != "info":
        return
    yield from _property(case.totals or {}, case.counters)
    pages, bits = case.statistics.get("dirty-pages"), case.statistics.get("dirty-bits")
    if pages != bits:
        # The number decides when the migration stops the guest, and for how long.
        yield Finding(
            "dirty-count-disagrees",
            "record",
            f"QEMU counts {pages!r} dirty pages, and {bits!r} bits are set in its bitmaps",
        )
    invalid, most = case.statistics.get("invalid", 0), case.expect.invalid_max
    if most is not None and isinstance(invalid, int) and invalid > most:
        yield Finding(
            "invalid-max",
            "expectation",
            f"the device found {invalid} buffers of the driver's to break the protocol, "
            f"expected at most {most}",
            invalid,
        )
    strange = case.statistics.get("bad-pages", 0)
    if isinstance(strange, int) and strange > free_where_it_is(case):
        # Left alone by the device, so memory is right. But a free page is memory: either the
        # driver reports holes, or the device does not find the memory behind a frame.
        yield Finding(
            "reported-not-memory",
            "record",
            f"{strange} frames were reported free that are no memory of this migration",
            strange,
        )
