# SPDX-License-Identifier: GPL-2.0-or-later
"""A disk that was copied with the guest: the copy holds what the guest left."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from harness.verdict.case import JudgeInput
from harness.verdict.context import Context
from harness.verdict.finding import Finding, Observation
from harness.verdict.registry import rule

COPY_DIFFERS: Final = "disk-copy-differs"


@dataclass(frozen=True, slots=True)
class CopiedDisk:
    """A disk, in pages of 4 KiB as the guest would read them; ``first``: of those that differ."""

    name: str
    pages: int
    differing: int = 0
    first: int | None = None


@dataclass(frozen=True, slots=True)
class CopiedDisks:
    """All that were copied."""

    disks: tuple[CopiedDisk, ...]


@rule(
    "guest",
    {COPY_DIFFERS: "a disk that was copied with the guest holds something else on the destination"},
    needs=(CopiedDisks,),
)
def copies(_: JudgeInput, context: Context) -> Iterator[Finding | Observation]:
    """At switch-over nobody writes, so both images are the same, page by page."""
    for disk in context.fact(CopiedDisks).disks:
        yield Observation("disk-pages-copied", disk.pages)
        if disk.differing:
            text = (
                f"{disk.differing} of the {disk.pages} pages of {disk.name} differ between the source's "
                f"image and its copy, the first is page {disk.first}"
            )
            yield Finding(COPY_DIFFERS, "guest", text, disk.differing)
