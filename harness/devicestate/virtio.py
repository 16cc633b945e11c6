# SPDX-License-Identifier: GPL-2.0-or-later
"""The state of a virtio device on PCI, which QEMU writes as one field without a description.

The order is that of ``virtio_save()`` (QEMU's hw/virtio/virtio.c): what the
transport saves (``virtio_pci_save_config()``: PCI device, MSI-X table, vector),
the device's registers, each queue that is set up, what the device itself saves,
and subsections whose names begin with ``virtio/``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

#: Name, offset and size, in bytes.
Place = tuple[str, int, int]

_PCI_CONFIG: Final = 256
_PCIE_CONFIG: Final = 4096
_IRQ_STATE: Final = 16
_EXPRESS: Final = 0x10
_MSIX: Final = 0x11
_CAPABILITIES: Final = 0x34
_MOST_QUEUES: Final = 1024

#: Fixed layouts of ``vmstate_virtio``'s subsections: element name and size; of arrays, one a queue.
_SUBSECTIONS: Final = {
    "virtio/device_endian": (("device_endian", 1),),
    "virtio/64bit_features": (("guest_features", 8),),
    "virtio/virtqueues": (("avail", 8), ("used", 8)),
    "virtio/ringsize": (("num_default", 4),),
    "virtio/packed_virtqueues": (
        ("last_avail_idx", 2),
        ("last_avail_wrap_counter", 1),
        ("used_idx", 2),
        ("used_wrap_counter", 1),
        ("inuse", 4),
    ),
    "virtio/broken": (("broken", 1),),
    "virtio/started": (("started", 1),),
    "virtio/disabled": (("disabled", 1),),
}
_PER_QUEUE: Final = frozenset({"virtio/virtqueues", "virtio/ringsize", "virtio/packed_virtqueues"})


class _TooShortError(Exception):
    """A state that ends before all of what it should hold."""


class _Cursor:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, name: str, size: int) -> Place:
        if self.at + size > len(self.data):
            raise _TooShortError(name)
        place = (name, self.at, size)
        self.at += size
        return place

    def number(self, place: Place) -> int:
        return int.from_bytes(self.data[place[1] : place[1] + place[2]], "big")


def virtio_fields(data: bytes) -> list[Place]:
    """The fields of a virtio device's state, as far as they are understood; the rest is one field."""
    cursor = _Cursor(data)
    found: list[Place] = []
    with contextlib.suppress(_TooShortError):
        # What was taken before the state came to its end counts.
        found.extend(_known(cursor))
    end = _subsections_begin(data, cursor.at)
    if end > cursor.at:
        found.append(("device", cursor.at, end - cursor.at))
    found += _subsections(data, end)
    return found


def _known(cursor: _Cursor) -> Iterator[Place]:
    yield cursor.take("pci.version_id", 4)
    config = cursor.take("pci.config", _config_size(cursor.data))
    yield from _config(config)
    yield cursor.take("pci.irq_state", _IRQ_STATE)
    vectors = _vectors(cursor.data[config[1] : config[1] + config[2]])
    if vectors:
        for vector in range(vectors):
            yield cursor.take(f"msix.table[{vector}]", 16)
        yield cursor.take("msix.pending", -(-vectors // 8))
        yield cursor.take("config_vector", 2)
    for name, size in (("status", 1), ("isr", 1), ("queue_sel", 2), ("guest_features", 4)):
        yield cursor.take(name, size)
    length = cursor.take("config_len", 4)
    yield length
    yield cursor.take("config", cursor.number(length))
    count = cursor.take("queues", 4)
    yield count
    for queue in range(min(cursor.number(count), _MOST_QUEUES)):
        # PCI's queues have no alignment of their own: ccw's and mmio's have.
        for name, size in (("vring.num", 4), ("vring.desc", 8), ("last_avail_idx", 2)):
            yield cursor.take(f"vq[{queue}].{name}", size)
        if vectors:
            yield cursor.take(f"vq[{queue}].vector", 2)


def _config_size(data: bytes) -> int:
    """The size of the configuration space: a PCI Express device has that capability."""
    return _PCIE_CONFIG if _capability(data[4 : 4 + _PCI_CONFIG], _EXPRESS) is not None else _PCI_CONFIG


def _config(place: Place) -> Iterator[Place]:
    """PCI's registers that a difference is likely in, and the rest."""
    _, at, size = place
    yield "pci.config[0x00..0x03] id", at, 4
    yield "pci.config[0x04..0x05] command", at + 4, 2
    yield "pci.config[0x06..0x07] status", at + 6, 2
    for offset in range(8, size, 4):
        yield f"pci.config[{offset:#04x}..{offset + 3:#04x}]", at + offset, 4


def _vectors(config: bytes) -> int:
    """Entries of the MSI-X table; 0: no MSI-X."""
    at = _capability(config, _MSIX)
    return 0 if at is None else (int.from_bytes(config[at + 2 : at + 4], "little") & 0x7FF) + 1


def _capability(config: bytes, wanted: int) -> int | None:
    """Where a PCI capability stands in the configuration space; None: the device has it not."""
    at, seen = config[_CAPABILITIES] if len(config) > _CAPABILITIES else 0, set[int]()
    while at and at not in seen and at + 4 <= len(config):
        seen.add(at)
        if config[at] == wanted:
            return at
        at = config[at + 1]
    return None


def _subsections_begin(data: bytes, begin: int) -> int:
    places = [
        at
        for name in _SUBSECTIONS
        if (at := data.find(bytes([5, len(name)]) + name.encode("ascii"), begin)) >= 0
    ]
    return min(places, default=len(data))


def _subsections(data: bytes, at: int) -> list[Place]:
    found: list[Place] = []
    while at + 2 < len(data) and data[at] == 5:
        length = data[at + 1]
        name = data[at + 2 : at + 2 + length].decode("ascii", errors="replace")
        begin = at + 2 + length + 4
        end = _next(data, begin)
        layout = _SUBSECTIONS.get(name)
        if layout is None:
            found.append((name.rpartition("/")[2], begin, end - begin))
        else:
            found += _elements(name, layout, begin, end)
        at = end
    return found


def _next(data: bytes, begin: int) -> int:
    at = data.find(b"\x05", begin)
    while at >= 0:
        length = data[at + 1] if at + 1 < len(data) else 0
        if data[at + 2 : at + 2 + length].startswith(b"virtio/") and length > 7:
            return at
        at = data.find(b"\x05", at + 1)
    return len(data)


def _elements(name: str, layout: tuple[tuple[str, int], ...], at: int, end: int) -> Iterator[Place]:
    row = sum(size for _, size in layout)
    count = (end - at) // row if name in _PER_QUEUE else 1
    for queue in range(count):
        for element, size in layout:
            yield (f"vq[{queue}].{element}" if name in _PER_QUEUE else element), at, size
            at += size
