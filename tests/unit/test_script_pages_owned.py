# SPDX-License-Identifier: GPL-2.0-or-later
"""The pages that a script takes are known by their content, as a workload's are."""

from __future__ import annotations

import re

import numpy as np

from harness.memory import formula
from tests.unit.guest_programs import SOURCES

FIRST = 0x9A6E0000


def keys(seed: int, generation: int) -> formula.Words:
    pages = np.arange(0, 1000, 7, dtype=np.uint64)
    return formula.keys(seed, pages, np.full(len(pages), generation, np.uint64))


def test_pages_of_each_write_are_known() -> None:
    for writes in range(1, 4):
        for number in range(4):
            assert formula.of_scripts(5, keys(5, FIRST + number), writes).all() == (number < writes)
    assert not formula.of_scripts(6, keys(5, FIRST), 3).any()
    # A workload's.
    assert not formula.of_scripts(5, keys(5, 0), 3).any()
    assert not formula.of_scripts(5, keys(5, FIRST), 0).any()


def test_the_guest_counts_from_the_same_number() -> None:
    text = (SOURCES / "pages.c").read_text("utf-8")
    assert re.search(rf"#define FIRST_GENERATION\s+0x{FIRST:X}U", text)
    assert re.search(r"#define MOST_PAGES\s+\(4UL << 18\)", text)


def test_a_page_is_known_by_any_of_its_words() -> None:
    page = formula.words_of(np.uint64(12345))
    for place in (0, 1, 436, 511):
        assert (formula.page_with(page[place], place) == page).all()
