# SPDX-License-Identifier: GPL-2.0-or-later
"""The module's clipping of free blocks to a window, compiled here, against sets of frames."""

from __future__ import annotations

import ctypes
import random
import shutil
import subprocess
from pathlib import Path

import pytest

MODULE = Path(__file__).parents[2] / "guest-module"
CHUNK_BITS = 1 << 18
CHUNKS = 3

SHIM = r"""
#include <stdint.h>
typedef uint64_t __le64;
#include <stdbool.h>
#ifdef OTHER_ORDER /* what a big endian machine computes; its words are stored the other way round, too */
#define cpu_to_le64(x) __builtin_bswap64(x)
#else
#define cpu_to_le64(x) (x)
#endif
#define min(a, b) ((a) < (b) ? (a) : (b))
#define max(a, b) ((a) > (b) ? (a) : (b))
#define VFPI_MAX_BITS (1U << 18)
#ifndef FPB_PAGE_ORDER
#define FPB_PAGE_ORDER 0
#endif
struct fpb_chunk { __le64 *bitmap; };
struct fpb_pass { unsigned long start, end, base; unsigned int chunk_bits; struct fpb_chunk *chunks[3]; };
#include "window.h"

/* Marks blocks in three chunks, each with one untouchable word behind it. */
void mark(unsigned long start, unsigned long end, unsigned long base, __le64 *bits,
    unsigned int nr, const unsigned long *pfns, const unsigned int *orders)
{
    struct fpb_chunk chunks[3] = {
        { bits }, { bits + (VFPI_MAX_BITS / 64 + 1) }, { bits + 2 * (VFPI_MAX_BITS / 64 + 1) }
    };
    struct fpb_pass pass = { start, end, base, VFPI_MAX_BITS, { &chunks[0], &chunks[1], &chunks[2] } };

    for (unsigned int i = 0; i < nr; i++)
        fpb_mark(&pass, pfns[i], orders[i]);
}

void set(__le64 *bits, unsigned int from, unsigned int to) { fpb_set_bits(bits, from, to); }
void clear(__le64 *bits, unsigned int from, unsigned int to) { fpb_clear_bits(bits, from, to); }
bool all_set(const __le64 *bits, unsigned int from, unsigned int to) { return fpb_all_set(bits, from, to); }
"""


def compiled(folder: Path, *options: str) -> ctypes.CDLL:
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("no gcc")
    (folder / "shim.c").write_text(SHIM)
    # The sanitizer's runtime cannot be loaded into Python; its trap needs none.
    flags = ["-shared", "-fPIC", "-O1", "-Wall", "-fsanitize=undefined", "-fsanitize-undefined-trap-on-error"]
    library = folder / "window.so"
    command = [compiler, *flags, *options, "-I", str(MODULE), "-o", str(library), str(folder / "shim.c")]
    subprocess.run(command, check=True)
    return ctypes.CDLL(str(library))


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return compiled(tmp_path_factory.mktemp("window"))


def marked(library: ctypes.CDLL, start: int, end: int, blocks: list[tuple[int, int]]) -> set[int]:
    """The frames whose bits are set after these blocks were seen."""
    base = start - start % 64
    stride = CHUNK_BITS // 8 + 8
    buffer = ctypes.create_string_buffer(CHUNKS * stride)
    pfns = (ctypes.c_ulong * len(blocks))(*[pfn for pfn, _ in blocks])
    orders = (ctypes.c_uint * len(blocks))(*[order for _, order in blocks])
    limits = (ctypes.c_ulong(limit) for limit in (start, end, base))
    library.mark(*limits, buffer, len(blocks), pfns, orders)
    parts = [buffer.raw[i * stride : (i + 1) * stride] for i in range(CHUNKS)]
    assert not any(any(part[-8:]) for part in parts)
    bits = int.from_bytes(b"".join(part[:-8] for part in parts), "little")
    frames: set[int] = set()
    at = 0
    while bits:
        skip = (bits & -bits).bit_length() - 1
        run = (~(bits >> skip) & ((bits >> skip) + 1)).bit_length() - 1
        frames.update(range(base + at + skip, base + at + skip + run))
        bits >>= skip + run
        at += skip + run
    return frames


