# SPDX-License-Identifier: GPL-2.0-or-later
"""Arrays that are needed again, but not soon: on disk, and mapped.

A migration may ask a guest many times.  What was seen at each request is half a
percent of the guest's memory; only the last ones need to be at hand.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

_Scalar = TypeVar("_Scalar", bound=np.generic)


def on_disk(array: npt.NDArray[_Scalar], folder: Path) -> npt.NDArray[_Scalar]:
    """The array's values in a file below ``folder``, mapped; the file goes with the array."""
    if isinstance(array, np.memmap) or not array.size:
        return array
    with tempfile.TemporaryFile(dir=folder) as file:
        np.ascontiguousarray(array).tofile(file)
        file.flush()
        # Private: 9p, through which a nested machine writes, shares no mapping of a file open for writing.
        mapped: np.memmap[Any, np.dtype[_Scalar]] = np.memmap(
            file, dtype=array.dtype, mode="c", shape=array.shape
        )
    mapped.flags.writeable = False
    return mapped
