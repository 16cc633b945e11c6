# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest's memory is made of on the host, and memory that comes by a device."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, model_validator
from pydantic_core import PydanticCustomError

from harness.scenario.values import MIB, Section, Size
from harness.units import format_size

#: Linux takes memory into use in blocks of this size.
MEMORY_BLOCK: Final = 128 * MIB


def _pages(size: int) -> int:
    if size % 4096:
        raise ValueError(f"expected whole pages of 4KiB, got {format_size(size)!r}")
    return size


def _power(size: int) -> int:
    if size & (size - 1) or size < MIB:
        raise ValueError(f"expected a power of two from 1MiB on, got {format_size(size)!r}")
    return size


class MemoryBackend(Section):
    """What QEMU makes the guest's memory of."""

    type: Literal["file", "memfd", "ram"] = "file"
    """file: one in the host's memory folder; memfd: one without a name; ram: anonymous memory, which QEMU has
    in no file, or with `share: true` in one that nobody else can open."""
    share: bool | None = None
    """Whether others may map it. false: QEMU has it for itself alone (MAP_PRIVATE), and the oracle reads it
    out of the stopped QEMUs. null: all but ram."""
    offset: Annotated[Size, AfterValidator(_pages)] | None = None
    """file: where in the file it begins (QEMU's offset=, from 8.1 on)."""
    prealloc: bool = False
    """Whether the host's memory is taken before the guest starts."""
    page: Annotated[Size, AfterValidator(_power)] | None = None
    """Size of the host's huge pages to make it of, which the host has to have reserved; null: plain pages.
    For root."""

    @property
    def shared(self) -> bool:
        """Whether the oracle can map it."""
        return self.share if self.share is not None else self.type != "ram"

    @model_validator(mode="after")
    def _possible(self) -> MemoryBackend:
        wrong = {
            "offset": (self.offset is not None and self.type != "file", "expected only with type: file"),
            "page": (
                self.page is not None and (self.offset is not None or self.type == "ram"),
                "expected only with type file or memfd, and without an offset",
            ),
        }
        for key, (holds, text) in wrong.items():
            if holds:
                raise PydanticCustomError("in-entry", text, {"path": (key,)})
        return self


def memory_blocks(size: int) -> int:
    """Raise ValueError unless a size is whole memory blocks of the guest's."""
    if size % MEMORY_BLOCK:
        raise ValueError(f"expected whole 128MiB, the guest's memory block, got {format_size(size)!r}")
    return size


class VirtioMem(Section):
    """Memory beside `memory` that a virtio-mem device gives to the guest and takes back, block by block."""

    size: Annotated[Size, AfterValidator(memory_blocks)]
    """The most that it can be: whole 128MiB."""
    block: Annotated[Size, AfterValidator(_power)] = 2 * MIB
    """The blocks in which it comes and goes: a power of two from 2MiB on."""
    plugged: Size
    """How much of it is plugged in when the guest has booted: whole blocks."""

    @model_validator(mode="after")
    def _fits(self) -> VirtioMem:
        if self.block < 2 * MIB or self.size % self.block:
            raise PydanticCustomError(
                "in-entry", "expected at least 2MiB, and size in whole blocks", {"path": ("block",)}
            )
        if self.plugged % self.block or self.plugged > self.size:
            raise PydanticCustomError(
                "in-entry", "expected whole blocks, and at most size", {"path": ("plugged",)}
            )
        return self
