# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's table of symbols, in its memory.

    addresses = find_symbols(space, info, ("__per_cpu_offset",))

Names are compressed: a byte stands for a piece of text.  How addresses are kept
has changed more than once, and nothing says which way it is; so all ways are
tried, and the one is taken that gives the addresses that VMCOREINFO gives.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping

import numpy as np
import numpy.typing as npt

from harness.memory.walk.errors import WalkError
from harness.memory.walk.pagetables import AddressSpace
from harness.memory.walk.vmcoreinfo import VmcoreInfo
from harness.units import PAGE_SIZE

_MOST_SYMBOLS = 1 << 21
_LONGEST_NAME = 1 << 14
_CHUNK = 64 * PAGE_SIZE
#: Known from VMCOREINFO, in the kernel's image, and no per-cpu variables.
_KNOWN = ("init_uts_ns", "node_online_map", "swapper_pg_dir", "_stext", "init_top_pgt")
_64_BITS = (1 << 64) - 1

_Offsets = npt.NDArray[np.int32]


def find_symbols(space: AddressSpace, info: VmcoreInfo, wanted: Collection[str]) -> Mapping[str, int]:
    """The addresses of these symbols, as far as the kernel has them."""
    count = int.from_bytes(space.read(info.symbol("kallsyms_num_syms"), 4, "kallsyms_num_syms"), "little")
    if not 0 < count <= _MOST_SYMBOLS:
        raise _bad(f"claims to have {count} symbols")
    known = [name for name in _KNOWN if info.get("SYMBOL", name) is not None]
    numbers = _numbers(space, info, count, {*wanted, *known})
    start = info.symbol("kallsyms_offsets")
    offsets: _Offsets = np.frombuffer(space.read(start, 4 * count, "kallsyms_offsets"), dtype="<i4")
    for address in _ways(space, info, start):
        if _agrees(address, offsets, numbers, {name: info.symbol(name) for name in known}):
            places = {name: numbers[name] for name in wanted if name in numbers}
            return {name: address(place, int(offsets[place])) for name, place in places.items()}
    raise _bad("keeps its addresses in no known way")


_Way = Callable[[int, int], int]


def _ways(space: AddressSpace, info: VmcoreInfo, start: int) -> Iterator[_Way]:
    """How number and offset of a symbol may give its address."""
    if info.get("SYMBOL", "kallsyms_relative_base") is not None:
        (base,) = space.words(info.symbol("kallsyms_relative_base"), 1, "kallsyms_relative_base")
        # Per-cpu variables absolute, all others negative.
        yield lambda _, offset: offset if offset >= 0 else (base - 1 - offset) & _64_BITS
        yield lambda _, offset: (base + (offset & 0xFFFF_FFFF)) & _64_BITS
    # Relative to where the offset itself is.
    yield lambda number, offset: (start + 4 * number + offset) & _64_BITS
    stext = info.get("SYMBOL", "_stext")
    if stext is not None:
        yield lambda _, offset: (stext + offset) & _64_BITS


def _agrees(way: _Way, offsets: _Offsets, numbers: Mapping[str, int], known: Mapping[str, int]) -> bool:
    both = [name for name in known if name in numbers]
    return bool(both) and all(way(numbers[name], int(offsets[numbers[name]])) == known[name] for name in both)


def _numbers(space: AddressSpace, info: VmcoreInfo, count: int, wanted: set[str]) -> dict[str, int]:
    """The number of each of these symbols in the table; the first where a name occurs twice."""
    tokens = _tokens(space, info)
    # The first character is the symbol's kind, and may be part of a token.
    text = {name.encode("ascii") for name in wanted}
    found: dict[str, int] = {}
    for number, packed in _names(space, info.symbol("kallsyms_names"), count):
        name = b"".join([tokens[byte] for byte in packed])[1:]
        if name in text:
            found.setdefault(name.decode("ascii"), number)
            if len(found) == len(text):
                break
    return found


def _tokens(space: AddressSpace, info: VmcoreInfo) -> list[bytes]:
    index = space.read(info.symbol("kallsyms_token_index"), 2 * 256, "kallsyms_token_index")
    places: list[int] = np.frombuffer(index, dtype="<u2").tolist()
    table = space.read(info.symbol("kallsyms_token_table"), max(places) + 64, "kallsyms_token_table")
    return [table[place:].split(b"\0", 1)[0] for place in places]


def _names(space: AddressSpace, start: int, count: int) -> Iterator[tuple[int, bytes]]:
    """(number, compressed name) of each symbol, read as far as it is asked for."""
    content, place, read = b"", 0, start
    for number in range(count):
        if len(content) - place < _LONGEST_NAME + 2:
            # To a page's end: what follows the last name need not be mapped.
            size = _CHUNK - read % PAGE_SIZE
            content, place = content[place:] + space.read(read, size, "kallsyms_names"), 0
            read += size
        size = content[place]
        place += 1
        if size & 0x80:
            size = size & 0x7F | content[place] << 7
            place += 1
        if not 0 < size <= _LONGEST_NAME:
            raise _bad(f"has a name of {size} bytes, symbol {number}")
        yield number, content[place : place + size]
        place += size


def _bad(problem: str) -> WalkError:
    return WalkError("kallsyms", "the kernel's symbol table", problem)
