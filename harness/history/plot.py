# SPDX-License-Identifier: GPL-2.0-or-later
"""A measure over time as SVG text, every single value, changes marked.  Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from itertools import pairwise
from typing import Final

from harness.bench.plots import ticks
from harness.history.trend import MeasureRow

_WIDTH: Final = 640
_HEIGHT: Final = 190
_LEFT: Final = 66
_RIGHT: Final = 10
_TOP: Final = 26
_BOTTOM: Final = 162
#: More dots cannot be told apart at this width; the newest are shown.
_MOST_DOTS: Final = 1000


def over_time(title: str, row: MeasureRow, words: Callable[[float], str]) -> str:
    """One run after the other from left to right; a vertical line where something has moved."""
    first = max(0, len(row.values) - _MOST_DOTS)
    values = row.values[first:]
    scale = ticks(max(values, default=1.0), 4)

    def across(number: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (number + 0.5) / max(1, len(values))

    def up(value: float) -> float:
        return _BOTTOM - (_BOTTOM - _TOP) * value / scale[-1]

    body = [f'<text x="0" y="14" class="title">{escape(title)}</text>']
    for tick in scale:
        y = up(tick)
        body.append(f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{_WIDTH - _RIGHT}" y2="{y:.1f}" class="grid"/>')
        body.append(_words(_LEFT - 4, y + 4, words(tick), "end"))
    body += _builds(row.builds[first:], across)
    for change in row.changes:
        if change.at >= first:
            x = across(change.at - first - 0.5)
            text = f"{words(change.before)} → {words(change.after)}, p {change.p:.1g}"
            body.append(
                f'<line x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{_BOTTOM}" class="change">'
                f"<title>{escape(text)}</title></line>"
            )
    for number, value in enumerate(values):
        time, build = row.times[first + number], row.builds[first + number]
        tip = escape(f"{time:%Y-%m-%d %H:%M} UTC: {words(value)}; {build}")
        x, y = across(number), up(value)
        body.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" class="dot"><title>{tip}</title></circle>')
    if values:
        body.append(_words(_LEFT, _BOTTOM + 24, f"{row.times[first]:%Y-%m-%d}", "start"))
        body.append(_words(_WIDTH - _RIGHT, _BOTTOM + 24, f"{row.times[-1]:%Y-%m-%d}", "end"))
    inside = "\n".join(body)
    head = f'class="plot" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}"'
    return f"<svg {head}>\n{inside}\n</svg>"


def _words(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="tick">{escape(text)}</text>'


def _builds(builds: Sequence[str], across: Callable[[float], float]) -> list[str]:
    """A tick below the axis wherever another build begins."""
    found = []
    for number, (before, after) in enumerate(pairwise(builds), 1):
        if before != after:
            x = across(number - 0.5)
            found.append(
                f'<line x1="{x:.1f}" y1="{_BOTTOM}" x2="{x:.1f}" y2="{_BOTTOM + 8}" class="build">'
                f"<title>{escape(after)}</title></line>"
            )
    return found
