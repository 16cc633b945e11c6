# SPDX-License-Identifier: GPL-2.0-or-later
"""A PNG with a palette, written with zlib and nothing else."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def png(cells: npt.NDArray[np.uint8], palette: Sequence[tuple[int, int, int]]) -> bytes:
    """An image with a pixel for each cell; a cell is an index into the palette (at most 256 colours)."""
    height, width = cells.shape
    if not 0 < len(palette) <= 256 or cells.max(initial=0) >= len(palette):
        raise ValueError(f"{len(palette)} colours for cells up to {cells.max(initial=0)}")
    # Each row begins with the number of its filter: none.
    rows = np.zeros((height, width + 1), dtype=np.uint8)
    rows[:, 1:] = cells
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    colours = bytes(part for colour in palette for part in colour)
    body = zlib.compress(rows.tobytes(), 9)
    parts = ((b"IHDR", header), (b"PLTE", colours), (b"IDAT", body), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in parts)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
