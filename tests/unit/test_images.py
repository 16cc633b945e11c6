# SPDX-License-Identifier: GPL-2.0-or-later
"""RAM images: what is read, what is not touched, what is found."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import MachineryError
from harness.memory.compare import compare
from harness.memory.digest import RequestDigests, look, page_digests, zero_flags
from harness.memory.image import BLOCK_PAGES, RamImage, zero_rows
from harness.memory.spill import on_disk
from harness.units import PAGE_SIZE

#: A page is a hole, zeros that were written, or a content; "last" differs from it in its last byte only.
KINDS = st.sampled_from(["hole", "zero", "a", "b", "last", "only-last"])


def content(kind: str) -> bytes:
    page = bytearray(PAGE_SIZE)
    if kind in ("a", "last"):
        page[:] = b"\x5a" * PAGE_SIZE
    elif kind == "b":
        page[:] = b"\xa5" * PAGE_SIZE
    if kind in ("last", "only-last"):
        page[-1] = 1
    return bytes(page)


def make(kinds: list[str]) -> RamImage:
    fd = os.memfd_create("test")
    os.ftruncate(fd, len(kinds) * PAGE_SIZE)
    for number, kind in enumerate(kinds):
        if kind != "hole":
            os.pwrite(fd, content(kind), number * PAGE_SIZE)
    return RamImage(fd, len(kinds) * PAGE_SIZE, "test")


def blocks_of(image: RamImage) -> int:
    return os.fstat(image._fd).st_blocks


@given(st.lists(st.tuples(KINDS, KINDS), min_size=1, max_size=12), st.integers(0, 2 * BLOCK_PAGES))
@settings(max_examples=200)
def test_compare_finds_what_differs(pairs: list[tuple[str, str]], gap: int) -> None:
    half = len(pairs) // 2
    pairs = pairs[:half] + [("hole", "hole")] * gap + pairs[half:]
    left, right = [a for a, _ in pairs], [b for _, b in pairs]
    with make(left) as source, make(right) as destination:
        before = blocks_of(source), blocks_of(destination)
        result = compare(source, destination)
        # Looking must not fill holes: the destination's are the memory that was saved.
        assert (blocks_of(source), blocks_of(destination)) == before
    assert result.differing.tolist() == [n for n, (a, b) in enumerate(pairs) if content(a) != content(b)]
    assert result.zero_on_source.tolist() == [kind in ("hole", "zero") for kind in left]
    assert result.zero_on_destination.tolist() == [kind in ("hole", "zero") for kind in right]
    assert result.hole_on_source.tolist() == [kind == "hole" for kind in left]
    assert result.equal == (not result.differing.size)


@given(st.lists(KINDS, min_size=1, max_size=12), st.integers(0, 2 * BLOCK_PAGES))
@settings(max_examples=200)
def test_digests_tell_contents_apart(kinds: list[str], gap: int) -> None:
    kinds = ["hole"] * gap + kinds
    with make(kinds) as image:
        before = blocks_of(image)
        digests = page_digests(image)
        assert blocks_of(image) == before
    by_content: dict[bytes, int] = {}
    for kind, digest in zip(kinds, digests.tolist(), strict=True):
        assert by_content.setdefault(content(kind), digest) == digest
    assert len(set(by_content.values())) == len(by_content)
    assert zero_flags(digests).tolist() == [kind in ("hole", "zero") for kind in kinds]


def test_zero_rows_misses_no_byte() -> None:
    for byte in (0, 7, 8, 511, 512, 2048, 4095):
        page = bytearray(PAGE_SIZE)
        page[byte] = 1
        assert not zero_rows(np.frombuffer(bytes(page), dtype="<u8").reshape(1, -1)).any()
    assert zero_rows(np.zeros((3, 512), dtype=np.uint64)).all()


def test_reading_and_extents(tmp_path: Path) -> None:
    kinds = ["a", "hole", "b", *["hole"] * BLOCK_PAGES, "last"]
    with make(kinds) as image:
        assert list(image.extents()) == [(0, 1), (2, 1), (len(kinds) - 1, 1)]
        assert list(image.extents(coarse=True)) == [(0, BLOCK_PAGES), (BLOCK_PAGES, len(kinds) - BLOCK_PAGES)]
        assert image.page(2) == content("b")
        assert image.page(1) == bytes(PAGE_SIZE)
        assert [first for first, _ in image.blocks()] == [0, BLOCK_PAGES]
        for first, count in ((-1, 1), (0, 0), (len(kinds), 1), (0, BLOCK_PAGES + 1)):
            with pytest.raises(ValueError, match="pages"):
                image.read(first, count)


def test_from_bytes_is_the_bytes() -> None:
    data = content("a") + content("zero") + content("last")
    with RamImage.from_bytes(data, "rom") as image:
        assert b"".join(image.page(number) for number in range(3)) == data


@pytest.mark.parametrize("size", [0, PAGE_SIZE - 1, 2 * PAGE_SIZE, -PAGE_SIZE])
def test_an_image_of_the_wrong_size_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "ram"
    path.write_bytes(bytes(PAGE_SIZE))
    with pytest.raises(MachineryError, match="expected a memory image of"):
        RamImage.open(path, size)


def test_a_missing_image(tmp_path: Path) -> None:
    with pytest.raises(MachineryError, match="cannot open the memory image"):
        RamImage.open(tmp_path / "none", PAGE_SIZE)


def test_an_image_that_is_cut_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "ram"
    path.write_bytes(content("a") * 4)
    with RamImage.open(path, 4 * PAGE_SIZE) as image:
        os.truncate(path, 2 * PAGE_SIZE)
        with pytest.raises(MachineryError, match="truncated: nothing at byte 8192 of 16384"):
            image.read(0, 4)


def test_images_of_different_size() -> None:
    with make(["a"]) as one, make(["a", "a"]) as two, pytest.raises(MachineryError, match="different size"):
        compare(one, two)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_digests_of_a_comparison_are_those_of_a_look_of_its_own(stack: ExitStack) -> None:
    source = stack.enter_context(make(["a", "zero", "hole", "b", "hole", "a"]))
    there = stack.enter_context(make(["a", "b", "hole", "hole", "a", "a"]))
    found = compare(source, there, digests=True)
    assert found.digests is not None
    assert found.digests.unchanged(look(source)).all()
    assert compare(source, there).digests is None


def test_what_was_seen_earlier_goes_to_disk_and_says_the_same(stack: ExitStack, tmp_path: Path) -> None:
    digests = RequestDigests()
    for request, content in enumerate((["a", "zero", "b"], ["a", "a", "b"], ["b", "b", "b"]), start=1):
        digests.take(request, {"pc.ram": stack.enter_context(make(content))})
    now = {"pc.ram": look(stack.enter_context(make(["a", "a", "hole"])))}
    before = {request: flags["pc.ram"].tolist() for request, flags in digests.unchanged(now).items()}
    digests.spill(tmp_path, but=2)
    kept = [isinstance((digests.at(request) or {})["pc.ram"]._values, np.memmap) for request in (1, 2, 3)]
    assert kept == [True, False, False]
    assert list(tmp_path.iterdir()) == []
    assert {r: flags["pc.ram"].tolist() for r, flags in digests.unchanged(now).items()} == before
    firsts, _ = (digests.at(1) or {})["pc.ram"].marks(np.array([0, 2]))
    assert firsts[0] != firsts[1]


def test_request_digests(stack: ExitStack) -> None:
    digests = RequestDigests()
    digests.take(1, {"pc.ram": stack.enter_context(make(["a", "zero", "b"]))})
    digests.take(2, {"pc.ram": stack.enter_context(make(["a", "a", "b"]))})
    now = {"pc.ram": look(stack.enter_context(make(["a", "a", "hole"])))}
    assert digests.requests == (1, 2)
    unchanged = digests.unchanged(now)
    assert unchanged[1]["pc.ram"].tolist() == [True, False, False]
    assert unchanged[2]["pc.ram"].tolist() == [True, True, False]
    assert digests.zero_at(1)["pc.ram"].tolist() == [False, True, False]
    assert digests.zero_at(9) == {}
    assert digests.at(9) is None
    assert now["pc.ram"].zero.tolist() == [False, False, True]


def test_what_is_put_on_disk_is_the_same_and_in_a_mapping_of_ones_own(tmp_path: Path) -> None:
    array = np.arange(10_000, dtype=np.uint64)
    again = on_disk(array, tmp_path)
    assert np.array_equal(again, array)
    assert not again.flags.writeable
    assert not list(tmp_path.iterdir())
    # A shared one of a file that is open for writing is refused by 9p.
    maps = [
        line.split() for line in Path("/proc/self/maps").read_text().splitlines() if str(tmp_path) in line
    ]
    assert maps
    assert all(words[1].endswith("p") for words in maps)
    assert on_disk(again, tmp_path) is again


def test_a_block_that_may_still_grow_has_room_behind_it() -> None:
    """What is there is no part of it; a file of another size than it may have is refused."""
    fd = os.memfd_create("room")
    os.pwrite(fd, b"\1" * PAGE_SIZE, 0)
    os.pwrite(fd, b"\2" * PAGE_SIZE, 5 * PAGE_SIZE)
    os.ftruncate(fd, 8 * PAGE_SIZE)
    with RamImage(os.dup(fd), 2 * PAGE_SIZE, "rom", room=8 * PAGE_SIZE) as image:
        assert image.holes().tolist() == [False, True]
        with image.again() as again:
            assert again.page(0) == b"\1" * PAGE_SIZE
    with pytest.raises(MachineryError, match="found 32768 bytes"):
        RamImage(fd, 2 * PAGE_SIZE, "rom")
