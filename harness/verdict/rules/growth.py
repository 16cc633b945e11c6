# SPDX-License-Identifier: GPL-2.0-or-later
"""What a QEMU keeps of migrations that were given up: queues, buffers, sockets that nobody frees."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from harness.units import human_size
from harness.verdict.case import JudgeInput
from harness.verdict.context import Context
from harness.verdict.finding import Finding
from harness.verdict.registry import doubt, rule

#: After so many migrations QEMU has all that it keeps for the next one: threads, arenas, caches.
_WARM: Final = 3
#: One step may be chance.
_STEPS: Final = 3


@dataclass(frozen=True, slots=True)
class QemuMemory:
    """What the source's QEMU has of its own, after each migration that was given up, in order."""

    #: Bytes.
    after_each: tuple[int, ...]
    #: Open files.
    files: tuple[int, ...] = ()


@rule(
    "expectation",
    {
        "qemu-grows": "the source's QEMU has more memory of its own after each migration that was given up, "
        "by more than `expect.qemu_growth_max`"
    },
    needs=(QemuMemory,),
)
def qemu_grows(case: JudgeInput, context: Context) -> Iterator[Finding]:
    """From the third migration on, a migration."""
    most, seen = case.expect.qemu_growth_max, context.fact(QemuMemory).after_each[_WARM - 1 :]
    if most is None or len(seen) <= _STEPS:
        return
    each = (seen[-1] - seen[0]) // (len(seen) - 1)
    if each > most:
        text = (
            f"QEMU's own memory has grown from {human_size(seen[0])} to {human_size(seen[-1])} over "
            f"{len(seen) - 1} migrations that were given up: {human_size(each)} each, expected at most "
            f"{human_size(most)}"
        )
        yield Finding("qemu-grows", "expectation", text)


@rule(
    "expectation",
    {
        "qemu-files-left": "the source's QEMU has more open files after each migration that was given up, by "
        "more than `expect.qemu_files_growth_max`"
    },
    needs=(QemuMemory,),
)
def qemu_files_left(case: JudgeInput, context: Context) -> Iterator[Finding]:
    """From the third migration on: after each but one, where an old file may have been closed."""
    most, seen = case.expect.qemu_files_growth_max, context.fact(QemuMemory).files[_WARM - 1 :]
    if most is None or len(seen) <= _STEPS:
        return
    if sum(after - before > most for before, after in pairwise(seen)) >= len(seen) - 2:
        text = (
            f"QEMU's open files have grown from {seen[0]} to {seen[-1]} over {len(seen) - 1} migrations that "
            f"were given up: expected at most {most} each"
        )
        yield Finding("qemu-files-left", "expectation", text)


@doubt(needs=(QemuMemory,))
def too_few_migrations(case: JudgeInput, context: Context) -> str | None:
    """Whether there was enough to tell."""
    seen = len(context.fact(QemuMemory).after_each)
    expected = case.expect.qemu_growth_max, case.expect.qemu_files_growth_max
    if expected == (None, None) or seen >= _WARM + _STEPS:
        return None
    return f"memory is right, but QEMU's own was seen after {seen} migrations that were given up only"
