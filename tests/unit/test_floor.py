# SPDX-License-Identifier: GPL-2.0-or-later
"""The bytes that had to be sent, by hand."""

from __future__ import annotations

import numpy as np

from harness.memory.digest import RequestDigests
from harness.memory.image import Flags, RamImage
from harness.memory.record import Accept, Block, MigrationRecord, PackedFlags, Request
from harness.units import PAGE_SIZE
from harness.verdict.floor import BlockPages, account_of, floor_of, head_of, split
from harness.verdict.judge import BlockState, JudgeInput


def flags(bits: str) -> Flags:
    return np.array([bit == "1" for bit in bits])


def packed(bits: str) -> PackedFlags:
    return PackedFlags.pack(flags(bits))


def test_floor_counts_each_kind_of_page() -> None:
    zero, free = flags("0011"), flags("0101")
    assert floor_of([BlockPages(4, zero)]) == 2 * 4104 + 2 * 9
    assert floor_of([BlockPages(4, zero)], multifd=True) == 2 * 4104 + 2 * 8
    assert floor_of([BlockPages(4, zero, free)]) == 4104 + 9
    assert floor_of([BlockPages(4, None)]) == 4 * 9
    assert floor_of([BlockPages(4, zero, free), BlockPages(2, None)]) == 4104 + 9 + 18


def test_head_is_what_was_reported_too_late() -> None:
    block = BlockPages(4, flags("0010"), flags("1110"), flags("1110"), flags("1000"))
    assert head_of([block]) == 4104 + 9
    assert head_of([BlockPages(4, flags("0010"))]) == 0


def test_split_adds_up() -> None:
    block = BlockPages(4, flags("0010"), flags("0110"), flags("0110"), flags("0100"), flags("1011"))
    account = split(20_000, [block], floor_by="module", floor_at="request", pages_sent=5)
    assert account.floor == 2 * 4104
    assert account.head == 9
    assert account.again == 2 * 4104
    assert account.unreported is None
    assert account.sent == account.floor + account.head + account.again + account.rest
    assert account.sent_over_floor == (20_000 - 9) / (2 * 4104)
    unknown = split(20_000, [BlockPages(4, flags("0010"))], floor_by="none", floor_at="start", pages_sent=5)
    assert unknown.again is None


def test_only_a_walk_can_miss_pages_in_answers() -> None:
    block = BlockPages(4, flags("0001"), flags("1111"), flags("1000"), flags("1000"), flags("0111"))
    account = split(10_000, [block], floor_by="walk", floor_at="request")
    assert account.unreported == 2 * 4104 + 9
    assert account.sent == account.floor + account.head + account.unreported + account.rest


def test_account_uses_the_first_answer_and_its_request() -> None:
    state = BlockState(Block("pc.ram", 4), np.empty(0, np.int64), flags("1111"), flags("1111"), flags("1101"))
    log = (
        Request(5, 1, 0, 4),
        Request(6, 2, 0, 4),
        Accept(6, 2, "pc.ram", 0, packed("11"), packed("01")),
        Accept(6, 2, "pc.ram", 2, packed("10"), packed("10")),
        Request(7, 3, 0, 4),
        Accept(7, 3, "pc.ram", 0, packed("1111"), packed("0000")),
    )
    case = JudgeInput("info", (state,), log)
    record = MigrationRecord(
        {"pc.ram": state.block, "pc.bios": Block("pc.bios", 2)}, log, {"pc.bios": packed("11")}
    )
    digests = RequestDigests()
    page = bytes(range(256)) * (PAGE_SIZE // 256)
    with RamImage.from_bytes(page * 2 + bytes(PAGE_SIZE) + page, "pc.ram") as image:
        digests.take(6, {"pc.ram": image})
    account = account_of(case, record, digests, sent=10_000, pages_sent=7)
    # The first answer reported 0, 1 and 2, of which 0 had been sent; 3 is in use; two pages are unseen.
    assert account.floor == 4104 + 18
    assert account.head == 4104
    assert account.again == (7 - 3 - 2) * 4104
    assert (account.floor_by, account.floor_at) == ("module", "request")
    believed = account_of(case, record, None, sent=10_000)
    assert (believed.floor, believed.floor_at) == (9 + 18, "switch-over")
    plain = account_of(JudgeInput("off", (state,)), None, None, sent=10_000)
    assert (plain.floor, plain.floor_by, plain.head) == (4 * 9, "none", 0)


def test_hints_are_no_witness() -> None:
    state = BlockState(Block("pc.ram", 2), np.empty(0, np.int64), flags("00"), flags("01"), flags("10"))
    log = (Accept(2**64 - 1, 1, "pc.ram", 0, packed("01"), packed("01")),)
    account = account_of(JudgeInput("hint", (state,), log), None, None, sent=5000)
    assert (account.floor, account.floor_by) == (2 * 4104, "none")
