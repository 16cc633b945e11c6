# SPDX-License-Identifier: GPL-2.0-or-later
"""Requests that a virtio disk has not answered, as QEMU saves them: their order is not the guest's.

``virtio_blk_save_device()`` writes the list of requests that are to be tried again, and
``virtio_blk_load_device()`` puts each that it reads in front of the list, so that the list is
turned around by each migration.  The requests are of no order: they all wait.
"""

from __future__ import annotations

from typing import Final

#: ``VirtQueueElementOld``: three numbers, 1024 addresses and 1024 lengths each way; the compiler's alignment.
_ELEMENT: Final = 16 + 2 * 1024 * 8 + 2 * 1024 * 16
#: In front of it a byte, and the queue's number if there are several; behind it how many descriptors
#: a packed ring has for it.
_AROUND: Final = (1, 5)

#: Why such a list differs.
TURNED_AROUND: Final = (
    "requests that wait to be tried again are a list, which QEMU turns around when it loads it "
    "(virtio_blk_load_device)"
)


def are_turned_around(source: bytes, destination: bytes) -> bool:
    """Whether both hold the same requests, in opposite order."""
    if len(source) != len(destination) or source[-1:] != b"\0" or destination[-1:] != b"\0":
        return False
    for size in (_ELEMENT + around + packed for around in _AROUND for packed in (0, 4)):
        if (len(source) - 1) % size == 0:
            return _pieces(source, size) == _pieces(destination, size)[::-1]
    return False


def _pieces(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data) - 1, size)]
