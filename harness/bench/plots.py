# SPDX-License-Identifier: GPL-2.0-or-later
"""Plots as SVG text: for a page that has no scripts and refers to nothing outside of itself.  Pure.

Every plot shows the single runs, not only what was made of them: with five runs a
reader can, and should, look at all.  Colours come from the page's style sheet, by
class, so that they follow it into print.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

WIDTH: Final = 400
_LEFT: Final = 52
_RIGHT: Final = 14

_Words = Callable[[float], str]


@dataclass(frozen=True, slots=True)
class Bar:
    """One arm: its median, the interval of that, and every single run."""

    label: str
    style: str
    value: float | None
    low: float | None
    high: float | None
    dots: tuple[float, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Series:
    """One line: points of (x, y, low, high); low and high may be None."""

    label: str
    style: str
    points: tuple[tuple[float, float, float | None, float | None], ...]


def ticks(top: float, most: int = 5) -> list[float]:
    """Round values from 0 to at least ``top``."""
    if top <= 0:
        return [0.0, 1.0]
    step = 10.0 ** math.floor(math.log10(top / most))
    for factor in (1, 2, 5, 10):
        if top / (step * factor) <= most:
            step *= factor
            break
    count = math.ceil(top / step - 1e-9)
    return [step * index for index in range(count + 1)]


def told_apart(scale: Sequence[float], words: _Words) -> list[tuple[float, str]]:
    """The ticks and their labels, without those that would be labelled as another one is."""
    seen: dict[str, float] = {}
    for tick in scale:
        seen.setdefault(words(tick), tick)
    return [(tick, label) for label, tick in seen.items()]


def _svg(width: float, height: float, title: str, body: Sequence[str]) -> str:
    inside = "\n".join(body)
    return (
        f'<svg class="plot" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(title)}">\n'
        f"<title>{escape(title)}</title>\n{inside}\n</svg>"
    )


def _text(x: float, y: float, words: str, style: str = "", anchor: str = "start") -> str:
    kind = f' class="{style}"' if style else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{kind}>{escape(words)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{style}"/>'


def bars(title: str, rows: Sequence[Bar], words: _Words, mark: tuple[float, str] | None = None) -> str:
    """Horizontal bars with intervals and dots.  ``mark``: a line at a value, such as the floor."""
    values = [v for row in rows for v in (row.value, row.high, *row.dots) if v is not None]
    scale = ticks(max([*values, mark[0] if mark else 0.0], default=1.0), 4)
    top, inner, step = scale[-1], WIDTH - _LEFT - _RIGHT, 44
    height = 26 + step * len(rows) + 34

    def at(value: float) -> float:
        return _LEFT + inner * value / top

    bottom = 26 + step * len(rows)
    body = [_text(0, 14, title, "title")]
    words_on_top: list[str] = []
    for tick, label in told_apart(scale, words):
        body.append(_line(at(tick), 24, at(tick), bottom, "grid"))
        body.append(_text(at(tick), bottom + 14, label, "tick", "middle" if tick < top else "end"))
    for index, row in enumerate(rows):
        y = 28 + step * index
        body.append(_text(_LEFT - 6, y + 16, row.label, "label", "end"))
        if row.value is None:
            body.append(_text(_LEFT + 4, y + 16, row.text, "value"))
            continue
        width = max(0.5, at(row.value) - _LEFT)
        body.append(f'<rect x="{_LEFT}" y="{y}" width="{width:.1f}" height="22" class="{row.style}"/>')
        if row.low is not None and row.high is not None:
            body.append(_line(at(row.low), y + 11, at(row.high), y + 11, "whisker"))
            body += [_line(at(end), y + 6, at(end), y + 16, "whisker") for end in (row.low, row.high)]
        body += [
            f'<circle cx="{at(dot):.1f}" cy="{y + 29}" r="2.6" class="dot {row.style}"/>' for dot in row.dots
        ]
        end = at(max(row.value, row.high or 0.0))
        inside = end > _LEFT + 0.62 * inner
        # What would run over the edge stands in the bar, which is long enough then.
        words_on_top.append(
            _text(_LEFT + 5 if inside else end + 6, y + 15, row.text, "inbar" if inside else "value")
        )
    if mark is not None:
        body.append(_line(at(mark[0]), 22, at(mark[0]), bottom, "mark"))
        near_end = at(mark[0]) > WIDTH / 2
        body.append(_text(at(mark[0]), bottom + 28, mark[1], "marktext", "end" if near_end else "start"))
    return _svg(WIDTH, height, title, [*body, *words_on_top])


def steps(title: str, series: Sequence[Series], words: _Words) -> str:
    """Empirical distributions: which share of the runs took at most so much."""
    values = [point[0] for one in series for point in one.points]
    scale = ticks(max(values, default=1.0), 4)
    top, height, bottom, first = scale[-1], 210, 168, 30
    inner = WIDTH - _LEFT - _RIGHT

    def at(value: float) -> float:
        return _LEFT + inner * value / top

    def up(share: float) -> float:
        return bottom - (bottom - first) * share

    body = [_text(0, 14, title, "title")]
    for tick, label in told_apart(scale, words):
        body.append(_line(at(tick), first, at(tick), bottom, "grid"))
        body.append(_text(at(tick), bottom + 14, label, "tick", "middle" if tick < top else "end"))
    for share in (0.0, 0.5, 1.0):
        body.append(_line(_LEFT, up(share), WIDTH - _RIGHT, up(share), "grid"))
        body.append(_text(_LEFT - 6, up(share) + 4, f"{100 * share:.0f} %", "tick", "end"))
    for one in series:
        path, last = f"M{at(0):.1f},{up(0):.1f}", 0.0
        for value, share, _, _ in one.points:
            path += f" H{at(value):.1f} V{up(share):.1f}"
            last = value
        if last:
            path += f" H{at(top):.1f}"
        body.append(f'<path d="{path}" class="line {one.style}"/>')
    return _svg(WIDTH, height, title, [*body, *_legend(series, height - 12)])


def line_plot(title: str, series: Sequence[Series], x_words: _Words, y_words: _Words) -> str:
    """Growth: a value against an amount of memory, which doubles from tick to tick."""
    xs = sorted({point[0] for one in series for point in one.points})
    tops = [value for one in series for point in one.points for value in (point[1], point[3]) if value]
    scale = ticks(max(tops, default=1.0), 4)
    top, height, bottom, first = scale[-1], 236, 190, 30
    low, high = math.log2(xs[0]) - 0.25, math.log2(xs[-1]) + 0.25

    def at(value: float) -> float:
        return _LEFT + 12 + (WIDTH - _LEFT - 12 - _RIGHT) * (math.log2(value) - low) / (high - low)

    def up(value: float) -> float:
        return bottom - (bottom - first) * value / top

    body = [_text(0, 14, title, "title")]
    for tick, label in told_apart(scale, y_words):
        body.append(_line(_LEFT + 6, up(tick), WIDTH - _RIGHT, up(tick), "grid"))
        body.append(_text(_LEFT + 2, up(tick) + 4, label, "tick", "end"))
    body += [_text(at(x), bottom + 15, x_words(x), "tick", "middle") for x in xs]
    for one in series:
        corners = " ".join(f"{at(x):.1f},{up(y):.1f}" for x, y, _, _ in one.points)
        body.append(f'<polyline points="{corners}" class="line {one.style}"/>')
        for x, y, bottom_end, top_end in one.points:
            if bottom_end is not None and top_end is not None:
                body.append(_line(at(x), up(bottom_end), at(x), up(top_end), f"line {one.style}"))
            body.append(f'<circle cx="{at(x):.1f}" cy="{up(y):.1f}" r="3" class="dot {one.style}"/>')
    return _svg(WIDTH, height, title, [*body, *_legend(series, height - 14)])


def columns(title: str, shares: Sequence[float], labels: Sequence[str], style: str) -> str:
    """A histogram: shares of a whole, in percent."""
    scale = ticks(max(shares, default=1.0), 4)
    top, height, bottom, first = scale[-1], 200, 158, 26
    inner = WIDTH - _LEFT - _RIGHT
    width = inner / max(1, len(shares))
    body = [_text(0, 14, title, "title")]
    for tick in scale:
        y = bottom - (bottom - first) * tick / top
        body.append(_line(_LEFT, y, WIDTH - _RIGHT, y, "grid"))
        body.append(_text(_LEFT - 6, y + 4, f"{tick:g} %", "tick", "end"))
    for index, share in enumerate(shares):
        tall = (bottom - first) * share / top
        x = _LEFT + width * index
        body.append(
            f'<rect x="{x + 2:.1f}" y="{bottom - tall:.1f}" width="{width - 4:.1f}" height="{tall:.1f}"'
            f' class="{style}"/>'
        )
        body.append(_text(x + width / 2, bottom + 14, labels[index], "tick", "middle"))
        if share >= 0.5:
            body.append(_text(x + width / 2, bottom - tall - 3, f"{share:.0f}", "tick", "middle"))
    body.append(_text(_LEFT + inner / 2, bottom + 32, "order of the block", "tick", "middle"))
    return _svg(WIDTH, height, title, body)


def _legend(series: Sequence[Series], y: float) -> list[str]:
    body, x = [], float(_LEFT)
    for one in series:
        body.append(_line(x, y - 4, x + 18, y - 4, f"line {one.style}"))
        body.append(_text(x + 23, y, one.label, "tick"))
        x += 40 + 8 * len(one.label)
    return body
