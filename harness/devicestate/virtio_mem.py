# SPDX-License-Identifier: GPL-2.0-or-later
"""Which blocks of a virtio-mem device are plugged in, by the state that QEMU saves of it.

Source: QEMU's hw/virtio/virtio-mem.c, ``vmstate_virtio_mem_device_early``, which machines from
version 8.1 on have.  The bits are QEMU's own, with which it leaves the other blocks out of a migration.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt

from harness.devicestate.sections import Section

#: Address, size of the region, size of a block, node; then how much is plugged in.
_HEAD: Final = struct.Struct(">QQQIQ")
_NAME: Final = "/virtio-mem-device-early"


def plugged_pages(sections: Iterable[Section], block: str, page_size: int) -> npt.NDArray[np.bool_] | None:
    """For each page of a RAMBlock, whether it is plugged in; None: no section tells.

    ``block``: the name of the device's RAMBlock, which has the device's place in front.
    """
    place, _, _ = block.rpartition("/")
    for section in sections:
        if section.device == place + _NAME and len(section.data) >= _HEAD.size:
            _, region, size, _, plugged = _HEAD.unpack_from(section.data)
            words = np.frombuffer(section.data, dtype=">u8", offset=_HEAD.size)
            bits = np.unpackbits(words.astype("<u8").view(np.uint8), bitorder="little").astype(np.bool_)
            if not size or region % size or size % page_size or len(bits) < region // size:
                return None
            # What does not add up was read with another layout in mind.
            blocks = bits[: region // size]
            if int(blocks.sum()) * size != plugged or bits[region // size :].any():
                return None
            return np.repeat(blocks, size // page_size)
    return None
