# SPDX-License-Identifier: GPL-2.0-or-later
"""The ``struct page`` of some neighbouring frames, member by member."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from harness.memory.image import Flags
from harness.memory.walk.physical import ByteArray

Words = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.uint32]


class PageViews:
    """Views of a buffer: valid until it is used again."""

    def __init__(self, first: int, content: ByteArray, missing: Flags) -> None:
        self.first = first
        """The first frame."""
        self.missing = missing
        """There is no struct page for these."""
        self._content = content

    def __len__(self) -> int:
        return len(self._content)

    def u64(self, offset: int) -> Words:
        """The 64-bit member at an offset, of every page."""
        return self._content.view("<u8")[:, offset // 8]

    def u32(self, offset: int) -> Ints:
        """The 32-bit member at an offset, of every page."""
        return self._content.view("<u4")[:, offset // 4]

    def u8(self, offset: int) -> ByteArray:
        """The member of one byte at an offset, of every page."""
        return self._content[:, offset]
