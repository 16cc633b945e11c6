# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest's memory as it is now, kept while the guest writes on."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from harness.errors import MachineryError
from harness.memory.image import RamImage
from harness.units import PAGE_SIZE

if TYPE_CHECKING:
    from harness.memory.access import Image


def frozen(image: Image) -> RamImage:
    """A copy of the image of a guest that stands still, with its holes.

    It costs as much of this machine's memory as the guest uses.  Raises :class:`MachineryError` for an image
    that is on another machine.
    """
    if not isinstance(image, RamImage):
        raise MachineryError(f"{image.name}: only memory on this machine can be put aside")
    copy = os.memfd_create(f"frozen-{image.name.replace('/', '-')}", os.MFD_CLOEXEC)
    os.truncate(copy, image.size)
    for first, words in image.blocks():
        piece, at = memoryview(words.tobytes()), first * PAGE_SIZE
        while piece:
            done = os.pwrite(copy, piece, at)
            piece, at = piece[done:], at + done
    return RamImage(copy, image.size, image.name)
