# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's memory as a picture: ``map.svg`` in the run folder.

One cell is one block of frames, in address order on Hilbert's curve, coloured by
what became of most of its pages, or by a colour of its own where some were left
behind among others that were not; a single page that is wrong, or explained, wins
over all others, as it must not be lost in the crowd.  The cells are a PNG inside
the SVG, so that a guest of any size is some ten KiB.

It is as wide as the window, up to a limit.  Each sixteenth has the address at which it
begins; where a pointer rests on a sixty-fourth, its addresses and what became of its
frames are told.
"""

from __future__ import annotations

import base64
import textwrap
from collections.abc import Iterator, Sequence
from html import escape
from typing import Final

import numpy as np
import numpy.typing as npt

from harness.explain.hilbert import curve
from harness.explain.png import png
from harness.explain.store import EXPLAINED, SKIPPED, WRONG, Kept, KeptBlock
from harness.memory.image import Flags
from harness.memory.walk import to_frames
from harness.units import PAGE_SIZE, human_size

PICTURE_FILE: Final = "map.svg"

#: From the least to the most important: state, colour (told apart without red and green), words.
STATES: Final = (
    ("hole", (236, 236, 236), "no memory"),
    ("sent", (31, 78, 121), "sent, and the same on both sides"),
    ("zero", (158, 202, 225), "sent as zeros"),
    ("skipped", (253, 208, 90), "left behind: free, unchanged, zero on the destination"),
    ("explained", (123, 50, 148), "differs for a reason that has a name"),
    ("wrong", (214, 0, 48), "wrong"),
)
_NUMBER: Final = {name: number for number, (name, _, _) in enumerate(STATES)}
#: Of cells that stand for several frames: fragmented memory would else look all sent, or all left behind.
MIXED: Final = ("mixed", (104, 150, 92), "a quarter to three quarters of the cell's pages were left behind")
_MIXED_NUMBER: Final = len(STATES)
_CERTAIN: Final = (_NUMBER["explained"], _NUMBER["wrong"])

#: The map has at most so many cells a side.
_LARGEST: Final = 9
#: A hole is shown with at most this part of the guest's memory.
_HOLE_SHARE: Final = 32
_PIXELS: Final = 512
_MARGIN: Final = 16
_LINE: Final = 18
_FONT: Final = 12
#: Shown at most so large: the cells of the largest map are two pixels then.
_WIDEST: Final = 2 * _PIXELS + 2 * _MARGIN
#: Characters that surely fit into a line: letters are half as wide as they are high, or a little more.
_COLUMNS: Final = 76
#: Parts of the map by powers of four: with an address in them, and with a tooltip.
_ADDRESSED: Final = 2
_TOLD: Final = 3


def states_of(kept: Kept) -> npt.NDArray[np.uint8]:
    """The state of every guest frame, from frame 0 on."""
    visible = [one for one in kept.blocks.values() if one.block.gpa]
    frames = max((a + n for one in visible for a, _, n in one.block.gpa), default=0) // PAGE_SIZE
    states = np.full(frames, _NUMBER["hole"], dtype=np.uint8)
    for one in visible:
        for state, pages in _states(one):
            states[to_frames(pages, one.block.gpa, frames)] = _NUMBER[state]
    return states


def _states(kept: KeptBlock) -> list[tuple[str, Flags]]:
    everything = np.ones(kept.block.pages, dtype=np.bool_)
    found = [("sent", everything), ("zero", kept.zero_source & kept.zero_destination)]
    for state, prefix in (("skipped", SKIPPED), ("explained", EXPLAINED), ("wrong", WRONG)):
        flags = np.zeros(kept.block.pages, dtype=np.bool_)
        flags[kept.pages(prefix)] = True
        found.append((state, flags))
    return found


def without_long_holes(
    states: npt.NDArray[np.uint8],
) -> tuple[npt.NDArray[np.uint8], list[tuple[int, int]]]:
    """The states with each long hole cut short, and (first frame, frames) of each that was cut.

    Below 4 GiB a small guest is nearly all hole: its memory would be a corner of the map.
    """
    kept, cut = _shown(states)
    return states[kept], cut


def _shown(states: npt.NDArray[np.uint8]) -> tuple[Flags, list[tuple[int, int]]]:
    """Which frames are shown, and which holes were cut."""
    hole = states == _NUMBER["hole"]
    most = max(1, int(np.count_nonzero(~hole)) // _HOLE_SHARE)
    edges = np.flatnonzero(np.diff(np.concatenate(([False], hole, [False])).astype(np.int8)))
    kept, cut = np.ones(len(states), dtype=np.bool_), []
    for first, end in edges.reshape(-1, 2).tolist():
        if end - first > most:
            kept[first + most : end] = False
            cut.append((first, end - first))
    return kept, cut


def cells_of(states: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.uint8], int]:
    """Cells in rows, and how many frames one cell stands for."""
    order, each = 1, 1
    while (1 << 2 * order) * each < len(states):
        if order < _LARGEST and each == 1:
            order += 1
        else:
            each *= 2
    # The smallest square that the cells need.
    while order > 1 and (1 << 2 * (order - 1)) * each >= len(states):
        order -= 1
    padded = np.zeros((1 << 2 * order) * each, dtype=np.uint8)
    padded[: len(states)] = states
    blocks = padded.reshape(-1, each)
    counts = np.stack([(blocks == number).sum(axis=1) for number in range(len(STATES))])
    cells = counts.argmax(axis=0).astype(np.uint8)
    left = counts[_NUMBER["skipped"]]
    travelled = counts.sum(axis=0) - counts[_NUMBER["hole"]] - left
    cells[4 * np.minimum(left, travelled) >= np.maximum(1, left + travelled)] = _MIXED_NUMBER
    for number in _CERTAIN:
        cells[counts[number] > 0] = number
    rows, columns = curve(order)
    square = np.zeros((1 << order, 1 << order), dtype=np.uint8)
    # Turned, so that the first half of memory is the upper half; rows below the last frame are left out.
    square[columns, rows] = cells
    used = columns[: -(-len(states) // each)].max(initial=0) + 1
    return square[:used], each


def picture(kept: Kept, title: str) -> str:
    """The map as an SVG document."""
    everything = states_of(kept)
    shown, cut = _shown(everything)
    square, each = cells_of(everything[shown])
    counts = np.bincount(everything, minlength=len(STATES)).tolist()
    image = base64.b64encode(png(square, [colour for _, colour, _ in (*STATES, MIXED)])).decode()
    head = [
        *_wrapped(title),
        *_wrapped(f"{len(everything)} guest frames; a cell is {human_size(each * PAGE_SIZE)}"),
        *_wrapped("addresses run along Hilbert's curve, from the upper left to the lower left"),
    ]
    top = _MARGIN + _LINE * len(head) + _MARGIN // 2
    high = _PIXELS * square.shape[0] // square.shape[1]
    mixed = int(np.count_nonzero(square == _MIXED_NUMBER))
    lines, end = _legend(counts, mixed, _notes(each, cut), top + high + _MARGIN)
    height = end + _MARGIN
    width = _PIXELS + 2 * _MARGIN
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="100%" style="max-width:{_WIDEST}px" '
            f'viewBox="0 0 {width} {height}" preserveAspectRatio="xMinYMin" '
            f'font-family="sans-serif" font-size="{_FONT}">',
            "<!-- SPDX-License-Identifier: GPL-2.0-or-later -->",
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
            *(
                f'<text x="{_MARGIN}" y="{_MARGIN + _FONT + _LINE * number}">{escape(line)}</text>'
                for number, line in enumerate(head)
            ),
            f'<image x="{_MARGIN}" y="{top}" width="{_PIXELS}" height="{high}" '
            f'style="image-rendering:pixelated" href="data:image/png;base64,{image}"/>',
            f'<rect x="{_MARGIN}" y="{top}" width="{_PIXELS}" height="{high}" fill="none" stroke="#000000"/>',
            *_parts(everything, shown, square.shape, each, top),
            *lines,
            "</svg>",
            "",
        ]
    )


def _notes(each: int, cut: Sequence[tuple[int, int]]) -> list[str]:
    notes = [
        f"Shown shorter: {human_size(count * PAGE_SIZE)} without memory from {first * PAGE_SIZE:#x} on."
        for first, count in cut
    ]
    if each > 1:
        notes.append("A cell has the colour of most of its pages; one page that is explained or wrong wins.")
    return notes


def _legend(counts: Sequence[int], mixed: int, notes: Sequence[str], top: int) -> tuple[list[str], int]:
    """The lines of the legend, and where it ends."""
    total = max(1, sum(counts) - counts[_NUMBER["hole"]])
    keys = []
    for number, (name, colour, words) in enumerate(STATES):
        share = f" ({100 * counts[number] / total:.1f} %)" if name != "hole" else ""
        keys.append((colour, f"{name}: {counts[number]}{share}. {words}"))
    if mixed:
        name, colour, words = MIXED
        keys.append((colour, f"{name}: {mixed} cells. {words}"))
    lines, y = [], top
    for colour, words in keys:
        lines.append(
            f'<rect x="{_MARGIN}" y="{y}" width="{_FONT}" height="{_FONT}" fill="rgb{colour}" '
            f'stroke="#000000"/>'
        )
        for line in _wrapped(words):
            lines.append(f'<text x="{_MARGIN + _LINE}" y="{y + _FONT - 2}">{escape(line)}</text>')
            y += _LINE
    for line in (line for words in notes for line in _wrapped(words)):
        lines.append(f'<text x="{_MARGIN}" y="{y + _FONT - 2}">{escape(line)}</text>')
        y += _LINE
    return lines, y


def _wrapped(words: str) -> list[str]:
    """Lines that fit: SVG breaks none by itself."""
    return textwrap.wrap(words, _COLUMNS) or [""]


def _parts(
    states: npt.NDArray[np.uint8], shown: Flags, shape: tuple[int, ...], each: int, top: int
) -> Iterator[str]:
    """Addresses and tooltips, over the cells."""
    order = shape[1].bit_length() - 1
    rows, columns = curve(order)
    frames = np.flatnonzero(shown)
    for level, draw in ((_TOLD, _tooltip), (_ADDRESSED, _address)):
        level = min(level, order)
        cells = 1 << 2 * (order - level)
        side = _PIXELS >> level
        for first in range(0, len(rows), cells):
            inside = frames[first * each : (first + cells) * each]
            if inside.size:
                x = _MARGIN + (int(rows[first]) >> (order - level)) * side
                y = top + (int(columns[first]) >> (order - level)) * side
                yield draw(x, y, side, inside, states)


def _address(x: int, y: int, side: int, inside: npt.NDArray[np.intp], states: npt.NDArray[np.uint8]) -> str:
    del side, states
    # A rim, so that it can be read over any colour; the pointer goes through to what is below.
    return (
        f'<text x="{x + 3}" y="{y + 10}" font-size="9" stroke="#ffffff" stroke-width="2.5" '
        f'paint-order="stroke" pointer-events="none">{int(inside[0]) * PAGE_SIZE:#x}</text>'
    )


def _tooltip(x: int, y: int, side: int, inside: npt.NDArray[np.intp], states: npt.NDArray[np.uint8]) -> str:
    counts = np.bincount(states[inside], minlength=len(STATES)).tolist()
    said = ", ".join(f"{count} {name}" for (name, _, _), count in zip(STATES, counts, strict=True) if count)
    last = (int(inside[-1]) + 1) * PAGE_SIZE - 1
    return (
        f'<rect x="{x}" y="{y}" width="{side}" height="{side}" fill="#000000" fill-opacity="0">'
        f"<title>{int(inside[0]) * PAGE_SIZE:#x} to {last:#x}: {said}</title></rect>"
    )
