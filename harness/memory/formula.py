# SPDX-License-Identifier: GPL-2.0-or-later
"""What the guest's pages must hold, computed without asking the guest.

The content of page N in generation G under seed S is a formula, the same as in
``vm-images/guest/formula.h``.  A guest that checks its own pages may be fooled
by whatever corrupted them; so the host computes the checksum of everything that
a workload must own, and compares it with what the guest read::

    generations = formula.churn_generations(seed, pages, steps=verify["steps"])
    expected = formula.expected(seed, generations)
    assert (expected.pages, expected.checksum) == (verify["pages"], verify["checksum"])

The churn is deterministic too: the number of steps that it has made is all that
is needed to know which pages it owns, and in which generation each is.  Which
pages a workload owns, its class says: :mod:`harness.scenario.workloads`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

PAGE: Final = 4096
WORDS_PER_PAGE: Final = PAGE // 8

#: What ``dma`` reads at a time, in pages.
PIECE: Final = 16

#: Of the disk that ``pagecache`` and ``dma`` read: one for all runs, so that it is made once.
DISK_SEED: Final = 0x66726565

#: In place of a generation: the workload does not own this page (any more).
FREED: Final = -1

_MASK: Final = (1 << 64) - 1
_GOLDEN: Final = 0x9E3779B97F4A7C15
_GENERATION: Final = 0xC2B2AE3D27D4EB4F
_MIX: Final = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
_PAGES_AT_ONCE: Final = 2048

#: Of the pages that a script takes: their first generation, and the most that there can be.
_SCRIPTS_GENERATION: Final = 0x9A6E0000
_SCRIPTS_PAGES: Final = 4 << 18

Words = npt.NDArray[np.uint64]
Generations = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class VerifyAnswer:
    """What ``verify`` must answer; the checksum is written as the guest writes it."""

    pages: int
    checksum: str


def _mix(z: Words) -> Words:
    """The finaliser of splitmix64, in place."""
    for shift, factor in _MIX:
        z ^= z >> np.uint64(shift)
        z *= np.uint64(factor)
    z ^= z >> np.uint64(31)
    return z


def _keys(seed: int, pages: Words, generations: Words) -> Words:
    return np.uint64(seed & _MASK) ^ (pages * np.uint64(_GOLDEN)) ^ (generations * np.uint64(_GENERATION))


def keys(seed: int, pages: Words, generations: Words) -> Words:
    """The key from which each page in its generation has its content."""
    return _keys(seed, pages, generations)


_STRIDES: Final = np.arange(1, WORDS_PER_PAGE + 1, dtype=np.uint64) * np.uint64(_GOLDEN)


def page_words(seed: int, page: int, generation: int) -> Words:
    """The 512 words of one page."""
    key = _keys(seed, np.array([page], np.uint64), np.array([generation], np.uint64))
    return _mix(key[0] + _STRIDES)


def pages_words(seed: int, pages: Words, generations: Words) -> Words:
    """The words of some pages, a row for each."""
    return _mix(_keys(seed, pages, generations)[:, np.newaxis] + _STRIDES)


def word_of(seed: int, pages: Words, generations: Words, number: int) -> Words:
    """One word, by its number, of each of some pages."""
    return _mix(_keys(seed, pages, generations) + _STRIDES[number])


def endless(seed: int, page: int, generation: int, first: int, count: int) -> Words:
    """``count`` words from number ``first`` on of a page that goes on for ever."""
    key = _keys(seed, np.array([page], np.uint64), np.array([generation], np.uint64))
    numbers = np.arange(first + 1, first + 1 + count, dtype=np.uint64)
    return _mix(key[0] + numbers * np.uint64(_GOLDEN))


def _unmix(z: Words) -> Words:
    """The opposite of :func:`_mix`, which loses nothing."""
    z = z ^ (z >> np.uint64(31)) ^ (z >> np.uint64(62))
    for shift, factor in reversed(_MIX):
        z = z * np.uint64(pow(factor, -1, 1 << 64))
        z = z ^ (z >> np.uint64(shift)) ^ (z >> np.uint64(2 * shift))
    return z


def keys_of(first_words: Words) -> Words:
    """The key of each page that begins with one of these words, if the formula wrote it."""
    return _unmix(first_words) - np.uint64(_GOLDEN)


def words_of(first_word: np.uint64) -> Words:
    """The words of the page that begins with this one, if the formula wrote it."""
    return _mix(keys_of(np.array([first_word], np.uint64))[0] + _STRIDES)


def follows(contents: Words) -> npt.NDArray[np.bool_]:
    """Which pages, a row of words each, hold what the formula gives, under whatever seed."""
    return np.array((contents == _mix(keys_of(contents[:, 0])[:, np.newaxis] + _STRIDES)).all(axis=1))


def recognise(first_words: Words, digests: Words, digest: Callable[[bytes], int]) -> npt.NDArray[np.bool_]:
    """Which pages hold what the formula gives, all of it.

    A page's first word leads back to its key, the key to all of its words, and
    those must have the digest that the page had.
    """
    found = np.zeros(len(first_words), np.bool_)
    keys = keys_of(first_words)
    for start in range(0, len(keys), _PAGES_AT_ONCE):
        some = keys[start : start + _PAGES_AT_ONCE]
        content = _mix(some[:, np.newaxis] + _STRIDES)
        found[start : start + len(some)] = [
            digest(page.tobytes()) == int(said)
            for page, said in zip(content, digests[start : start + len(some)], strict=True)
        ]
    return found


def generations_of(first_words: Words, seed: int, pages: Words) -> Words:
    """The generation of each page, by its first word, if it follows the formula; else any number."""
    keys = keys_of(first_words) ^ np.uint64(seed & _MASK) ^ (pages * np.uint64(_GOLDEN))
    return keys * np.uint64(pow(_GENERATION, -1, 1 << 64))


def holds(words: Words, seed: int, pages: Words, generations: Words) -> npt.NDArray[np.bool_]:
    """Which pages, a row of words each, hold what they must in these generations."""
    keys = _keys(seed, pages, generations)
    found = np.zeros(len(keys), np.bool_)
    for start in range(0, len(keys), _PAGES_AT_ONCE):
        some = slice(start, start + _PAGES_AT_ONCE)
        found[some] = (words[some] == _mix(keys[some, np.newaxis] + _STRIDES)).all(axis=1)
    return found


def page_with(word: np.uint64, place: int) -> Words:
    """All words of the page of which ``word`` is the one at ``place``, counted from 0."""
    key = keys_of(np.array([word])) + _STRIDES[0] - _STRIDES[place]
    return _mix(key + _STRIDES)


def first_generation(seed: int, keys: Words) -> Words:
    """The number of each page, if it is of generation 0 under this seed; else any number."""
    return (keys ^ np.uint64(seed & _MASK)) * np.uint64(pow(_GOLDEN, -1, 1 << 64))


def of_scripts(seed: int, keys: Words, writes: int) -> npt.NDArray[np.bool_]:
    """Which of these keys are of pages that a script took (``pages-alloc``), in their ``writes`` generations.

    As ``vm-images/guest/pages.c`` has them: each action that writes begins a new one.
    """
    found = np.zeros(len(keys), np.bool_)
    for generation in range(_SCRIPTS_GENERATION, _SCRIPTS_GENERATION + writes):
        number = first_generation(seed, keys ^ np.uint64(generation * _GENERATION & _MASK))
        found |= number < np.uint64(_SCRIPTS_PAGES)
    return found


def among(numbers: Words, generations: Generations) -> npt.NDArray[np.bool_]:
    """Which of these are numbers of pages that are owned, by the generation of each page."""
    known = numbers < np.uint64(len(generations))
    found = np.zeros(len(numbers), np.bool_)
    found[known] = generations[numbers[known].astype(np.int64)] != FREED
    return found


def disk_content(first: int, count: int) -> Words:
    """The words of ``count`` pages of the disk from ``first`` on."""
    pages = np.arange(first, first + count, dtype=np.uint64)
    keys = _keys(DISK_SEED, pages, np.zeros(count, np.uint64))
    return _mix(keys[:, np.newaxis] + _STRIDES)


def page_sums(seed: int, pages: Words, generations: Words) -> Words:
    """For each page, the sum of its words."""
    keys = _keys(seed, pages, generations)
    sums = np.empty(len(keys), np.uint64)
    for start in range(0, len(keys), _PAGES_AT_ONCE):
        some = keys[start : start + _PAGES_AT_ONCE, np.newaxis]
        sums[start : start + _PAGES_AT_ONCE] = _mix(some + _STRIDES).sum(axis=1, dtype=np.uint64)
    return sums


def checksum(seed: int, pages: Words, generations: Words, *, holding: Words | None = None) -> str:
    """The checksum of a whole run, as the guest writes it.

    ``holding``: which page of the formula each of them has, where it is not its own.
    """
    weights = pages * np.uint64(2) + np.uint64(1)
    sums = page_sums(seed, pages if holding is None else holding, generations)
    return f"{int((sums * weights).sum(dtype=np.uint64)):016x}"


def _draws(seed: int, steps: int) -> tuple[Words, Words]:
    """The two random words of each step of a workload that goes on, from the first one on."""
    k = np.arange(1, steps + 1, dtype=np.uint64) * np.uint64(2)
    base = np.uint64(seed & _MASK)
    return _mix(base + k * np.uint64(_GOLDEN)), _mix(base + (k + np.uint64(1)) * np.uint64(_GOLDEN))


def draws_of(seed: int, worker: int, steps: int) -> Words:
    """A random word for each step of one of several workers of a workload, from the first one on."""
    k = np.arange(1, steps + 1, dtype=np.uint64)
    base = np.uint64((seed + (worker + 1) * _GENERATION) & _MASK)
    return _mix(base + k * np.uint64(_GOLDEN))


def churn_spans(seed: int, pages: int, steps: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Where each step of a churn begins and ends, in pages; the end is not a part of it."""
    a, b = _draws(seed, steps)
    span = np.where((a >> np.uint64(3)) & np.uint64(63), np.uint64(32), np.uint64(512))
    starts = b % np.uint64(pages)
    ends = np.minimum(starts + np.uint64(1) + (a >> np.uint64(16)) % span, np.uint64(pages))
    return starts.astype(np.int64), ends.astype(np.int64)


