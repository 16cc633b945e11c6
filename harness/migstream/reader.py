# SPDX-License-Identifier: GPL-2.0-or-later
"""The stream as a whole: its head, its sections, its commands, its end (QEMU's migration/savevm.c)."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from harness.migstream.ram import PageSink, RamFormat, RamReader
from harness.migstream.source import Readable, Source, StreamError, UnknownFormError

_MAGIC: Final = 0x5145564D
_VERSION: Final = 3

_EOF: Final = 0x00
_START: Final = 0x01
_PART: Final = 0x02
_LAST: Final = 0x03
_FULL: Final = 0x04
_SUBSECTION: Final = 0x05
_DESCRIPTION: Final = 0x06
_CONFIGURATION: Final = 0x07
_COMMAND: Final = 0x08
_FOOTER: Final = 0x7E

#: MIG_CMD_*
COMMANDS: Final = (
    "invalid",
    "open-return-path",
    "ping",
    "postcopy-advise",
    "postcopy-listen",
    "postcopy-run",
    "postcopy-ram-discard",
    "packaged",
    "enable-colo",
    "postcopy-resume",
    "recv-bitmap",
    "switchover-start",
)
_PACKAGED: Final = COMMANDS.index("packaged")
_DISCARD: Final = COMMANDS.index("postcopy-ram-discard")
#: Of a discard: version, name with its length and a null, ranges.
_DISCARD_VERSION: Final = 0

_MOST_SECTIONS: Final = 10_000
#: Of a device, of a package, of a description: far more than any has.
LARGEST_STATE: Final = 1 << 28
_LARGEST_PACKAGE: Final = 1 << 28
_LARGEST_NAME: Final = 4096
_MOST_CAPABILITIES: Final = 256
#: A header of a section: type, number, length, name, instance, version.
_LONGEST_HEADER: Final = 1 + 4 + 1 + 255 + 8

_MEMORY: Final = "ram"


@dataclass(frozen=True, slots=True)
class StreamedDevice:
    """A device's state, as it is in the stream."""

    name: str
    instance: int
    version: int
    offset: int
    state: bytes


@dataclass(slots=True)
class StreamContents:
    """What a stream holds, beside the pages."""

    machine: str | None = None
    capabilities: tuple[str, ...] = ()
    page_size: int = 4096
    devices: list[StreamedDevice] = field(default_factory=list)
    #: In order: their names.
    commands: list[str] = field(default_factory=list)
    #: QEMU's description of the devices' fields; None: there is none.
    description: Mapping[str, object] | None = None
    #: How many times memory came, setup and end included.
    memory_sections: int = 0
    flushes: int = 0
    size: int = 0


@dataclass(slots=True)
class _OpenSection:
    name: str
    instance: int
    version: int
    pieces: list[bytes] = field(default_factory=list)


