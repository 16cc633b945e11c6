# SPDX-License-Identifier: GPL-2.0-or-later
"""The clocks of a guest, held against the host's.

The host knows for how long the guest ran: the time between two reports, less the
pauses.  A clock may have gone on in the pauses, or have stood, but not more and not
less than that.  QEMU's own clock, of which the board's counters are made, stands while
the guest does, and so does kvm-clock; a TSC stands in an emulated processor, and goes
on in a real one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from harness.guestview.report import Aftermath, Report
from harness.guestview.waits import longest_wait

#: Seconds: when we hear of QEMU's word that the guest stands, or goes on, is not quite when it spoke.
TOLERANCE_S: Final = 0.2
#: Seconds for each pause: QEMU stops its clock, then waits for its processors and devices, then says that the
#: guest stands.  That is a millisecond or two, and up to 0.1 s in an emulated machine (``patience``).
PAUSE_TOLERANCE_S: Final = 0.02
#: A kernel measures the rate of its TSC against another clock, for some tenths of a second, and an
#: emulated processor may be interrupted meanwhile: its clock is off by so much of what it shows.
RATE_ERROR: Final = 0.002
#: Of the real-time clock, which shows whole seconds: each of two readings is off by up to one.
RTC_TOLERANCE_S: Final = 2.0
#: Seconds: a timer fires when the guest's processor runs, for which it may have to wait on a busy host.
LATE_S: Final = 1.0

#: In ticks of its own: how long it ran cannot be told.
_TICKS: Final = "tsc"
#: Of the clocksources, the one that may go on while the guest stands.
_TSC: Final = "tsc"


@dataclass(frozen=True, slots=True)
class Span:
    """How far a clock went, in seconds, and between which limits it had to."""

    name: str
    seconds: float
    least: float
    most: float

    @property
    def right(self) -> bool:
        """Whether it is between the limits."""
        return self.least <= self.seconds <= self.most


@dataclass(frozen=True, slots=True)
class ClockReview:
    """What came of a guest's clocks, for the verdict."""

    source: str
    """What the guest's kernel makes its clocks of, before the migration and after it."""
    source_after: str
    spans: tuple[Span, ...]
    rtc: Span | None
    """None: the guest has none."""
    back: tuple[tuple[str, float], ...]
    """Clocks that went back, and by how many seconds (the TSC: ticks)."""
    late: float
    """By how many seconds the timer fired too late that was the latest, and how late it may be."""
    late_most: float
    waited: float
    """For how many seconds QEMU's threads waited for the host's processors, at most, in a span that is as
    long as that timer was late."""
    fired: int


def review(aftermath: Aftermath) -> ClockReview:
    """Hold what the guest's clocks showed against the host's.  Raises :class:`MachineryError`."""
    before, after = aftermath.before, aftermath.after
    paused = sum(pause.seconds for pause in aftermath.pauses)
    source, source_after = before.word("clocksource"), after.word("clocksource")
    tsc = _TSC in (source, source_after) and aftermath.accelerator == "kvm"
    longest = max((pause.seconds for pause in aftermath.pauses), default=0.0)
    names = after.word("clocks").split()
    late = after.number("late_ns") / 1e9
    shift = paused if tsc else 0.0
    return ClockReview(
        source=source,
        source_after=source_after,
        spans=tuple(_spans(aftermath, names, paused, shift)),
        rtc=_rtc(before, after),
        back=tuple(
            (name, back if name == _TICKS else back / 1e9)
            for name, back in zip(names, after.numbers("back", len(names)), strict=True)
            if back
        ),
        late=late,
        late_most=LATE_S * aftermath.patience + (longest if tsc else 0.0),
        waited=max((longest_wait(samples, late) for samples in aftermath.waits), default=0.0),
        fired=after.number("fired"),
    )


def _spans(aftermath: Aftermath, names: list[str], paused: float, may_gain: float) -> Iterator[Span]:
    before, after = aftermath.before, aftermath.after
    # The guest read its clocks some time between question and answer.
    least, most = after.asked - before.answered - paused, after.answered - before.asked - paused
    tolerance = (TOLERANCE_S + PAUSE_TOLERANCE_S * len(aftermath.pauses)) * aftermath.patience
    first, last = (report.numbers("shown", len(names)) for report in (before, after))
    for name, begin, end in zip(names, first, last, strict=True):
        if name == _TICKS:
            continue
        error = 0.0 if name == "hpet" else RATE_ERROR
        gain = 0.0 if name == "hpet" else may_gain
        yield Span(
            name,
            (end - begin) / 1e9,
            least * (1 - error) - tolerance,
            most * (1 + error) + gain + tolerance,
        )


def _rtc(before: Report, after: Report) -> Span | None:
    """It is made of the host's clock, and goes on while the guest stands."""
    begin, end = before.number("rtc_s"), after.number("rtc_s")
    if not begin or not end:
        return None
    least, most = after.asked - before.answered, after.answered - before.asked
    return Span("rtc", float(end - begin), least - RTC_TOLERANCE_S, most + RTC_TOLERANCE_S)
