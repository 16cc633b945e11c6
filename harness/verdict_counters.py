# SPDX-License-Identifier: GPL-2.0-or-later
"""What the device's counters say that no page shows.  Pure: no input, no output, no clock."""

from __future__ import annotations

from collections.abc import Iterator

from harness.verdict_case import JudgeInput
from harness.verdict_finding import Finding


def counter_findings(case: JudgeInput) -> Iterator[Finding]:
    """Held against each other, and against what a guest with a right driver can report."""
    if case.statistics is None or case.arm != "info":
        return
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
    if isinstance(strange, int) and strange > 0:
        # Left alone by the device, so memory is right. But a free page is memory: either the
        # driver reports holes, or the device does not find the memory behind a frame.
        yield Finding(
            "reported-not-memory",
            "record",
            f"{strange} frames were reported free that are no memory of this migration",
            strange,
        )
