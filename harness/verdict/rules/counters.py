# SPDX-License-Identifier: GPL-2.0-or-later
"""What the device's counters say that no page shows: held against each other, and against the witness."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from harness.memory.record import Accept, Block
from harness.memory.walk import to_pages
from harness.verdict.case import JudgeInput, RequestWitness
from harness.verdict.context import Context
from harness.verdict.finding import Finding
from harness.verdict.registry import rule

#: Counted where the record ends, for the record alone.
_RECORD_ALONE: Final = frozenset({"dirty-pages", "dirty-bits"})


@rule(
    "record",
    {"property-disagrees": "the device's property says other numbers over QMP than its record does"},
)
def property_disagrees(case: JudgeInput, _: Context) -> Iterator[Finding]:
    """What a management tool is told is what the record says, once QEMU has completed."""
    if case.statistics is None or case.arm != "info" or case.counters is None:
        return
    said, recorded = case.counters, case.totals or {}
    other = {key: (value, said.get(key)) for key, value in recorded.items() if said.get(key) != value}
    wrong = {key: pair for key, pair in other.items() if key not in _RECORD_ALONE}
    if wrong:
        words = ", ".join(f"{key} {there!r} and not {here!r}" for key, (here, there) in sorted(wrong.items()))
        text = f"the device's property says {words}, as its record does"
        yield Finding("property-disagrees", "record", text, len(wrong))


@rule(
    "record",
    {
        "dirty-count-disagrees": "QEMU's count of dirty pages is not the number of bits that are set. By "
        "that count QEMU decides when to stop the guest"
    },
)
def dirty_count_disagrees(case: JudgeInput, _: Context) -> Iterator[Finding]:
    """The number decides when the migration stops the guest, and for how long."""
    if case.statistics is None or case.arm != "info":
        return
    pages, bits = case.statistics.get("dirty-pages"), case.statistics.get("dirty-bits")
    if pages != bits:
        text = f"QEMU counts {pages!r} dirty pages, and {bits!r} bits are set in its bitmaps"
        yield Finding("dirty-count-disagrees", "record", text)


@rule(
    "expectation",
    {"invalid-max": "the device found more buffers that break the protocol than `expect.invalid_max`"},
    stage="record",
)
def invalid_max(case: JudgeInput, _: Context) -> Iterator[Finding]:
    """The driver keeps to the protocol, as far as the scenario demands it."""
    if case.statistics is None or case.arm != "info":
        return
    invalid, most = case.statistics.get("invalid", 0), case.expect.invalid_max
    if most is not None and isinstance(invalid, int) and invalid > most:
        text = (
            f"the device found {invalid} buffers of the driver's to break the protocol, "
            f"expected at most {most}"
        )
        yield Finding("invalid-max", "expectation", text, invalid)


@rule(
    "record",
    {
        "reported-not-memory": "frames were reported that are no memory of the migration; the device lets "
        "them alone, but a free page is memory. Of memory that both hosts map and that is not migrated "
        "(`guest.shared`) as many may be reported as the outside walk has seen free there; none at all is "
        "`inconclusive`, as then nothing shows that they are let alone"
    },
)
def reported_not_memory(case: JudgeInput, _: Context) -> Iterator[Finding]:
    """Left alone by the device, so memory is right. But a free page is memory.

    Either the driver reports holes, or the device does not find the memory behind a frame.
    """
    if case.statistics is None or case.arm != "info":
        return
    strange = case.statistics.get("bad-pages", 0)
    if isinstance(strange, int) and strange > free_where_it_is(case):
        text = f"{strange} frames were reported free that are no memory of this migration"
        yield Finding("reported-not-memory", "record", text, strange)


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