def churn_generations(seed: int, pages: int, steps: int, *, frees: bool = True) -> Generations:
    """Of every page of a churn after ``steps`` steps; -1 where it owns none.

    One that never ``frees`` writes instead.
    """
    table: Generations = np.zeros(pages, np.int64)
    a, _ = _draws(seed, steps)
    writes = (a & np.uint64(7)) < np.uint64(5)
    starts, ends = churn_spans(seed, pages, steps)
    steps_taken = zip(writes.tolist(), starts.tolist(), ends.tolist(), strict=True)
    for step, (write, start, end) in enumerate(steps_taken, start=1):
        table[start:end] = step if write or not frees else FREED
    return table


def churn_writes(seed: int, pages: int, steps: int, *, frees: bool = True) -> tuple[Words, Words]:
    """Every page that a churn has written, loading included (generation 0), with the step that did it."""
    a, b = _draws(seed, steps)
    span = np.where((a >> np.uint64(3)) & np.uint64(63), np.uint64(32), np.uint64(512))
    starts = b % np.uint64(pages)
    ends = np.minimum(starts + np.uint64(1) + (a >> np.uint64(16)) % span, np.uint64(pages))
    counts = (ends - starts).astype(np.int64)
    if frees:
        counts[(a & np.uint64(7)) >= np.uint64(5)] = 0
    numbers = np.repeat(np.arange(1, steps + 1, dtype=np.uint64), counts)
    # Within a step the pages go up from its start.
    within = np.arange(counts.sum(), dtype=np.uint64) - np.repeat(
        (np.cumsum(counts) - counts).astype(np.uint64), counts
    )
    loaded = np.arange(pages, dtype=np.uint64)
    written = np.repeat(starts, counts) + within
    return np.concatenate([loaded, written]), np.concatenate([np.zeros_like(loaded), numbers])


