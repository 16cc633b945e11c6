# SPDX-License-Identifier: GPL-2.0-or-later
"""The outside walk on memory made by hand: what is free is found, wherever the kernel put what."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.arch import X86_64
from harness.errors import ExitCode, MachineryError
from harness.memory.image import RamImage
from harness.memory.record import Block
from harness.memory.walk import (
    NONE,
    FreeWalk,
    GuestMemory,
    Kind,
    WalkError,
    find_kernel,
    kernel_from,
    walk_memory,
    walk_source,
)
from harness.memory.walk.kernel import learn
from harness.memory.walk.vmcoreinfo import note_at
from harness.units import PAGE_SIZE
from tests.unit.fake_kernel import (
    FIRST_FREE,
    FIRST_HIGH,
    FLAGS,
    HIGH,
    HOLE_END,
    HWPOISON,
    IMAGE_AT,
    LOW,
    LRU,
    MAPPING,
    NOTE_AT,
    PAGE,
    RELEASE,
    RESERVED,
    ROOTS_AT,
    SECTION_BITS,
    SLAB_FLAG,
    SWAPBACKED,
    TYPE,
    FakeKernel,
)

KERNELS = {
    "four-levels": {},
    "five-levels": {"levels": 5},
    "two-nodes": {"nodes": 2},
    "no-isolation": {"types": 4},
    "cma": {"types": 6},
    "types-as-bits": {"numbered": False},
}


def walk(fake: FakeKernel) -> FreeWalk:
    return walk_source(fake.image(), fake.gpa)


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_what_is_on_a_list_is_found(kernel: dict[str, int]) -> None:
    fake = FakeKernel(**kernel)
    blocks = {FIRST_FREE: (3, 1), 0x810: (0, 0), 0xC00: (10, 1), 0x300: (2, 2), FIRST_HIGH + 0x400: (5, 3)}
    for frame, (order, kind) in blocks.items():
        fake.free(frame, order, kind)
    found = walk(fake)
    expected = {frame + more: frame for frame, (order, _) in blocks.items() for more in range(1 << order)}
    assert np.flatnonzero(found.free).tolist() == sorted(expected)
    for frame, start in expected.items():
        order, kind = blocks[start]
        assert (found.order[frame], found.migrate_type[frame]) == (order, kind)
        node, index = fake.zone_of(frame)
        zone = found.zones[found.zone[frame]]
        assert (zone.node, zone.index, found.node[frame]) == (node, index, node)
    assert {order: count for order, count in found.histogram.items() if count} == {
        3: 1,
        0: 1,
        10: 1,
        2: 1,
        5: 1,
    }
    assert sum(found.free_pages.values()) == len(expected)
    assert found.release == RELEASE
    nothing = ~found.free
    assert (found.order[nothing] == NONE).all() and (found.zone[nothing] == NONE).all()
    assert (found.node[nothing] == -1).all()


def test_pages_of_16_kib_are_found_by_frame() -> None:
    """The kernel counts its own pages, everywhere; what is told of them is told of each frame of 4 KiB."""
    fake = FakeKernel(page_size=4 * PAGE_SIZE, levels=3)
    tables = replace(X86_64.page_tables, page_shifts=(12, 14), levels=(3,))
    high = fake.first_high
    blocks = {0x200: (3, 1), 0x210: (0, 0), 0x300: (6, 1), 0xC0: (2, 2), high + 0x100: (5, 3)}
    for page, (order, kind) in blocks.items():
        fake.free(page, order, kind)
    memory = fake.guest()
    kernel = learn(memory, note_at(memory, NOTE_AT), replace(X86_64, page_tables=tables))
    assert (kernel.page_size, kernel.frames_per_page) == (16384, 4)
    found = walk_memory(memory, kernel)
    expected = {
        frame: (order, kind)
        for page, (order, kind) in blocks.items()
        for frame in range(4 * page, 4 * (page + (1 << order)))
    }
    assert found.frames == memory.frames
    assert np.flatnonzero(found.free).tolist() == sorted(expected)
    for frame, said in expected.items():
        assert (found.order[frame], found.migrate_type[frame]) == said
    assert found.kinds["absent"] == (HOLE_END - LOW) // PAGE_SIZE
    assert sum(found.free_pages.values()) == len(expected)
    assert {order: count for order, count in found.histogram.items() if count} == dict.fromkeys(
        (0, 2, 3, 5, 6), 1
    )
    assert str(found.describe(4 * 0x207 + 3)) == "frame 0x81f: free, node 0, zone 1, order 3, Movable"
    # Memory that ends inside of a page: what is not all there is not the kernel's to give away.
    shorter = GuestMemory.of([(fake.image(), [(0, 0, LOW), (HOLE_END, LOW, HIGH - PAGE_SIZE)])])
    assert walk_memory(shorter, kernel).frames == memory.frames - 1


def test_pages_that_the_architecture_does_not_have() -> None:
    error = failing(FakeKernel(say={"PAGESIZE": "16384"}))
    assert error.rule == "vmcoreinfo"
    assert "the kernel has pages of 16384 bytes, which x86_64 does not have" in str(error)


@settings(max_examples=30)
@given(st.data())
def test_any_lists_are_found(data: st.DataObject) -> None:
    fake = FakeKernel(nodes=data.draw(st.sampled_from((1, 2))))
    frames = st.integers(FIRST_FREE, 0xFFF) | st.integers(FIRST_HIGH, FIRST_HIGH + HIGH // PAGE_SIZE - 1)
    wanted = np.zeros((HOLE_END + HIGH) // PAGE_SIZE, dtype=np.bool_)
    count = 0
    blocks = data.draw(st.lists(st.tuples(frames, st.integers(0, 10), st.integers(0, 4)), max_size=40))
    for frame, order, kind in blocks:
        start = frame >> order << order
        if start >= FIRST_FREE and not wanted[start : start + (1 << order)].any():
            wanted[start : start + (1 << order)] = True
            fake.free(start, order, kind)
            count += 1
    found = walk(fake)
    assert (found.free == wanted).all()
    assert int(found.blocks.sum()) == count


def test_a_free_block_between_two_files_of_one_address_range() -> None:
    fake = FakeKernel()
    fake.free(FIRST_FREE, 4)
    half = (FIRST_FREE + 8) * PAGE_SIZE
    memory = fake.memory.tobytes()
    one, two = RamImage.from_bytes(memory[:half], "m0"), RamImage.from_bytes(memory[half:], "m1")
    ranges = [(one, [(0, 0, half)]), (two, [(half, 0, LOW - half), (HOLE_END, LOW - half, HIGH)])]
    assert int(walk_memory(GuestMemory.of(ranges)).free.sum()) == 16


@pytest.mark.parametrize("numbered", [True, False], ids=["numbers", "bits"])
def test_pages_that_are_not_free_have_a_name(numbered: bool) -> None:
    fake = FakeKernel(numbered=numbered)
    types = {"table": 0xF200_0000, "offline": 0xF100_0000} if numbered else {}
    types = types or {"table": 0xFFFF_FDFF, "offline": 0xFFFF_FEFF}
    pointer = 0xFFFF_9ABC_0000_1000
    expected = {0x900: Kind.KERNEL, 0x901: Kind.RESERVED, 0x902: Kind.POISONED, 0x903: Kind.PAGE_TABLE,
                0x904: Kind.OFFLINE, 0x905: Kind.SLAB, 0x906: Kind.SLAB, 0x907: Kind.ANONYMOUS,
                0x908: Kind.PAGE_CACHE, 0x909: Kind.SHARED, 0x90A: Kind.LOOSE, 0x90B: Kind.UNKNOWN,
                0x90C: Kind.KERNEL}  # fmt: skip
    fake.page(0x901, flags=1 << RESERVED)
    fake.page(0x902, flags=1 << HWPOISON)
    fake.page(0x903, kind=types["table"])
    fake.page(0x904, kind=types["offline"])
    if numbered:
        fake.page(0x905, kind=0xF500_0000)
    else:
        fake.page(0x905, flags=1 << SLAB_FLAG)
    fake.page(0x906, refcount=0)
    fake.word(fake.memmap(0x906) + LRU, fake.vmemmap + 0x905 * PAGE + 1)  # a tail of the one before
    for frame, mapping in ((0x907, pointer | 1), (0x908, pointer), (0x909, pointer), (0x90C, pointer | 2)):
        fake.page(frame, flags=1 << SWAPBACKED if frame == 0x909 else 0, kind=0)
        fake.word(fake.memmap(frame) + MAPPING, mapping)
    fake.page(0x90A, refcount=0)
    fake.write(fake.memmap(0x90B), b"\xff" * PAGE)
    # A tail in the newer fashion: a mask that leads from its own address to its head's.
    fake.page(0x90E, kind=0)
    fake.word(fake.memmap(0x90E) + MAPPING, pointer | 1)
    fake.page(0x90F, refcount=0)
    fake.word(fake.memmap(0x90F) + LRU, (1 << 64) - 2 * PAGE | 1)
    expected |= {0x90E: Kind.ANONYMOUS, 0x90F: Kind.ANONYMOUS}
    found = walk(fake)
    assert {frame: Kind(found.kind[frame]) for frame in expected} == expected
    assert found.describe(0x901).kind == "reserved"
    assert found.describe(1 << 40).kind == "absent"
    assert found.kinds["absent"] == (HOLE_END - LOW) // PAGE_SIZE


def test_huge_pages_of_kernels_that_have_no_type_for_them() -> None:
    say = {
        "NUMBER(PG_head_mask)": "65536",
        "NUMBER(HUGETLB_PAGE_DTOR)": "2",
        "OFFSET(page.compound_dtor)": "16",
    }
    fake = FakeKernel(say=say)
    for head, marked in ((0xA00, 2), (0xC00, 1)):
        fake.page(head, refcount=0, flags=1 << 16)
        for tail in range(head + 1, head + 0x200):
            fake.page(tail, refcount=0)
            fake.word(fake.memmap(tail) + LRU, fake.vmemmap + head * PAGE + 1)
        fake.word(fake.memmap(head + 1) + 16, marked, 1)
    found = walk(fake)
    assert set(found.kind[0xA00:0xC00].tolist()) == {Kind.HUGETLB}
    assert set(found.kind[0xC00:0xE00].tolist()) == {Kind.LOOSE}


def test_memory_by_what_the_record_says_of_blocks() -> None:
    fake = FakeKernel()
    fake.free(FIRST_HIGH, 4)
    blocks = {
        "pc.ram": Block("pc.ram", (LOW + HIGH) // PAGE_SIZE, tuple(fake.gpa)),
        "pc.rom": Block("pc.rom", 1),
    }
    memory = GuestMemory.of_blocks({"pc.ram": fake.image(), "of no block": fake.image()}, blocks)
    assert int(walk_memory(memory).free.sum()) == 16


def test_a_section_that_is_offline_has_no_free_pages() -> None:
    fake = FakeKernel()
    fake.free(FIRST_FREE, 2)
    fake.free(FIRST_HIGH, 2)
    section = ROOTS_AT + PAGE_SIZE + 16 * (HOLE_END >> SECTION_BITS)
    fake.word(section, fake.read(section) & ~4)
    with pytest.raises(WalkError) as caught:  # the lists still have its block
        walk(fake)
    assert caught.value.rule == "dangling"


def test_a_block_is_described() -> None:
    fake = FakeKernel(nodes=2)
    fake.free(FIRST_HIGH, 3, kind=4)
    found = walk(fake)
    assert (
        str(found.describe(FIRST_HIGH + 7))
        == f"frame {FIRST_HIGH + 7:#x}: free, node 2, zone 1, order 3, Isolate"
    )
    assert int(found.is_type("Isolate").sum()) == 8
    assert not found.is_type("CMA").any()


def test_the_kernel_is_learned_once() -> None:
    fake = FakeKernel()
    kernel = find_kernel(fake.guest())
    assert kernel.note.address == NOTE_AT
    fake.free(FIRST_FREE, 1)
    fake.write(NOTE_AT, bytes(64))  # not looked for again
    assert int(walk_source(fake.image(), fake.gpa, kernel).free.sum()) == 2


def test_the_kernel_by_address_or_by_text() -> None:
    fake = FakeKernel()
    text = fake.text()
    fake.note(text, 0x1010)  # not where a page begins: only who is told finds it at once
    guest = fake.guest()
    assert kernel_from(guest, 0x1010).info == kernel_from(guest, text).info == find_kernel(guest).info


def test_looking_allocates_nothing() -> None:
    """The walk reads a sparse file without filling its holes, and most of the file is holes."""
    fake = FakeKernel()
    fake.free(0xC00, 10)
    descriptor = os.memfd_create("sparse")
    os.ftruncate(descriptor, LOW + HIGH)
    for page in np.flatnonzero(fake.memory.reshape(-1, PAGE_SIZE).any(axis=1)).tolist():
        os.pwrite(
            descriptor, fake.memory[page * PAGE_SIZE : (page + 1) * PAGE_SIZE].tobytes(), page * PAGE_SIZE
        )
    before = os.fstat(descriptor).st_blocks
    walk_source(RamImage(os.dup(descriptor), LOW + HIGH, "sparse"), fake.gpa)
    assert os.fstat(descriptor).st_blocks == before
    os.close(descriptor)


def failing(fake: FakeKernel) -> WalkError:
    with pytest.raises(WalkError) as caught:
        walk(fake)
    assert caught.value.exit_code == ExitCode.ERROR
    return caught.value


def test_no_vmcoreinfo() -> None:
    fake = FakeKernel()
    fake.write(NOTE_AT, bytes(64))
    assert failing(fake).rule == "no-vmcoreinfo"


def test_vmcoreinfo_of_another_kernel() -> None:
    fake = FakeKernel()
    fake.note(fake.text().replace(RELEASE, "9.9.8-fake"))
    assert failing(fake).rule == "other-kernel"


def test_vmcoreinfo_with_other_page_tables() -> None:
    assert failing(FakeKernel(say={"NUMBER(phys_base)": "0"})).rule in ("other-kernel", "page-table")
    assert failing(FakeKernel(say={"NUMBER(phys_base)": f"{1 << 40}"})).rule == "page-table"
    assert failing(FakeKernel(levels=5, say={"NUMBER(pgtable_l5_enabled)": "0"})).rule in (
        "other-kernel", "page-table", "address")  # fmt: skip


def test_what_an_older_kernel_left_behind_is_passed_over() -> None:
    fake = FakeKernel()
    old = fake.text().replace(f"NUMBER(phys_base)={0x200000 - 0x0A000000}", "NUMBER(phys_base)=0")
    fake.note(old, 0x10000)
    fake.note(fake.text(), 0x20000)  # the same once more, as for a crash kernel
    assert find_kernel(fake.guest()).info.text == fake.text()


def test_two_kernels_are_not_chosen_from() -> None:
    fake = FakeKernel()
    fake.note(fake.text() + "CRASHTIME=1\n", 0x10000)
    error = failing(fake)
    assert error.rule == "two-kernels"
    assert find_kernel_at(fake, 0x10000)


def find_kernel_at(fake: FakeKernel, address: int) -> bool:
    return kernel_from(fake.guest(), address).note.address == address


TOLD = [
    "SIZE(page)", "SIZE(zone)", "SIZE(free_area)", "SIZE(pglist_data)", "SIZE(mem_section)",
    "OFFSET(page.lru)",
    "OFFSET(page.private)", "OFFSET(page._mapcount)", "OFFSET(zone.free_area)", "LENGTH(zone.free_area)",
    "LENGTH(free_area.free_list)", "NUMBER(SECTION_SIZE_BITS)",
    "OFFSET(pglist_data.nr_zones)", "LENGTH(mem_section)",
]  # fmt: skip


@pytest.mark.parametrize("key", TOLD)
@pytest.mark.parametrize("value", ["", "-1", "0x", "99999999999", f"{1 << 70}"], ids=repr)
def test_vmcoreinfo_that_cannot_be_is_refused(key: str, value: str) -> None:
    rule = failing(FakeKernel(say={key: value})).rule
    assert rule == ("vmcoreinfo" if value else "vmcoreinfo-lacks")


def test_vmcoreinfo_that_is_no_text() -> None:
    fake = FakeKernel()
    fake.write(NOTE_AT + 200, b"\xff\x00\x01")
    assert failing(fake).rule == "vmcoreinfo"


def test_memory_that_no_file_holds() -> None:
    fake = FakeKernel()
    fake.free(FIRST_HIGH, 3)
    image = RamImage.from_bytes(fake.memory[:LOW].tobytes(), "low")
    with pytest.raises(WalkError) as caught:
        walk_source(image, [(0, 0, LOW)])
    assert caught.value.rule == "outside-memory"
    assert "no known file" in str(caught.value)


def test_a_free_block_where_a_hole_is_said_to_be() -> None:
    fake = FakeKernel()
    fake.free(0xC00, 10)
    gpa = [(0, 0, LOW - PAGE_SIZE), (HOLE_END, LOW, HIGH)]
    with pytest.raises(WalkError) as caught:
        walk_source(fake.image(), gpa)
    assert caught.value.rule == "outside-memory"


def test_a_map_that_cannot_be() -> None:
    image = RamImage.from_bytes(bytes(4 * PAGE_SIZE), "m0")
    for ranges in ([(0, 0, 2 * PAGE_SIZE), (PAGE_SIZE, 0, PAGE_SIZE)], [(1 << 60, 0, PAGE_SIZE)],
                   [(-PAGE_SIZE, 0, PAGE_SIZE)], [(512, 0, PAGE_SIZE)], []):  # fmt: skip
        with pytest.raises(MachineryError):
            GuestMemory.of([(image, ranges)])


def test_a_memmap_that_is_not_mapped_everywhere() -> None:
    fake = FakeKernel()
    fake.free(FIRST_FREE, 1)
    kernel = find_kernel(fake.guest())
    space = kernel.space(fake.guest())
    table = _leaf(fake, fake.vmemmap + 0x400 * PAGE)
    assert space.translate(fake.vmemmap + 0x400 * PAGE) is not None
    fake.word(table, 0)
    found = walk_source(fake.image(), fake.gpa, replace(kernel))
    frames = range(0x400, 0x400 + PAGE_SIZE // PAGE)
    assert {Kind(found.kind[frame]) for frame in frames} == {Kind.UNKNOWN}
    assert int(found.free.sum()) == 2


def _leaf(fake: FakeKernel, virtual: int) -> int:
    """Where the entry is that maps a page of 4 KiB."""
    table = fake.read(IMAGE_AT + 8 * (virtual >> 39 & 511)) & ~0xFFF
    for shift in (30, 21):
        table = fake.read(table + 8 * (virtual >> shift & 511)) & ~0xFFF
    return table + 8 * (virtual >> 12 & 511)


def test_a_page_table_outside_of_memory() -> None:
    fake = FakeKernel()
    top = IMAGE_AT + 8 * (fake.vmemmap >> 39 & 511)
    fake.word(top, (1 << 45) | 0x63)
    assert failing(fake).rule == "page-table"


def test_flags_and_types_are_not_taken_for_each_other() -> None:
    """What looks like a free block in a page's flags is none."""
    fake = FakeKernel()
    fake.page(0x900, flags=0xF0000000)
    fake.page(0x901)
    fake.word(fake.memmap(0x901) + TYPE, 0xF000_0001, 4)  # buddy, and something else
    fake.word(fake.memmap(0x902) + FLAGS, 0)
    assert not walk(fake).free.any()
