# SPDX-License-Identifier: GPL-2.0-or-later
"""VMCOREINFO: the kernel's own description of its structures, in its memory.

    for address in find_notes(memory):
        info = note_at(memory, address).info
        info.symbol("init_top_pgt"), info.offset("page.lru")

The kernel keeps it for crash dumps, as an ELF note in a page of its own, whether
or not anybody registers it.  With ``-device vmcoreinfo`` and a guest that loads
qemu_fw_cfg, QEMU knows its address; who has only the memory looks for it.

It is the guest's word: every line is checked for form and range here, and what
it leads to is checked by whoever follows it.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from harness.memory.walk.errors import WalkError
from harness.memory.walk.physical import GuestMemory
from harness.units import PAGE_SIZE

#: An ELF note's head: length of the name, of the text, type; then the name, padded.
_HEAD = struct.Struct("<III12s")
_NAME = b"VMCOREINFO\0\0"
_NEEDLE = _NAME + b"OSRELEASE="
#: The kernel has one page for the text, of 64 KiB at most, and a crash adds a line or two.
_LONGEST = 1 << 17
_LINE = re.compile(r"(?P<kind>[A-Z][A-Z0-9_-]*)(?:\((?P<name>[A-Za-z0-9_.]+)\))?=(?P<value>[ -~]*)")
_BASES = {"SYMBOL": 16, "KERNELOFFSET": 16}
_KINDS = ("SYMBOL", "OFFSET", "SIZE", "LENGTH", "NUMBER")
_NUMBER = re.compile(r"-?(0x)?[0-9a-fA-F]{1,20}")
_64_BITS = (1 << 64) - 1


@dataclass(frozen=True)
class VmcoreInfo:
    """The text, taken apart: ``values["OFFSET"]["page.lru"]``."""

    release: str
    build_id: str
    kernel_offset: int
    page_size: int
    values: Mapping[str, Mapping[str, int]]
    text: str

    def with_symbols(self, addresses: Mapping[str, int]) -> VmcoreInfo:
        """The same, with symbols that were learned elsewhere."""
        return replace(self, values={**self.values, "SYMBOL": {**self.values["SYMBOL"], **addresses}})

    def symbol(self, name: str) -> int:
        """The address of a symbol."""
        return self._value("SYMBOL", name)

    def offset(self, name: str) -> int:
        """The offset of a member, in bytes."""
        return self._value("OFFSET", name)

    def size(self, name: str) -> int:
        """The size of a structure, in bytes."""
        return self._value("SIZE", name)

    def length(self, name: str) -> int:
        """The length of an array, in elements."""
        return self._value("LENGTH", name)

    def number(self, name: str) -> int:
        """A constant or the value of a variable."""
        return self._value("NUMBER", name)

    def get(self, kind: str, name: str) -> int | None:
        """A value by kind and name, or None where this kernel does not tell it."""
        return self.values[kind].get(name)

    def _value(self, kind: str, name: str) -> int:
        value = self.values[kind].get(name)
        if value is None:
            raise WalkError(
                "vmcoreinfo-lacks",
                f"VMCOREINFO of {self.release}",
                f"does not give {kind}({name})",
                hint="a kernel whose structures are not described cannot be walked from outside",
            )
        return value


@dataclass(frozen=True)
class Note:
    """VMCOREINFO, and the guest-physical address of its note; None: it came from elsewhere."""

    info: VmcoreInfo
    address: int | None = None


def parse_vmcoreinfo(text: str, where: str = "VMCOREINFO") -> VmcoreInfo:
    """Take the text apart; lines of a form that is not known are an error, other keys are not."""
    values: dict[str, dict[str, int]] = {kind: {} for kind in _KINDS}
    plain: dict[str, str] = {}
    for number, line in enumerate(text.rstrip("\n").split("\n"), 1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise WalkError("vmcoreinfo", where, f"line {number} is not of its form: {line[:80]!r}")
        kind, name, value = match["kind"], match["name"], match["value"]
        if name is None:
            plain.setdefault(kind, value)
        elif kind in values:
            values[kind].setdefault(name, _number(kind, value, f"{where}, line {number}"))
    if not plain.get("OSRELEASE"):
        raise WalkError("vmcoreinfo", where, "does not say which kernel it is of")
    page_size = _number("PAGESIZE", plain.get("PAGESIZE", str(PAGE_SIZE)), where)
    offset = _number("KERNELOFFSET", plain.get("KERNELOFFSET", "0"), where)
    return VmcoreInfo(plain["OSRELEASE"], plain.get("BUILD-ID", ""), offset, page_size, values, text)


def _number(kind: str, text: str, where: str) -> int:
    if _NUMBER.fullmatch(text) is None:
        raise WalkError("vmcoreinfo", where, f"{text[:40]!r} is not a number")
    try:
        # "0x" is only written where the kernel says so (NUMBER(VMALLOC_START)).
        value = int(text, _BASES.get(kind, 16 if "0x" in text else 10))
    except ValueError as error:
        raise WalkError("vmcoreinfo", where, f"{text[:40]!r} is not a number") from error
    if not -(1 << 63) <= value <= _64_BITS:
        raise WalkError("vmcoreinfo", where, f"{text[:40]!r} has more than 64 bits")
    return value


def note_at(memory: GuestMemory, address: int) -> Note:
    """The note at a known address."""
    where = f"the note at {address:#x}"
    if address < 0 or not memory.holds(address, _HEAD.size):
        raise WalkError("vmcoreinfo", where, "lies outside of the guest's memory")
    name_size, length, kind, name = _HEAD.unpack(memory.read(address, _HEAD.size))
    if (name_size, kind, name) != (len(_NAME) - 1, 0, _NAME):
        raise WalkError("vmcoreinfo", where, "is no VMCOREINFO note")
    if not 0 < length <= _LONGEST or not memory.holds(address + _HEAD.size, length):
        raise WalkError("vmcoreinfo", where, f"claims a text of {length} bytes")
    content = memory.read(address + _HEAD.size, length)
    try:
        text = content.rstrip(b"\0").decode("ascii")
    except UnicodeDecodeError as error:
        raise WalkError("vmcoreinfo", where, "is not text") from error
    return Note(parse_vmcoreinfo(text, where), address)


def find_notes(memory: GuestMemory) -> Iterator[int]:
    """The address of whatever looks like a VMCOREINFO note, by looking at all of memory.

    There may be several: a crash kernel's, or what a kernel that ran before a
    reboot left behind.
    """
    before, end = b"", -1
    for frame, words in memory.blocks_with(_NEEDLE):
        # A needle may straddle two blocks; only neighbours in memory are joined.
        tail = before if frame == end else b""
        content = tail + words.tobytes()
        place = content.find(_NEEDLE)
        while place >= 0:
            yield frame * PAGE_SIZE - len(tail) + place - _HEAD.size + len(_NAME)
            place = content.find(_NEEDLE, place + 1)
        # One byte less than a needle: none is found twice.
        before, end = content[1 - len(_NEEDLE) :], frame + len(words)
