# SPDX-License-Identifier: GPL-2.0-or-later
"""A measure's value for people."""

from __future__ import annotations

from harness.units import human_size


def value_words(value: float, unit: str) -> str:
    """``1.2 GiB``, ``310 ms``, ``3``."""
    if unit == "B":
        return human_size(int(value))
    number = f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
    return f"{number} {unit}".strip()
