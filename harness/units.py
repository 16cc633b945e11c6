# SPDX-License-Identifier: GPL-2.0-or-later
"""Sizes, rates and shares as people write them: ``1500MiB``, ``32MiB/s``, ``73%``.

Binary units only.  ``2GB`` and ``2G`` are refused, with the spelling that was
probably meant: half of all tools read them as 10^9 and half as 2^30, and a
guest that is 7 % smaller than its workload expects fails in confusing ways.

Every parser raises :class:`ValueError` with a sentence that says what was
expected; whoever knows where the text came from adds the place.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal

from harness.arch import GUEST

#: Bytes of a page, as QEMU migrates them and the guest's MMU maps them.
PAGE_SIZE = GUEST.page_size

#: Seconds.
DAY = 86400.0

_UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
#: Nothing that is called a size here is larger: 2^63 would overflow whoever computes with it.
_LARGEST = 2**52

_NUMBER_AND_UNIT = re.compile(r"(?P<number>[+-]?[0-9]+(?:\.[0-9]+)?)\s*(?P<unit>[A-Za-z%/]*)")

SIZE_PATTERN = r"^[0-9]+(\.[0-9]+)? ?(B|KiB|MiB|GiB|TiB)$"
RATE_PATTERN = r"^[0-9]+(\.[0-9]+)? ?(B|KiB|MiB|GiB|TiB)/s$"
PERCENT_PATTERN = r"^[0-9]+(\.[0-9]+)? ?%$"


@dataclass(frozen=True, slots=True)
class Percent:
    """A share of something that is not known yet, such as the guest's memory."""

    value: Decimal

    def of(self, whole: int) -> int:
        """This share of ``whole``, rounded down."""
        return int(whole * self.value / 100)

    def __str__(self) -> str:
        return f"{self.value.normalize():f}%"


def _meant(unit: str) -> str | None:
    """The unit that a wrong one probably stands for: MB, M, mib, Mib -> MiB."""
    if "bit" in unit.lower():
        return None  # eight times less; nobody's guess is better than the user's own
    letter = unit.strip().upper().removesuffix("/S")[:1]
    return {"B": "B", "K": "KiB", "M": "MiB", "G": "GiB", "T": "TiB"}.get(letter)


def _split(text: str, example: str) -> tuple[Decimal, str]:
    match = _NUMBER_AND_UNIT.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"expected {example}, got {text!r}")
    number = Decimal(match["number"])
    if number < 0:
        raise ValueError(f"expected {example}, got {text!r}, which is negative")
    if number == 0:
        raise ValueError(f"expected {example}, got {text!r}, which is zero")
    return number, match["unit"]


def _bytes(text: str, number: Decimal, unit: str, suffix: str, example: str) -> int:
    plain = unit.removesuffix(suffix) if suffix else unit
    if plain not in _UNITS or not unit.endswith(suffix):
        meant = _meant(unit) if unit else "MiB"
        advice = f"; did you mean '{number:f}{meant}{suffix}'?" if meant else ""
        problem = f"which has the unknown unit {unit!r}" if unit else "which has no unit"
        raise ValueError(f"expected {example}, got {text!r}, {problem}{advice}")
    value = number * _UNITS[plain]
    if value != int(value):
        raise ValueError(f"expected {example}, got {text!r}, which is not a whole number of bytes")
    if value > _LARGEST:
        raise ValueError(f"expected {example}, got {text!r}, which is more than 4096TiB")
    return int(value)


def parse_size(text: str) -> int:
    """``"1500MiB"`` to bytes.  Never zero, never negative."""
    example = "a size such as '2GiB'"
    return _bytes(text, *_split(text, example), "", example)


def parse_rate(text: str) -> int:
    """``"32MiB/s"`` to bytes a second.  Never zero, never negative."""
    example = "a rate such as '32MiB/s'"
    return _bytes(text, *_split(text, example), "/s", example)


def parse_percent(text: str) -> Percent:
    """``"73%"``: more than 0, at most 100."""
    example = "a share such as '73%'"
    number, unit = _split(text, example)
    if unit != "%" or number > 100:
        raise ValueError(f"expected {example}, got {text!r}")
    return Percent(number)


def parse_size_or_percent(text: str) -> int | Percent:
    """``"1500MiB"`` to bytes, or ``"73%"`` to a share."""
    if text.strip().endswith("%"):
        return parse_percent(text)
    try:
        return parse_size(text)
    except ValueError as error:
        raise ValueError(str(error).replace("'2GiB'", "'1500MiB' or a share such as '73%'")) from None


def format_size(size: int) -> str:
    """Bytes as the shortest exact spelling that :func:`parse_size` reads back."""
    for unit, factor in reversed(_UNITS.items()):
        if size % factor == 0 and size >= factor:
            return f"{size // factor}{unit}"
    return f"{size}B"


def format_rate(rate: int) -> str:
    """Bytes a second as :func:`parse_rate` reads them back."""
    return f"{format_size(rate)}/s"


def human_size(size: float) -> str:
    """Bytes for people, rounded: ``1.46 GiB``."""
    for unit, factor in reversed(_UNITS.items()):
        if abs(size) >= factor and factor > 1:
            return f"{size / factor:.2f} {unit}"
    return f"{size:.0f} B"


def pages(size: int) -> int:
    """Bytes in pages, rounded down."""
    return size // PAGE_SIZE
