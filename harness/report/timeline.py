# SPDX-License-Identifier: GPL-2.0-or-later
"""The course of a run as lanes of bars, out of its events: for a page without scripts.  Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

#: An event as ``events.jsonl`` has it.
EventRecord: TypeAlias = Mapping[str, Any]

#: What the timeline is made of; of the thousands of other events nothing is kept.
SHOWN_KINDS: Final = frozenset(
    {
        "step-start",
        "step-stop",
        "MIGRATION",
        "MIGRATION_PASS",
        "STOP",
        "RESUME",
        "hold",
        "action",
        "script",
        "error",
    }
)
_LEAST_WIDTH: Final = 0.35
_PERCENT: Final = 100.0
_TICKS: Final = 6


@dataclass(frozen=True, slots=True)
class TimelineBar:
    """From ``left`` over ``width``, in percent of the lane; ``style`` is a class of the page's."""

    label: str
    left: float
    width: float
    style: str
    title: str


@dataclass(frozen=True, slots=True)
class Lane:
    """One line of the picture."""

    name: str
    bars: tuple[TimelineBar, ...]


@dataclass(frozen=True, slots=True)
class Timeline:
    """Lanes over one span of time: seconds since the run began."""

    begin: float
    end: float
    lanes: tuple[Lane, ...]

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Percent, and seconds since the span's begin in words."""
        span = self.end - self.begin
        step = round_step(span, _TICKS)
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        count = math.floor(span / step + 1e-9)
        return [(_PERCENT * step * n / span, f"{step * n:.{digits}f} s") for n in range(count + 1)]


def round_step(span: float, most: int) -> float:
    """A step of 1, 2 or 5 times a power of ten, of which ``span`` has at most ``most``."""
    step = 10.0 ** math.floor(math.log10(span / most))
    return next(step * factor for factor in (1, 2, 5, 10) if span / (step * factor) <= most + 1e-9)


class _Span:
    """Makes bars of times."""

    def __init__(self, begin: float, end: float) -> None:
        self.begin = begin
        self.end = max(end, begin + 1e-3)

    def bar(self, label: str, start: float, stop: float, style: str, words: str = "") -> TimelineBar:
        length = self.end - self.begin
        start, stop = max(start, self.begin), min(stop, self.end)
        left = _PERCENT * (start - self.begin) / length
        width = max(_PERCENT * (stop - start) / length, _LEAST_WIDTH)
        left = min(left, _PERCENT - width)
        title = f"{words or label}: {stop - start:.3f} s, from {start - self.begin:.3f} s"
        return TimelineBar(label, round(left, 3), round(width, 3), style, title)

    def timeline(self, lanes: Iterable[Lane]) -> Timeline:
        return Timeline(self.begin, self.end, tuple(lane for lane in lanes if lane.bars))


def run_timeline(events: Sequence[EventRecord]) -> Timeline | None:
    """The steps of the whole run; None: there were none."""
    steps = [event for event in events if event["kind"] == "step-stop" and event["data"].get("depth") == 0]
    if not steps:
        return None
    ends = [(float(event["t"]), event["data"]) for event in steps]
    span = _Span(
        min(end - float(data.get("seconds") or 0) for end, data in ends), max(end for end, _ in ends)
    )
    return span.timeline(
        Lane("steps" if guest is None else _lane(guest), tuple(_steps(span, own)))
        for guest, own in _by_guest(steps)
    )


def _steps(span: _Span, steps: Sequence[EventRecord]) -> Iterable[TimelineBar]:
    for number, event in enumerate(steps):
        data, end = event["data"], float(event["t"])
        begin = end - float(data.get("seconds") or 0)
        yield span.bar(str(data.get("step")), begin, end, "bad" if data.get("error") else f"step{number % 2}")


def _lane(guest: int) -> str:
    return f"guest {guest}"


def _by_guest(events: Sequence[EventRecord]) -> list[tuple[int | None, list[EventRecord]]]:
    """The events of no guest, where there are any, and those of each: a run of one guest numbers none."""
    found: dict[int | None, list[EventRecord]] = {}
    for event in events:
        guest = event["data"].get("guest")
        number = guest if isinstance(guest, int) and not isinstance(guest, bool) else None
        step = event["data"].get("step")
        if number is not None and isinstance(step, str):
            # The run's stream has the guest's name before it.
            data = {**event["data"], "step": step.removeprefix(f"{_lane(number)}: ")}
            found.setdefault(number, []).append({**event, "data": data})
        else:
            found.setdefault(number, []).append(event)
    return sorted(found.items(), key=lambda pair: pair[0] or 0)


