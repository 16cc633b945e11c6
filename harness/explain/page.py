# SPDX-License-Identifier: GPL-2.0-or-later
"""One page, from the request to the verdict, in words.

for label, text in explain_page(case, frame): ...
"""

from __future__ import annotations

import numpy as np

from harness.explain.case import Case
from harness.explain.store import EQUAL, EXPLAINED, LOOK_AT_END, SKIPPED, WRONG, KeptBlock, LookKey
from harness.memory.record import Request
from harness.verdict.table import rule_words

_Lines = list[tuple[str, str]]

#: So many differing bytes are shown.
_SHOWN = 8


def explain_page(case: Case, frame: int) -> _Lines:
    """What is known of one guest frame: (label, text) in the order in which it happened."""
    kept, page = case.find(frame)
    name = kept.block.name
    lines: _Lines = [("page", f"{page:#x} of {name!r}, guest frame {frame:#x}")]
    lines += _walked(case, frame)
    lines += _reported(case, name, page)
    lines += _changed(kept, page)
    lines += _sent(case, kept, page)
    lines += _bytes(case, kept, page)
    lines.append(("verdict", _therefore(kept, page)))
    return lines


def _moment(instant: LookKey) -> str:
    request, point = instant
    if instant == LOOK_AT_END:
        return "switch-over"
    if not request:
        return "the start"
    return f"{point} {request:#x}"


def _walked(case: Case, frame: int) -> _Lines:
    lines = [(f"at {_moment((walk.request, walk.point))}", walk.describe(frame)) for walk in case.kept.walks]
    lines += [(f"at {_moment(instant)}", f"not known: {why}") for instant, why in case.kept.missing.items()]
    return lines or [("free lists", "nobody walked them (walk: false)")]


def _reported(case: Case, name: str, page: int) -> _Lines:
    if case.record is None:
        return [("reported", "not known: the device kept no record")]
    answers = case.answers(name, page)
    if not answers:
        return [("reported", "by no answer")]
    requests = {entry.id: entry for entry in case.record.log if isinstance(entry, Request)}
    lines: _Lines = []
    for accept, cleared in answers:
        what = (
            "its dirty bit was cleared" if cleared else "its dirty bit was clear already, or it was let alone"
        )
        if accept.is_hint:
            lines.append(("hinted", what))
            continue
        asked = requests.get(accept.id)
        when = "never asked" if asked is None else f"asked in sync generation {asked.generation}"
        lines.append((f"answer {accept.id:#x}", f"reported, {when}, applied in {accept.generation}; {what}"))
    return lines


def _changed(kept: KeptBlock, page: int) -> _Lines:
    return [
        (
            "content",
            f"{'changed' if flags[page] else 'the same'} from {_moment(before)} to {_moment(after)}",
        )
        for (before, after), flags in kept.changed.items()
    ]


def _sent(case: Case, kept: KeptBlock, page: int) -> _Lines:
    lines: _Lines = []
    if kept.sent is not None:
        lines.append(("sent", "at least once" if kept.sent[page] else "never"))
    traced = case.sendings.get(kept.block.name)
    if traced is not None:
        rounds = ", ".join(f"in round {number} {how}" for number, how in traced.of(page))
        label = "trace" if traced.digest is None else "wire"
        lines.append((label, f"arrived {rounds}" if rounds else "never arrived"))
    elif not lines:
        lines.append(("sent", "not known: no record, no tap, and no trace (--trace pages)"))
    return lines


def _bytes(case: Case, kept: KeptBlock, page: int) -> _Lines:
    sides = (("source", kept.zero_source[page]), ("destination", kept.zero_destination[page]))
    lines: _Lines = [(side, "zeros" if zero else "not zero") for side, zero in sides]
    if kept.hole is not None and kept.hole[page]:
        lines[0] = ("source", "zeros: never touched, or given back (a hole in its file)")
    both = case.contents(kept.block.name, page)
    if both is None:
        return lines
    source, destination = (np.frombuffer(side, np.uint8) for side in both)
    differing = np.flatnonzero(source != destination)
    if differing.size:
        shown = differing[:_SHOWN]
        at = ", ".join(f"{offset:#x}" for offset in shown.tolist())
        more = f" and {differing.size - _SHOWN} more" if differing.size > _SHOWN else ""
        lines.append(("differs", f"in {differing.size} bytes: at {at}{more}"))
        lines.append(("source has", source[shown].tobytes().hex(" ")))
        lines.append(("destination has", destination[shown].tobytes().hex(" ")))
    return lines


def _therefore(kept: KeptBlock, page: int) -> str:
    category = kept.category_of(page)
    if category == EQUAL:
        return "right: the same on both sides"
    if category == SKIPPED:
        return (
            "right: left behind by an accepted answer, unchanged since that answer's request, never sent, "
            "and zero on the destination"
        )
    if category.startswith(EXPLAINED):
        return f"right: it differs, as {category.removeprefix(EXPLAINED)}"
    rule = category.removeprefix(WRONG)
    return f"wrong, {rule}: pages like this one {rule_words(rule)}"