class StreamReader:
    """Reads one stream from its beginning to its end; ``sink`` is given each page as it comes."""

    def __init__(self, sink: PageSink) -> None:
        self._sink = sink
        self._open: dict[int, _OpenSection] = {}
        self.contents = StreamContents()
        self.ram: RamReader | None = None

    def read(self, file: Readable) -> StreamContents:
        """Read all of it.  Raises :class:`StreamError` for what is not a stream of QEMU's."""
        source = Source(file)
        magic, version = source.u32("the stream's head"), source.u32("the stream's head")
        if magic != _MAGIC or version != _VERSION:
            raise StreamError(0, f"no migration stream of version {_VERSION}: {magic:#x} {version:#x}")
        self._sections(source)
        self._describe(source)
        self.contents.flushes = self.ram.flushes if self.ram is not None else 0
        self.contents.size = source.offset
        return self.contents

    def _sections(self, source: Source) -> None:
        """Sections and commands, up to the end mark."""
        while True:
            kind = source.u8("a section's type")
            if kind == _EOF:
                return
            if kind == _CONFIGURATION:
                self._configuration(source)
            elif kind in (_START, _FULL):
                self._begin(source, full=kind == _FULL)
            elif kind in (_PART, _LAST):
                self._go_on(source)
            elif kind == _COMMAND:
                self._command(source)
            else:
                raise StreamError(source.offset - 1, f"a section of the unknown type {kind:#x}")

    def _configuration(self, source: Source) -> None:
        length = source.u32("the machine's name")
        if length > _LARGEST_NAME:
            raise StreamError(source.offset - 4, f"a machine's name of {length} bytes")
        contents = self.contents
        contents.machine = source.printable(source.take(length, "the machine's name"), "the machine's name")
        while source.peek(1) == bytes([_SUBSECTION]):
            source.u8("a subsection")
            name = source.name("a subsection's name")
            source.u32("a subsection's version")
            if name == "configuration/target-page-bits":
                bits = source.u32("the page size")
                if not 10 <= bits <= 24:
                    raise StreamError(source.offset - 4, f"pages of 2^{bits} bytes")
                contents.page_size = 1 << bits
            elif name == "configuration/capabilities":
                count = source.u32("capabilities")
                if count > _MOST_CAPABILITIES:
                    raise StreamError(source.offset - 4, f"{count} capabilities")
                contents.capabilities = tuple(source.name("a capability") for _ in range(count))
            elif name == "configuration/uuid":
                source.take(16, "the machine's UUID")
            else:
                raise StreamError(source.offset, f"the unknown subsection {name!r}")

    def _begin(self, source: Source, *, full: bool) -> None:
        offset = source.offset - 1
        number = source.u32("a section's number")
        name = source.name("a section's name")
        instance, version = source.u32("a section's instance"), source.u32("a section's version")
        if number in self._open and not full:
            raise StreamError(offset, f"section {number} begins a second time")
        if len(self._open) + len(self.contents.devices) >= _MOST_SECTIONS:
            raise StreamError(offset, f"more than {_MOST_SECTIONS} sections")
        if name == _MEMORY and not full:
            self._open[number] = _OpenSection(name, instance, version)
            form = RamFormat(
                self.contents.page_size,
                ignore_shared="x-ignore-shared" in self.contents.capabilities,
                mapped_ram="mapped-ram" in self.contents.capabilities,
            )
            self.ram = RamReader(form, self._sink)
            self.contents.memory_sections += 1
            self.ram.setup(source)
            self._footer(source, number)
            return
        state = _until_footer(source, number)
        self.contents.devices.append(StreamedDevice(name, instance, version, offset, state))
        if not full:
            self._open[number] = _OpenSection(name, instance, version)

    def _go_on(self, source: Source) -> None:
        offset = source.offset - 1
        number = source.u32("a section's number")
        section = self._open.get(number)
        if section is None:
            raise StreamError(offset, f"section {number} goes on, but never began")
        if section.name == _MEMORY and self.ram is not None:
            self.contents.memory_sections += 1
            self.ram.pages(source)
            self._footer(source, number)
            return
        if len(self.contents.devices) >= _MOST_SECTIONS:
            raise StreamError(offset, f"more than {_MOST_SECTIONS} sections")
        state = _until_footer(source, number)
        device = StreamedDevice(section.name, section.instance, section.version, offset, state)
        self.contents.devices.append(device)

    def _footer(self, source: Source, number: int) -> None:
        found = source.take(5, "a section's footer")
        if found != _footer_of(number):
            raise StreamError(
                source.offset - 5, f"expected the footer of section {number}, found {found.hex()}"
            )

    def _command(self, source: Source) -> None:
        offset = source.offset - 1
        number, length = source.u16("a command"), source.u16("a command's length")
        data = source.take(length, "a command's data")
        if not 0 < number < len(COMMANDS):
            raise StreamError(offset, f"the unknown command {number}")
        if len(self.contents.commands) >= _MOST_SECTIONS:
            raise StreamError(offset, f"more than {_MOST_SECTIONS} commands")
        self.contents.commands.append(COMMANDS[number])
        if number == _DISCARD:
            self._discard(data, offset)
        if number != _PACKAGED:
            return
        if length != 4:
            raise StreamError(offset, "a package without its length")
        (size,) = struct.unpack(">I", data)
        if size > _LARGEST_PACKAGE:
            raise StreamError(offset, f"a package of {size} bytes")
        inner = Source(io.BytesIO(source.take(size, "a package")), source.offset - size)
        self._sections_in_package(inner)

    def _discard(self, data: bytes, offset: int) -> None:
        """Ranges of a block to be thrown away (``qemu_savevm_send_postcopy_ram_discard()``)."""
        source = Source(io.BytesIO(data), offset + 5)
        if source.u8("a discard") != _DISCARD_VERSION:
            raise UnknownFormError(offset, "a discard of another version")
        name = source.name("a discarded block")
        if source.u8("a discard") or self.ram is None or name not in self.ram.blocks:
            raise StreamError(offset, f"a discard of {name!r}, which was not announced")
        block = self.ram.blocks[name]
        while source.peek(1):
            start, length = source.u64("a discarded range"), source.u64("a discarded range")
            if (
                start % block.page_size
                or start + length > -(-block.size // block.page_size) * block.page_size
            ):
                raise StreamError(offset, f"a discard beyond {name!r}")
            self._sink.discarded(name, start // block.page_size, -(-length // block.page_size))

    def _sections_in_package(self, source: Source) -> None:
        """A package has no end mark of its own."""
        while source.peek(1):
            kind = source.u8("a section's type")
            if kind == _FULL:
                self._begin(source, full=True)
            elif kind == _COMMAND:
                if source.peek(2) == struct.pack(">H", _PACKAGED):
                    raise StreamError(source.offset - 1, "a package within a package")
                self._command(source)
            elif kind == _EOF:
                break
            else:
                raise StreamError(source.offset - 1, f"a section of type {kind:#x} in a package")

    def _describe(self, source: Source) -> None:
        """QEMU's own description of what it saved; postcopy has none."""
        if source.peek(1) != bytes([_DESCRIPTION]):
            return
        source.u8("the description")
        length = source.u32("the description's length")
        if length > LARGEST_STATE:
            raise StreamError(source.offset - 4, f"a description of {length} bytes")
        text = source.take(length, "the description")
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise StreamError(source.offset - length, f"the description is no JSON: {error}") from error
        if not isinstance(found, dict):
            raise StreamError(source.offset - length, "the description is no object")
        self.contents.description = found


def _footer_of(number: int) -> bytes:
    return bytes([_FOOTER]) + struct.pack(">I", number)


def _until_footer(source: Source, number: int) -> bytes:
    """A device's state has no length: it ends where its footer is followed by another section, or the end."""
    footer, begin = _footer_of(number), source.offset
    found, searched, size = -1, 0, 1 << 16
    while True:
        seen = source.peek(size)
        found = seen.find(footer, searched)
        if found < 0:
            if len(seen) < size or size >= LARGEST_STATE:
                raise StreamError(begin, f"the section {number} has no end")
            searched, size = max(0, len(seen) - len(footer)), size * 4
            continue
        after = found + len(footer)
        if len(seen) < after + _LONGEST_HEADER and len(seen) == size and size < LARGEST_STATE:
            searched, size = found, size * 4
            continue
        if _begins(seen[after:]):
            state = source.take(found, "a device's state")
            source.take(len(footer), "a section's footer")
            return state
        searched = found + 1


def _begins(data: bytes) -> bool:
    """Whether these bytes may be the beginning of a section or command, or the end."""
    if not data:
        return True  # of a package
    kind = data[0]
    if kind == _EOF:
        # After it comes the description, or nothing.
        return len(data) == 1 or data[1] == _DESCRIPTION
    if kind in (_PART, _LAST):
        return len(data) >= 5
    if kind == _COMMAND:
        return len(data) >= 5 and 0 < struct.unpack_from(">H", data, 1)[0] < len(COMMANDS)
    if kind in (_START, _FULL) and len(data) >= 6:
        length = data[5]
        name = data[6 : 6 + length]
        return len(name) == length > 0 and all(0x20 <= byte < 0x7F for byte in name)
    return False
