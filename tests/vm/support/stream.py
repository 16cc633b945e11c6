# SPDX-License-Identifier: GPL-2.0-or-later
"""The devices' part of a migration stream that was written to a file.

    before, after = read_stream(one), read_stream(two)
    before.sections["0000:00:02.0/virtio-balloon", 0]    # its bytes

A stream ends with a description of all devices in JSON; QEMU's own
``scripts/analyze-migration.py`` reads the same.  The sections stand before it, in
the description's order, each between its header and its footer.
"""

from __future__ import annotations

import json
import mmap
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_MAGIC = b"QEVM\0\0\0\3"
_FULL, _DESCRIPTION, _FOOTER = b"\x04", b"\x06", b"\x7e"

#: A device's name, and its number among those of that name.
Key = tuple[str, int]


@dataclass(frozen=True)
class Section:
    """One device's state."""

    version: int
    data: bytes


@dataclass(frozen=True)
class Stream:
    """All devices of a stream, and what the stream says of them."""

    sections: Mapping[Key, Section]
    description: Mapping[str, Any]


def read_stream(path: Path) -> Stream:
    """Read a file that ``migrate file:`` has written.  Raises ValueError if it is none."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[: len(_MAGIC)] != _MAGIC:
            raise ValueError(f"{path} is no migration stream")
        at = _find_description(data)
        description = json.loads(data[at + 5 :])
        sections, end = {}, at - 1  # one byte says that no more sections come
        for device in reversed(description["devices"]):
            key = (device["name"], device["instance_id"])
            sections[key], end = _section_before(data, end, key)
        return Stream(dict(reversed(sections.items())), description)


def _find_description(data: mmap.mmap) -> int:
    """Where it begins: a byte, its length, and text up to the end."""
    at = data.rfind(_DESCRIPTION)
    while at >= 0:
        if struct.unpack(">I", data[at + 1 : at + 5])[0] == len(data) - at - 5:
            return at
        at = data.rfind(_DESCRIPTION, 0, at)
    raise ValueError("the stream does not end with a description of its devices")


def _section_before(data: mmap.mmap, end: int, key: Key) -> tuple[Section, int]:
    """The section that ends there, and where it begins."""
    name = key[0].encode()
    words = bytes([len(name)]) + name + struct.pack(">I", key[1])
    at = data.rfind(words, 0, end) - 5
    header = re.compile(_FULL + b"(.{4})" + re.escape(words) + b"(.{4})", re.DOTALL)
    match = header.match(data, at) if at >= 0 else None
    if match is None or data[end - 5 : end] != _FOOTER + match[1]:
        raise ValueError(f"no section of {key[0]} where the stream's description says")
    return Section(int.from_bytes(match[2], "big"), data[match.end() : end - 5]), at
