# SPDX-License-Identifier: GPL-2.0-or-later
"""Sizes, rates and shares."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.units import (
    Percent,
    format_rate,
    format_size,
    human_size,
    pages,
    parse_percent,
    parse_rate,
    parse_size,
    parse_size_or_percent,
)


@pytest.mark.parametrize(
    ("text", "size"),
    [("2GiB", 2**31), ("1500MiB", 1500 * 2**20), ("1.5 GiB", 3 * 2**29), (" 4096B ", 4096), ("0.5KiB", 512)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("2GB", "unknown unit 'GB'; did you mean '2GiB'?"),
        ("2G", "did you mean '2GiB'?"),
        ("2gib", "did you mean '2GiB'?"),
        ("512", "has no unit; did you mean '512MiB'?"),
        ("-2GiB", "which is negative"),
        ("0MiB", "which is zero"),
        ("0.3B", "not a whole number of bytes"),
        ("9999TiB", "more than 4096TiB"),
        ("1e3MiB", "expected a size such as '2GiB', got '1e3MiB'"),
        ("much", "expected a size such as '2GiB', got 'much'"),
        ("", "expected a size"),
        ("5parsec", "unknown unit 'parsec'"),
        ("2GiB/s", "unknown unit 'GiB/s'"),
        ("nanMiB", "expected a size"),
    ],
)
def test_what_is_no_size(text: str, words: str) -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        parse_size(text)
    assert words in str(caught.value)
    assert repr(text) in str(caught.value)


def test_rates() -> None:
    assert parse_rate("32MiB/s") == 2**25
    for text, words in (
        ("32MiB", "'32MiB/s'?"),
        ("32MB/s", "'32MiB/s'?"),
        ("100Mbit", "unknown unit 'Mbit'"),
    ):
        with pytest.raises(ValueError, match="a rate such as") as caught:
            parse_rate(text)
        assert words in str(caught.value)
    with pytest.raises(ValueError, match="Mbit") as caught:
        parse_rate("100Mbit")
    assert "did you mean" not in str(caught.value)


def test_shares() -> None:
    assert parse_percent("73%") == Percent(Decimal(73))
    assert parse_size_or_percent("73 %") == Percent(Decimal(73))
    assert parse_size_or_percent("1500MiB") == 1500 * 2**20
    assert Percent(Decimal(73)).of(1000) == 730
    assert str(Percent(Decimal("12.50"))) == "12.5%"
    for text in ("0%", "-5%", "101%", "%", "x%"):
        with pytest.raises(ValueError, match="a share such as '73%'"):
            parse_size_or_percent(text)
    with pytest.raises(ValueError, match="'1500MiB' or a share such as '73%'"):
        parse_size_or_percent("73")


@given(st.integers(1, 2**52))
def test_what_is_written_is_read_back(size: int) -> None:
    assert parse_size(format_size(size)) == size
    assert parse_rate(format_rate(size)) == size


@given(st.text(max_size=12))
def test_nothing_else_is_raised(text: str) -> None:
    for parse in (parse_size, parse_rate, parse_percent, parse_size_or_percent):
        try:
            parse(text)
        except ValueError as error:
            assert "expected" in str(error)


def test_for_people() -> None:
    assert [human_size(size) for size in (512, 3 * 2**29, 0)] == ["512 B", "1.50 GiB", "0 B"]
    assert pages(8193) == 2