def migration_timeline(events: Sequence[EventRecord]) -> Timeline | None:
    """The migrations of a run, from the first to the end of the last; None: there was none."""
    parts = [(guest, own, _window(own)) for guest, own in _by_guest(events)]
    windows = [window for _, _, window in parts if window is not None]
    if not windows:
        return None
    span = _Span(min(begin for begin, _ in windows), max(end for _, end in windows))
    lanes: list[Lane] = []
    for guest, own, window in parts:
        if window is not None:
            before = "" if guest is None else f"{_lane(guest)}: "
            lanes += [Lane(f"{before}{lane.name}", lane.bars) for lane in _migration_lanes(span, own)]
    return span.timeline(lanes)


def _migration_lanes(span: _Span, events: Sequence[EventRecord]) -> list[Lane]:
    inside = [event for event in events if span.begin <= event["t"] <= span.end]
    sides = dict.fromkeys(event["source"] for event in inside if event["kind"] == "MIGRATION")
    lanes = [
        Lane(str(source).removesuffix(".qmp"), tuple(_statuses(span, inside, source))) for source in sides
    ]
    lanes.append(Lane("rounds", tuple(_rounds(span, inside))))
    lanes.append(Lane("guest stands still", tuple(_pauses(span, inside))))
    lanes.append(Lane("holds", tuple(_holds(span, inside))))
    lanes.append(Lane("script", tuple(_actions(span, inside))))
    return lanes


def _window(events: Sequence[EventRecord]) -> tuple[float, float] | None:
    steps = [event for event in events if event["data"].get("step") == "migrate"]
    times = [float(event["t"]) for event in steps] or [
        float(event["t"]) for event in events if event["kind"] == "MIGRATION"
    ]
    if not times:
        return None
    last = max(float(event["t"]) for event in events)
    # Of a run that broke off the last migration has no end.
    open_end = bool(steps) and steps[-1]["kind"] == "step-start"
    return min(times), last if open_end else max(times)


def _statuses(span: _Span, events: Sequence[EventRecord], source: str) -> Iterable[TimelineBar]:
    mine = [event for event in events if event["kind"] == "MIGRATION" and event["source"] == source]
    styles = {"failed": "bad", "cancelled": "warn", "completed": "good"}
    for event, following in zip(mine, [*mine[1:], None], strict=True):
        status = str(_inner(event).get("status"))
        ended = status in styles
        stop = float(event["t"]) if ended else float(following["t"]) if following else span.end
        yield span.bar(status, float(event["t"]), stop, styles.get(status, "status"))


def _rounds(span: _Span, events: Sequence[EventRecord]) -> Iterable[TimelineBar]:
    passes = [event for event in events if event["kind"] == "MIGRATION_PASS"]
    ends = [
        float(event["t"])
        for event in events
        if event["kind"] == "MIGRATION"
        and _inner(event).get("status") in ("completed", "failed", "cancelled")
    ]
    for number, event in enumerate(passes):
        start = float(event["t"])
        later = [float(one["t"]) for one in passes[number + 1 :]] + [end for end in ends if end >= start]
        word = str(_inner(event).get("pass"))
        yield span.bar(word, start, min(later, default=span.end), f"step{number % 2}", f"round {word}")


def _pauses(span: _Span, events: Sequence[EventRecord]) -> Iterable[TimelineBar]:
    stopped: float | None = None
    for event in events:
        if event["kind"] == "STOP" and stopped is None:
            stopped = float(event["t"])
        elif event["kind"] == "RESUME" and stopped is not None:
            yield span.bar("", stopped, float(event["t"]), "pause", "stands still")
            stopped = None
    if stopped is not None:
        yield span.bar("", stopped, span.end, "pause", "stands still, to be compared")


def _holds(span: _Span, events: Sequence[EventRecord]) -> Iterable[TimelineBar]:
    for event in events:
        if event["kind"] == "hold":
            data, end = event["data"], float(event["t"])
            point = str(data.get("point"))
            request = data.get("request")
            words = f"held at {point}" + (f", request {request:#x}" if isinstance(request, int) else "")
            yield span.bar(point, end - float(data.get("seconds") or 0), end, "hold", words)


def _actions(span: _Span, events: Sequence[EventRecord]) -> Iterable[TimelineBar]:
    for event in events:
        if event["kind"] == "action":
            word = str(event["data"].get("action"))
            yield span.bar(word, float(event["t"]), float(event["t"]), "act", word)


def _inner(event: EventRecord) -> Mapping[str, Any]:
    """The data of a QMP event."""
    inner = event["data"].get("data")
    return inner if isinstance(inner, Mapping) else {}
