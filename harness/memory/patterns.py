# SPDX-License-Identifier: GPL-2.0-or-later
"""What the pages of the workload ``patterns`` hold, computed without asking the guest.

Each page changes in one of eight ways, by its number, and a write changes as little as that way
says.  The same stands in ``vm-images/guest/patterns.h``; a unit test compares the two::

    writes = patterns.writes_of(seed, pages, steps)
    expected = patterns.patterns_checksum(seed, writes)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from harness.memory import formula
from harness.memory.formula import Words

ONE_BIT, TOGGLED, SAME, ZERO_AND_BACK, EDGES, FEW_WORDS, NOISE_OR_WORDS, ACROSS = range(8)
WAYS: Final = 8

_ONE_BIT_WORD: Final = 7
_TOGGLED_WORD: Final = 100
_FEW: Final = range(200, 204)
_NOISE_EVERY: Final = 4
_NOISE_STRIDE: Final = 37

_LOW: Final = np.uint64(0xFFFFFFFF)
_HALF: Final = np.uint64(32)
_PAGES_AT_ONCE: Final = 2048


def writes_of(seed: int, pages: int, steps: int) -> Words:
    """How often each of so many pages has been written to after so many steps."""
    edges = np.zeros(pages + 1, np.int64)
    starts, ends = formula.churn_spans(seed, pages, steps)
    np.add.at(edges, starts, 1)
    np.add.at(edges, ends, -1)
    return np.cumsum(edges[:-1]).astype(np.uint64)


def contents(seed: int, writes: Words) -> Iterator[tuple[Words, Words]]:
    """Some pages after the other: their numbers, and a row of words for each."""
    for start in range(0, len(writes), _PAGES_AT_ONCE):
        pages = np.arange(start, min(start + _PAGES_AT_ONCE, len(writes)), dtype=np.uint64)
        yield pages, _contents(seed, pages, writes)


def patterns_checksum(seed: int, writes: Words) -> str:
    """The checksum of all pages, as the guest writes it."""
    total = np.uint64(0)
    for pages, words in contents(seed, writes):
        sums = words.sum(axis=1, dtype=np.uint64)
        total += (sums * (pages * np.uint64(2) + np.uint64(1))).sum(dtype=np.uint64)
    return f"{int(total):016x}"


def _contents(seed: int, pages: Words, writes: Words) -> Words:
    way = pages % np.uint64(WAYS)
    count = writes[pages.astype(np.int64)]
    inside = count % np.uint64(_NOISE_EVERY)
    numbers = np.where(way == SAME, np.uint64(SAME), pages)
    filled = np.where(way == NOISE_OR_WORDS, count - inside, np.uint64(0))
    words = formula.pages_words(seed, numbers, filled)

    def rows(of: int, condition: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[np.intp]:
        chosen = way == of
        return np.flatnonzero(chosen & (count > 0) if condition is None else chosen & condition)

    some = rows(ONE_BIT)
    words[some, _ONE_BIT_WORD] ^= np.uint64(1) << (count[some] % np.uint64(64))
    before = np.where(pages > 0, writes[np.maximum(pages.astype(np.int64) - 1, 0)], np.uint64(0))
    some = rows(ONE_BIT, (pages > 0) & (before > 0))
    reached = formula.word_of(seed, pages[some] - np.uint64(1), before[some], 0)
    words[some, 0] = (words[some, 0] & ~_LOW) | (reached >> _HALF)
    some = rows(TOGGLED, count % np.uint64(2) == 1)
    words[some, _TOGGLED_WORD] = ~words[some, _TOGGLED_WORD]
    words[rows(ZERO_AND_BACK, count % np.uint64(2) == 1)] = 0
    some = rows(EDGES)
    byte = count[some] & np.uint64(0xFF)
    words[some, 0] = (words[some, 0] & ~np.uint64(0xFF)) | byte
    top = np.uint64(56)
    words[some, -1] = (words[some, -1] & ~(np.uint64(0xFF) << top)) | ((byte ^ np.uint64(0xFF)) << top)
    some = rows(FEW_WORDS)
    for word in _FEW:
        words[some, word] = formula.word_of(seed, pages[some], count[some], word)
    for nth in range(1, _NOISE_EVERY):
        some = rows(NOISE_OR_WORDS, inside >= nth)
        word = nth * _NOISE_STRIDE
        words[some, word] = formula.word_of(seed, pages[some], filled[some] + np.uint64(nth), word)
    some = rows(ACROSS)
    value = formula.word_of(seed, pages[some], count[some], 0)
    words[some, -1] = (words[some, -1] & _LOW) | ((value & _LOW) << _HALF)
    return words
