# SPDX-License-Identifier: GPL-2.0-or-later
"""Where each field of a device's state lies, by QEMU's own description of it (vmdesc).

QEMU writes the description as it saves (migration/vmstate.c,
``vmstate_save_state_v()``): fields in order, each with its size, arrays of equal
elements with ``array_len``, structures with the fields inside, subsections at
the end.  A subsection has a header in the stream: a mark, its name's length, the
name, a version.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from harness.devicestate.virtio import virtio_fields

#: Mark, length of the name, name, version of four bytes.
_SUBSECTION_OVERHEAD: Final = 6
#: A description comes from a QEMU under test, and may be nested without end.
_DEEPEST: Final = 32

#: The real-time clock's registers that hold the time (QEMU's include/hw/rtc/mc146818rtc_regs.h).
CMOS_REGISTERS: Final = {
    0x00: "seconds",
    0x02: "minutes",
    0x04: "hours",
    0x06: "day of the week",
    0x07: "day of the month",
    0x08: "month",
    0x09: "year",
    0x32: "century",
}


#: What is known without QEMU's description: the clock's registers come first in its section (vmstate_rtc).
KNOWN_PLACES: Final[Mapping[str, object]] = {
    "devices": [
        {
            "name": "mc146818rtc",
            "instance_id": 0,
            "fields": [{"name": "cmos_data", "type": "buffer", "size": 128}],
        }
    ]
}


#: The state of a QEMU before 9.0, one field, by the names that newer ones have for its parts
#: (migration/global_state.c).
_OLD_RUN_STATE: Final = 100
_RUN_STATE: Final = (
    ("runstate", 0, 32),
    ("has_vm_was_suspended", 32, 1),
    ("vm_was_suspended", 33, 1),
    ("unused", 34, 66),
)


@dataclass(frozen=True, slots=True)
class FieldPlace:
    """A field: its name from the device downward, where it lies in the section, and its type."""

    name: str
    offset: int
    size: int
    kind: str = ""


def fields_of(description: Mapping[str, object], data: bytes) -> list[FieldPlace]:
    """The fields of one device's section, in order; ``description`` is its entry in ``devices``."""
    return list(_fields(description, data, 0, "", 0))


def _fields(
    description: Mapping[str, object], data: bytes, at: int, prefix: str, depth: int
) -> Iterator[FieldPlace]:
    if depth > _DEEPEST:
        return
    for field, name in _named(_list(description, "fields")):
        size, count = _number(field, "size"), max(1, _number(field, "array_len", 1))
        for index in range(count):
            place = prefix + (f"{name}[{index}]" if count > 1 else name)
            yield from _one(field, data, at, place, size, depth)
            at += size
    for part in _list(description, "subsections"):
        name = str(part.get("vmsd_name", "?"))
        at += _SUBSECTION_OVERHEAD + len(name)
        last = at
        for found in _fields(part, data, at, f"{prefix}{name.rpartition('/')[2]}.", depth + 1):
            yield found
            last = max(last, found.offset + found.size)
        at = last


def _one(
    field: Mapping[str, object], data: bytes, at: int, name: str, size: int, depth: int
) -> Iterator[FieldPlace]:
    kind = str(field.get("type", ""))
    inner = field.get("struct") if kind == "struct" else field if kind == "tmp" else None
    if isinstance(inner, Mapping):
        yield from _fields(inner, data, at, f"{name}.", depth + 1)
    elif kind == "virtio":
        for inside, offset, length in virtio_fields(data[at : at + size]):
            yield FieldPlace(inside, at + offset, length, "virtio")
    elif name == "cmos_data":
        for register in range(size):
            known = CMOS_REGISTERS.get(register)
            label = f"{name}[{register:#04x}]" + (f" {known}" if known else "")
            yield FieldPlace(label, at + register, 1, "uint8")
    elif name == "runstate" and size == _OLD_RUN_STATE:
        # What newer QEMUs keep at the end of it, older ones leave zero.
        for part, offset, length in _RUN_STATE:
            yield FieldPlace(part, at + offset, length, "buffer" if length > 1 else "uint8")
    else:
        yield FieldPlace(name, at, size, kind)


def _named(fields: Sequence[Mapping[str, object]]) -> Iterator[tuple[Mapping[str, object], str]]:
    """Fields with their names; elements of one array follow each other, and the last has no index."""
    seen: dict[str, int] = {}
    for field in fields:
        name = str(field.get("name", "?"))
        if "index" in field:
            seen[name] = _number(field, "index") + 1
            yield field, f"{name}[{seen[name] - 1}]"
        elif name in seen:
            yield field, f"{name}[{seen.pop(name)}]"
        else:
            yield field, name


def _list(description: Mapping[str, object], key: str) -> list[Mapping[str, object]]:
    value = description.get(key)
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _number(field: Mapping[str, object], key: str, default: int = 0) -> int:
    value = field.get(key, default)
    return value if isinstance(value, int) and 0 <= value < 1 << 28 else default