def unchanged(size: int) -> Generations:
    """Of every page of ``size`` bytes that are as they were loaded."""
    return np.zeros(size // PAGE, np.int64)


def pieces_held(seed: int, pieces: int, steps: int) -> Words:
    """Which piece of the disk each piece of memory of the workload ``dma`` holds after ``steps`` steps."""
    held = np.arange(pieces, dtype=np.uint64)
    to, came = (drawn % np.uint64(pieces) for drawn in _draws(seed, steps))
    # Of those that went to the same place numpy keeps the last.
    held[to.astype(np.int64)] = came
    return held


def expected_pieces(seed: int, pieces: int, steps: int) -> VerifyAnswer:
    """What ``dma`` must find in so many pieces after ``steps`` steps."""
    inside = np.arange(PIECE, dtype=np.uint64)
    held = pieces_held(seed, pieces, steps)
    came = (held[:, np.newaxis] * np.uint64(PIECE) + inside).ravel()
    places = np.arange(len(came), dtype=np.uint64)
    return VerifyAnswer(len(came), checksum(DISK_SEED, places, np.zeros_like(places), holding=came))


def expected(seed: int, generations: Generations) -> VerifyAnswer:
    """What a guest must find in its pages, by the generation of each; FREED where it has none."""
    pages = np.flatnonzero(generations != FREED)
    return VerifyAnswer(
        len(pages), checksum(seed, pages.astype(np.uint64), generations[pages].astype(np.uint64))
    )
