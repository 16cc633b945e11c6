# SPDX-License-Identifier: GPL-2.0-or-later
"""Symbols of a kernel whose table of symbols has only functions: by what it exports; BTF by its head."""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from harness.memory.walk import btf
from harness.memory.walk.errors import WalkError
from harness.memory.walk.exports import find_exports
from harness.memory.walk.layout import _nodes, _room

if TYPE_CHECKING:
    from harness.memory.walk.pagetables import AddressSpace
    from harness.memory.walk.vmcoreinfo import VmcoreInfo

START = 0xFFFF_DD62_BF21_0000
SIZE = 0x3000


def image(names: bytes, exported: dict[int, tuple[int, int]]) -> bytearray:
    """``exported``: where an entry is, by the places of the symbol and of its name.  Another one follows."""
    content = bytearray(SIZE)
    content[0x2800:0x2806] = b"other\0"
    content[0x2000 : 0x2000 + len(names)] = names
    for place, (symbol, name) in exported.items():
        struct.pack_into("<iii", content, place, symbol - place, name - place - 4, 0)
        struct.pack_into("<ii", content, place + 12, 0, 0x2800 - place - 16)
    return content


def look(content: bytes, *names: str) -> dict[str, int]:
    run = SimpleNamespace(virtual=START, physical=0, length=SIZE)
    hole = SimpleNamespace(virtual=START + SIZE, physical=None, length=SIZE)
    memory = SimpleNamespace(holds=lambda *_: True, read=lambda at, length: bytes(content[at : at + length]))
    space = SimpleNamespace(memory=memory, runs=lambda *_: iter((run, hole)))
    info = SimpleNamespace(symbol=lambda _: START)
    return dict(find_exports(cast("AddressSpace", space), cast("VmcoreInfo", info), names))


def test_a_name_that_another_one_ends_with() -> None:
    content = image(b"jbd2_inode_data\0node_data2\0", {0x1000: (0x5000, 0x2000 + 6)})
    assert look(content, "node_data", "contig_page_data") == {"node_data": START + 0x5000}


def test_two_places_that_would_do_are_none() -> None:
    content = image(b"node_data\0", {0x1000: (0x5000, 0x2000), 0x1100: (0x6000, 0x2000)})
    assert look(content, "node_data") == {}


def test_a_word_that_leads_to_the_name_by_chance_is_no_entry() -> None:
    content = image(b"node_data\0", {0x1000: (0x5000, 0x2000)})
    struct.pack_into("<i", content, 0x400, 0x2000 - 0x400)
    assert look(content, "node_data") == {"node_data": START + 0x5000}
    # Nor is it one where there is no other.
    struct.pack_into("<iii", content, 0x1000, 0, 0, 0)
    assert look(content, "node_data") == {}


def test_types_are_known_by_their_head() -> None:
    content = image(b"", {})
    struct.pack_into("<HBBIIIII", content, 0x800, btf.MAGIC, 1, 0, btf.HEADER.size, 0, 0x40, 0x40, 0x21)
    begin = START + 0x800
    assert look(content) == {"__start_BTF": begin, "__stop_BTF": begin + btf.HEADER.size + 0x61}
    # One that would not fit is none.
    struct.pack_into("<HBBIIIII", content, 0x800, btf.MAGIC, 1, 0, btf.HEADER.size, 0, 0x40, 0x40, 0x4000)
    assert look(content) == {}


def of(symbols: dict[str, int], lengths: dict[str, int]) -> VmcoreInfo:
    values = {"SYMBOL": symbols, "LENGTH": lengths}
    return cast("VmcoreInfo", SimpleNamespace(get=lambda kind, name: values[kind].get(name), release="6.1"))


def test_how_many_zones_and_nodes_where_nobody_says_so() -> None:
    # Debian's 6.1 for arm64: four zones, CONFIG_NODES_SHIFT=4.  Five zones of two nodes would fit as well.
    arm = of({"node_data": 1}, {})
    assert _room(arm, 8992, 1728, _nodes(arm)) == (4, 16)
    x86 = of({"node_data": 1}, {"node_data": 1024})
    assert _room(x86, 5 * 1664 + 32 * (1024 * 5 + 1), 1664, _nodes(x86)) == (5, 1024)
    flat = of({"contig_page_data": 1}, {})
    assert _room(flat, 3 * 1664 + 16 * 4, 1664, _nodes(flat)) == (3, 1)
    with pytest.raises(WalkError, match="no number of zones of 1728 bytes fits"):
        _room(flat, 8992, 1728, _nodes(flat))


def test_where_several_numbers_of_zones_fit_the_kernels_types_tell() -> None:
    # Debian's 6.12 for arm64 with pages of 16 KiB: five zones of 16 nodes, or three of 64.
    arm = of({"node_data": 1}, {})
    with pytest.raises(WalkError, match="more than one number of zones of 1792 bytes fits"):
        _room(arm, 11552, 1792, _nodes(arm))
    assert _room(arm, 11552, 1792, _nodes(arm), 5) == (5, 16)
    with pytest.raises(WalkError, match="no number of zones of 1792 bytes fits"):
        _room(arm, 11552, 1792, _nodes(arm), 4)
