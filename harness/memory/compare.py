# SPDX-License-Identifier: GPL-2.0-or-later
"""Two RAM images side by side, byte for byte: which pages differ, which are zero.

    result = compare(source, destination)
    result.differing            # page numbers, ascending

Read in blocks of 1 MiB a side, so that what is compared is still in the cache;
where both sides have a hole nothing is read.
"""

from __future__ import annotations

import numpy as np

from harness.errors import MachineryError
from harness.memory.access import Comparison, Image, PageNumbers
from harness.memory.digest import LocalDigests, digest_rows, empty_digests
from harness.memory.image import Flags, RamImage, Words, block_runs, zero_rows

__all__ = ["Comparison", "PageNumbers", "compare"]


def compare(source: Image, destination: Image, *, digests: bool = False) -> Comparison:
    """Compare every page; both guests must be stopped.  Images on other machines by their digests.

    ``digests``: take those of the source's pages as well, while they are in the cache.
    """
    if not isinstance(source, RamImage):
        if isinstance(destination, RamImage):
            raise MachineryError(f"{source.name}: one side is here, the other is not")
        return source.compared_with(destination)
    if not isinstance(destination, RamImage):
        raise MachineryError(f"{source.name}: one side is here, the other is not")
    if source.size != destination.size:
        raise MachineryError(
            f"images of different size: {source.name} has {source.size} bytes, "
            f"{destination.name} has {destination.size}"
        )
    # Exact on the source only: there, a hole tells a page that was given back from a
    # page that was written with zeros.
    hole_a, hole_b = source.holes(), destination.holes(coarse=True)
    zero_a, zero_b = hole_a.copy(), hole_b.copy()
    found: list[PageNumbers] = []
    values = empty_digests(source.pages) if digests else None
    for first, count in block_runs(~(hole_a & hole_b)):
        here = slice(first, first + count)
        a = None if hole_a[here].all() else source.read(first, count)
        b = None if hole_b[here].all() else destination.read(first, count)
        if a is not None and values is not None:
            digest_rows(a, values[here])
        differ = _compare_block(a, b, zero_a[here], zero_b[here])
        if differ.size:
            found.append(differ + first)
    differing = np.concatenate(found) if found else np.empty(0, dtype=np.int64)
    taken = None if values is None else LocalDigests(values)
    return Comparison(source.pages, differing, zero_a, zero_b, hole_a, taken)


def _compare_block(a: Words | None, b: Words | None, zero_a: Flags, zero_b: Flags) -> PageNumbers:
    """The rows that differ; sets the flags of zero rows in place.  None is all holes."""
    if a is None or b is None:
        data, zero = (b, zero_b) if a is None else (a, zero_a)
        if data is None:
            return np.empty(0, dtype=np.int64)
        zero[:] = zero_rows(data)
        return np.flatnonzero(~zero)
    zero_a[:] = zero_rows(a)
    differ = a != b
    if not differ.any():
        zero_b[:] = zero_a
        return np.empty(0, dtype=np.int64)
    zero_b[:] = zero_rows(b)
    # Eight flags at a time: a row of 512 flags is 64 words.
    return np.flatnonzero(differ.view(np.uint64).any(axis=1))
