# SPDX-License-Identifier: GPL-2.0-or-later
"""Hilbert's curve: what is near in address order is near on the map."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_Places = npt.NDArray[np.int64]


def curve(order: int) -> tuple[_Places, _Places]:
    """Row and column of each cell of a square of 2^order by 2^order, in the curve's order."""
    side = 1 << order
    distance = np.arange(side * side, dtype=np.int64)
    x, y = np.zeros_like(distance), np.zeros_like(distance)
    step = 1
    while step < side:
        # Two bits of the distance say which quadrant; the curve in it is turned accordingly.
        right = distance >> 1 & 1
        up = (distance ^ right) & 1
        turned = up == 0
        flipped = turned & (right == 1)
        x[flipped], y[flipped] = step - 1 - x[flipped], step - 1 - y[flipped]
        x[turned], y[turned] = y[turned], x[turned]
        x += step * right
        y += step * up
        distance >>= 2
        step <<= 1
    return y, x
