# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory that is not zero when a guest is restored into it, as that of a host which uses it again."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Final

from harness.errors import MachineryError
from harness.memory.qemu_ram import BlockPlace

#: What every byte of it holds: neither zero nor anything that a guest is likely to have there.
USED: Final = 0xAA
_PIECE: Final = 1 << 20


def fill(pid: int, blocks: Iterable[BlockPlace]) -> int:
    """Write :data:`USED` into every byte of these RAMBlocks of a QEMU on this machine; how many bytes.

    The guest must not run yet.  Raises :class:`MachineryError` if the kernel does not let us.
    """
    piece, done = bytes([USED]) * _PIECE, 0
    try:
        descriptor = os.open(f"/proc/{pid}/mem", os.O_RDWR | os.O_CLOEXEC)
        try:
            for block in blocks:
                if block.address is None:
                    raise MachineryError(f"QEMU does not tell where it has {block.name}")
                at = 0
                while at < block.used:
                    at += os.pwrite(descriptor, piece[: block.used - at], block.address + at)
                done += at
        finally:
            os.close(descriptor)
    except OSError as error:
        raise MachineryError(f"the destination's memory cannot be written to: {error.strerror}") from error
    return done
