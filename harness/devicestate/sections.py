# SPDX-License-Identifier: GPL-2.0-or-later
"""A stream of device state, split into the sections that QEMU saved.

The form is that of QMP's ``xen-save-devices-state``: the file's magic number and
version, then a full section for each device, then an end mark (QEMU's
migration/savevm.c, ``qemu_save_device_state()``).  A section names its device
and bears a footer with its number, but no length.  It ends where its own footer
is followed by another section's header, or by the end mark.

The stream comes from a QEMU that is under test: nothing in it is believed.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from harness.errors import MachineryError

_MAGIC: Final = b"QEVM"
_HEADER: Final = 8
_END: Final = 0x00
_FULL: Final = 0x04
_DESCRIPTION: Final = 0x06
_FOOTER: Final = 0x7E
_LENGTH: Final = struct.Struct(">I")
_TWO: Final = struct.Struct(">II")

#: No machine has so many devices, and no device so much state beside its memory.
MOST_SECTIONS: Final = 10_000
MOST_BYTES: Final = 1 << 28


@dataclass(frozen=True, slots=True)
class Section:
    """One device's state."""

    device: str
    instance: int
    version: int
    data: bytes

    @property
    def key(self) -> tuple[str, int]:
        """What tells devices of one machine apart."""
        return self.device, self.instance


def read_sections(stream: bytes) -> tuple[Section, ...]:
    """Split a stream.  Raises :class:`MachineryError` if it has another form."""
    if not stream.startswith(_MAGIC) or len(stream) > MOST_BYTES:
        raise _odd(f"{len(stream)} bytes that begin with {stream[:4].hex()}")
    sections: list[Section] = []
    at = _HEADER
    while at < len(stream) and stream[at] != _END:
        if len(sections) == MOST_SECTIONS:
            raise _odd(f"more than {MOST_SECTIONS} sections")
        section, at = _section(stream, at)
        sections.append(section)
    if at >= len(stream):
        raise _odd("it ends in the middle")
    return tuple(sections)


def _section(stream: bytes, at: int) -> tuple[Section, int]:
    header = _read_header(stream, at)
    if header is None:
        raise _odd(f"no section begins at {at}")
    number, device, instance, version, begin = header
    footer = bytes([_FOOTER]) + _LENGTH.pack(number)
    end = stream.find(footer, begin)
    while end >= 0:
        after = end + len(footer)
        if stream[after : after + 1] == bytes([_END]) and after + 1 >= len(stream):
            return Section(device, instance, version, stream[begin:end]), after
        if _read_header(stream, after) is not None:
            return Section(device, instance, version, stream[begin:end]), after
        end = stream.find(footer, end + 1)
    raise _odd(f"the section of {device!r} has no end")


def _read_header(stream: bytes, at: int) -> tuple[int, str, int, int, int] | None:
    """Number, device, instance, version and where the data begin; None: there is no header here."""
    if stream[at : at + 1] != bytes([_FULL]) or at + 6 > len(stream):
        return None
    (number,) = _LENGTH.unpack_from(stream, at + 1)
    length = stream[at + 5]
    name, rest = stream[at + 6 : at + 6 + length], at + 6 + length
    if len(name) != length or not name or rest + 8 > len(stream):
        return None
    if not all(0x20 <= byte < 0x7F for byte in name):
        return None
    instance, version = _TWO.unpack_from(stream, rest)
    return number, name.decode("ascii"), instance, version, rest + 8


def read_description(stream: bytes) -> Mapping[str, object]:
    """QEMU's own description of the devices' fields, from the end of a whole migration stream.

    Raises :class:`MachineryError` if there is none.
    """
    at = stream.rfind(bytes([_DESCRIPTION]))
    while at >= 0:
        if at + 5 <= len(stream):
            (length,) = _LENGTH.unpack_from(stream, at + 1)
            text = stream[at + 5 : at + 5 + length]
            if len(text) == length and text[:1] == b"{":
                try:
                    found = json.loads(text)
                except ValueError:
                    found = None
                if isinstance(found, dict) and "devices" in found:
                    return found
        at = stream.rfind(bytes([_DESCRIPTION]), 0, at)
    raise _odd("no description of its fields at its end")


def _odd(what: str) -> MachineryError:
    return MachineryError(f"QEMU's device state has an unknown form: {what}")