def expected(start: int, end: int, blocks: list[tuple[int, int]]) -> set[int]:
    return {f for pfn, order in blocks for f in range(max(pfn, start), min(pfn + (1 << order), end))}


@pytest.mark.parametrize(
    ("start", "end", "block"),
    [
        (0, 1024, (0, 10)),
        (100, 612, (0, 10)),  # larger than the window, on both sides
        (100, 612, (96, 3)),  # begins below: the part inside is not lost
        (100, 612, (608, 3)),  # ends above
        (100, 612, (612, 0)),  # the first frame behind the window
        (100, 612, (99, 0)),
        (100, 612, (611, 0)),
        (100, 612, (0, 2)),
        (100, 100 + 2 * CHUNK_BITS, (CHUNK_BITS, 10)),  # across two chunks, as the base is 64
        (63, 64, (0, 6)),
        (64, 65, (64, 6)),
        (0, CHUNKS * CHUNK_BITS, (CHUNKS * CHUNK_BITS - 1024, 10)),
    ],
)
def test_edges(library: ctypes.CDLL, start: int, end: int, block: tuple[int, int]) -> None:
    assert marked(library, start, end, [block]) == expected(start, end, [block])


@pytest.mark.parametrize("seed", range(20))
def test_any_blocks_in_any_window(library: ctypes.CDLL, seed: int) -> None:
    rng = random.Random(seed)
    origin = rng.choice([0, 1 << 20, (1 << 40) + 4096])
    start = origin + rng.randrange(4096)
    end = min(start + rng.randrange(1, CHUNKS * CHUNK_BITS), start - start % 64 + CHUNKS * CHUNK_BITS)
    orders = [rng.randrange(11) for _ in range(200)]
    frames = [rng.randrange(origin, end + 2048) for _ in orders]
    blocks = [(frame >> order << order, order) for frame, order in zip(frames, orders, strict=True)]
    assert marked(library, start, end, blocks + blocks[:50]) == expected(start, end, blocks)


@pytest.mark.parametrize("page_order", [2, 4])
def test_a_page_of_several_frames_sets_the_bit_of_each(tmp_path: Path, page_order: int) -> None:
    """As on a kernel with pages of 16 and 64 KiB: pages come in, bits are of 4 KiB."""
    library = compiled(tmp_path, f"-DFPB_PAGE_ORDER={page_order}")
    each = 1 << page_order
    assert marked(library, 0, 1024, [(0, 0), (3, 0), (8, 2)]) == {
        *range(each),
        *range(3 * each, 4 * each),
        *(frame for frame in range(8 * each, 12 * each) if frame < 1024),
    }
    # The window's edges may lie inside of a page: the host may ask for any frames.
    assert marked(library, 5 * each + 1, 6 * each - 1, [(4, 2)]) == set(range(5 * each + 1, 6 * each - 1))
    # Across two chunks, the largest block of such a kernel.
    assert len(marked(library, 0, 2 * CHUNK_BITS, [(CHUNK_BITS // each - 64, 7)])) == 128 * each


@pytest.mark.parametrize("order", ["little", "big"])
def test_bits_are_where_the_wire_has_them_whatever_the_machine(tmp_path: Path, order: str) -> None:
    """They are set, cleared and asked for as bits of little endian words, and never of the machine's own."""
    library = compiled(tmp_path, *(["-DOTHER_ORDER"] if order == "big" else []))
    rng, buffer, there = random.Random(7), ctypes.create_string_buffer(256 // 8), set[int]()

    def wire() -> set[int]:
        words = [buffer.raw[i : i + 8] for i in range(0, 256 // 8, 8)]
        wire = b"".join(word[::-1] if order == "big" else word for word in words)
        return {bit for bit in range(256) if wire[bit // 8] >> bit % 8 & 1}

    for _ in range(300):
        first, last = sorted(rng.sample(range(257), 2))
        if rng.randrange(2):
            library.set(buffer, first, last)
            there |= set(range(first, last))
        else:
            library.clear(buffer, first, last)
            there -= set(range(first, last))
        assert wire() == there
        first, last = sorted(rng.sample(range(257), 2))
        assert bool(library.all_set(buffer, first, last) & 1) == (set(range(first, last)) <= there)
