# SPDX-License-Identifier: GPL-2.0-or-later
"""BTF: the kernel's types, as far as a walk asks for them.

    types = Btf(content)
    types.offset("zone", "lock"), types.enum("pagetype")

Where a kernel has it (CONFIG_DEBUG_INFO_BTF), it knows what VMCOREINFO leaves
out.  It is read from the guest, so every number in it is checked.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

import numpy as np

from harness.memory.walk.errors import WalkError

MAGIC = 0xEB9F
HEADER = struct.Struct("<HBBIIIII")
_INT, _PTR, _ARRAY, _STRUCT, _UNION, _ENUM = 1, 2, 3, 4, 5, 6
_TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _TYPE_TAG, _ENUM64 = 8, 9, 10, 11, 18, 19
#: What follows a type's three words, in words: a fixed number and one for each of its parts.
_EXTRA = {
    _INT: (1, 0),
    _PTR: (0, 0),
    _ARRAY: (3, 0),
    _STRUCT: (0, 3),
    _UNION: (0, 3),
    _ENUM: (0, 2),
    7: (0, 0),  # forward declaration
    _TYPEDEF: (0, 0),
    _VOLATILE: (0, 0),
    _CONST: (0, 0),
    _RESTRICT: (0, 0),
    12: (0, 0),  # function
    13: (0, 2),  # its parameters
    14: (1, 0),  # variable
    15: (0, 3),  # section
    16: (0, 0),  # floating point
    17: (1, 0),  # declaration tag
    _TYPE_TAG: (0, 0),
    _ENUM64: (0, 3),
}
_MOST_NESTED = 16


def length(header: bytes) -> int:
    """How many bytes the BTF has, told by its first bytes; 0 if this is no BTF."""
    magic, version, _, head, type_off, type_len, str_off, str_len = HEADER.unpack_from(header)
    if magic != MAGIC or version != 1 or not HEADER.size <= head <= 4096:
        return 0
    total: int = head + max(type_off + type_len, str_off + str_len)
    return total if type_len % 4 == 0 and type_off % 4 == 0 else 0


class Btf:
    """Types by name.  Only those asked for are taken apart."""

    def __init__(self, content: bytes) -> None:
        if len(content) < HEADER.size or not 0 < length(content) <= len(content):
            raise _bad("has no proper header")
        _, _, _, head, type_off, type_len, str_off, str_len = HEADER.unpack_from(content)
        types = content[head + type_off : head + type_off + type_len]
        self._words: list[int] = np.frombuffer(types, dtype="<u4").tolist()
        self._strings = content[head + str_off : head + str_off + str_len]
        self._starts = [0, *self._index()]
        # Type 0 is void, and nameless.
        self._names = np.array([0, *(self._words[start] for start in self._starts[1:])])

    def _index(self) -> Iterator[int]:
        """Where each type begins: they are of different length, and only follow each other."""
        words, place = self._words, 0
        while place < len(words):
            info = words[place + 1] if place + 1 < len(words) else 0
            extra = _EXTRA.get(info >> 24 & 0x1F)
            if extra is None:
                raise _bad(f"has a type of unknown kind {info >> 24 & 0x1F} at word {place}")
            end = place + 3 + extra[0] + extra[1] * (info & 0xFFFF)
            if end > len(words):
                raise _bad(f"ends within the type at word {place}")
            yield place
            place = end

    def size(self, name: str) -> int:
        """The size of a structure, in bytes."""
        return self._words[self._find(name, (_STRUCT,)) + 2]

    def offset(self, name: str, member: str) -> int:
        """The offset of a member, in bytes; members of nameless parts count as members."""
        return self._member(name, member)[0]

    def elements(self, name: str, member: str) -> int:
        """How many elements a member that is an array has."""
        place = self._resolve(self._member(name, member)[1])
        if self._kind(place) != _ARRAY:
            raise _bad(f"says that {name}.{member} is no array")
        return self._words[place + 5]

    def enum(self, name: str) -> Mapping[str, int]:
        """An enumeration's names and values."""
        place = self._find(name, (_ENUM,))
        count = self._words[place + 1] & 0xFFFF
        pairs = self._words[place + 3 : place + 3 + 2 * count]
        return {
            self._string(word): value - (value >> 31 << 32)
            for word, value in zip(pairs[::2], pairs[1::2], strict=True)
        }

    def _member(self, name: str, member: str) -> tuple[int, int]:
        found = next(self._members(self._find(name, (_STRUCT,)), member, 0), None)
        if found is None:
            raise _bad(f"knows no {name}.{member}")
        return found

    def _members(self, place: int, wanted: str, depth: int) -> Iterator[tuple[int, int]]:
        """(offset in bytes, type) of the member, if it is here."""
        info = self._words[place + 1]
        bitfields = bool(info >> 31)
        for number in range(info & 0xFFFF):
            name, kind, offset = self._words[place + 3 + 3 * number : place + 6 + 3 * number]
            start = (offset & 0xFF_FFFF if bitfields else offset) // 8
            if self._string(name) == wanted:
                yield start, kind
            elif not name and depth < _MOST_NESTED:
                inner = self._resolve(kind)
                if self._kind(inner) in (_STRUCT, _UNION):
                    for more, found in self._members(inner, wanted, depth + 1):
                        yield start + more, found

    def _find(self, name: str, kinds: tuple[int, ...]) -> int:
        needle = b"\0" + name.encode("ascii") + b"\0"
        place = self._strings.find(needle)
        while place >= 0:
            for number in np.flatnonzero(self._names == place + 1).tolist():
                if self._kind(self._starts[number]) in kinds:
                    return self._starts[number]
            place = self._strings.find(needle, place + 1)
        raise _bad(f"knows no {name}")

    def _kind(self, place: int) -> int:
        return self._words[place + 1] >> 24 & 0x1F

    def _resolve(self, number: int) -> int:
        """Where a type is, without the names and qualifiers around it."""
        for _ in range(_MOST_NESTED):
            if not 0 < number < len(self._starts):
                raise _bad(f"refers to a type {number}, which it has not")
            place = self._starts[number]
            if self._kind(place) not in (_TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _TYPE_TAG):
                return place
            number = self._words[place + 2]
        raise _bad("has types that lead to each other")

    def _string(self, offset: int) -> str:
        end = self._strings.find(b"\0", offset)
        return self._strings[offset:end].decode("ascii", "replace") if end >= 0 else ""


def _bad(problem: str) -> WalkError:
    return WalkError("btf", "the kernel's BTF", problem)
