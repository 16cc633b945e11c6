# SPDX-License-Identifier: GPL-2.0-or-later
"""What only the kernel's symbols and types tell: per-cpu lists, locks, the rest of the names.

A walk works without: then pages on per-cpu lists are called loose, and a list
that was cut in the middle of an operation cannot be told from a corrupt one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from harness.memory.walk import btf
from harness.memory.walk.errors import WalkError
from harness.memory.walk.exports import find_exports
from harness.memory.walk.kallsyms import find_symbols
from harness.memory.walk.pagetables import AddressSpace
from harness.memory.walk.vmcoreinfo import VmcoreInfo

_SYMBOLS = ("__start_BTF", "__stop_BTF", "__per_cpu_offset", "__cpu_possible_mask")
_LONGEST_BTF = 64 << 20
_MOST_CPUS = 1 << 13


@dataclass(frozen=True, slots=True)
class PerCpuLayout:
    """``struct per_cpu_pages``, and how to get to it."""

    pageset: int
    """Where a zone has its per-cpu pointer."""
    count: int
    lists: int
    how_many: int
    offsets: int
    """The address of ``__per_cpu_offset``."""
    possible: int
    """The address of ``__cpu_possible_mask``."""
    cpus: int
    """The bits that it has."""


@dataclass(frozen=True)
class Extras:
    """All of it; a part that a kernel does not have is None or empty."""

    zone_lock: int | None = None
    zones: tuple[str, ...] = ()
    page_types: Mapping[str, int] | None = None
    reserved: int | None = None
    per_cpu: PerCpuLayout | None = None
    gaps: tuple[str, ...] = ()
    """What could not be learned, and why."""


def learn_extras(space: AddressSpace, info: VmcoreInfo) -> Extras:
    """Read symbols and types; never fails, as nothing depends on it."""
    gaps: list[str] = []
    try:
        symbols = _learn_symbols(space, info, _SYMBOLS)
        types = _types(space, symbols)
    except WalkError as error:
        return Extras(gaps=(f"symbols and types of the kernel are not known: {error}",))

    def offset(name: str, member: str) -> int | None:
        try:
            return types.offset(name, member)
        except WalkError as error:
            gaps.append(str(error))
            return None

    def enum(name: str) -> Mapping[str, int] | None:
        try:
            return types.enum(name)
        except WalkError:
            return None  # older kernels do not have all of them: no gap

    flags = enum("pageflags") or {}
    per_cpu: PerCpuLayout | None = None
    try:
        per_cpu = _per_cpu(types, symbols)
    except WalkError as error:
        gaps.append(f"per-cpu lists cannot be read: {error}")
    return Extras(
        offset("zone", "lock"),
        _zone_names(enum("zone_type") or {}),
        enum("pagetype"),
        flags.get("PG_reserved"),
        per_cpu,
        tuple(gaps),
    )


def _learn_symbols(space: AddressSpace, info: VmcoreInfo, wanted: Collection[str]) -> Mapping[str, int]:
    """The addresses of these symbols, by the kernel's table of symbols, or else by what it exports."""
    found = find_symbols(space, info, wanted)
    missing = [name for name in wanted if name not in found]
    return {**find_exports(space, info, missing), **found} if missing else found


def _types(space: AddressSpace, symbols: Mapping[str, int]) -> btf.Btf:
    start, stop = symbols.get("__start_BTF"), symbols.get("__stop_BTF")
    if start is None or stop is None:
        raise WalkError("btf", "the kernel's BTF", "is not there")
    if not btf.HEADER.size <= stop - start <= _LONGEST_BTF:
        raise WalkError("btf", "the kernel's BTF", f"is said to be of {stop - start} bytes")
    return btf.Btf(space.read(start, stop - start, "the kernel's BTF"))


def _per_cpu(types: btf.Btf, symbols: Mapping[str, int]) -> PerCpuLayout:
    for name in ("__per_cpu_offset", "__cpu_possible_mask"):
        if name not in symbols:
            raise WalkError("kallsyms", "the kernel's symbol table", f"has no {name}")
    cpus = 8 * types.size("cpumask")
    how_many = types.elements("per_cpu_pages", "lists")
    if not 0 < cpus <= _MOST_CPUS or not 0 < how_many <= 256:
        raise WalkError("btf", "the kernel's BTF", f"says {cpus} processors, {how_many} lists each")
    return PerCpuLayout(
        types.offset("zone", "per_cpu_pageset"),
        types.offset("per_cpu_pages", "count"),
        types.offset("per_cpu_pages", "lists"),
        how_many,
        symbols["__per_cpu_offset"],
        symbols["__cpu_possible_mask"],
        cpus,
    )


def _zone_names(values: Mapping[str, int]) -> tuple[str, ...]:
    """As /proc prints them, where the enumeration is as expected."""
    written = {"DMA": "DMA", "DMA32": "DMA32", "NORMAL": "Normal", "MOVABLE": "Movable", "DEVICE": "Device"}
    names = {
        value: written[name.removeprefix("ZONE_")]
        for name, value in values.items()
        if name.removeprefix("ZONE_") in written
    }
    if sorted(names) != list(range(len(names))):
        return ()
    return tuple(names[number] for number in sorted(names))
