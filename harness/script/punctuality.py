# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether an entry of a script came in time: its moment may have passed before its first action took effect.

The source's QEMU goes on while its event travels to the harness.  A status such as
``setup`` lasts for a millisecond; what is done after it was not done in it.  A hold of
the device or of the guest's module waits, so an entry of those is never late.

    began = Began(entry="setup", which=1, action="cancel", at=events.now(), brings="cancelling")
    lateness(began, history, since)         # None, or words for the user

Pure: who asks, and when, is the runner's affair.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from harness.events import Event
from harness.scenario.moments import Moment
from harness.scenario.script import STATUSES

_ROUND: Final[Moment] = "pass"
#: What a status may be followed by when somebody gives the migration up.
_GIVEN_UP: Final = frozenset({"cancelling", "cancelled", "failed"})


@dataclass(frozen=True, slots=True)
class Began:
    """An entry that has begun: its moment, the ``which``-th of its kind, and its first action.

    ``at``: seconds since the event stream began.  ``brings``: the status of the
    source's QEMU by which it shows that the action has been taken; None: nothing shows it.
    """

    moment: str
    which: int
    action: str
    at: float
    brings: str | None = None


def lateness(began: Began, history: Sequence[Event], since: int) -> str | None:
    """Words for an entry whose moment had passed; None: it was in time, or its moment waits for it.

    ``since``: sequence number of the first event of this migration.
    """
    if began.moment != _ROUND and began.moment not in STATUSES:
        return None
    told = [event for event in history if event.seq >= since and event.source == "source.qmp"]
    begin = _begin(began, told)
    if begin is None:
        return None
    rest = told[begin + 1 :]
    end = next((event for event in rest if _ends(began, event)), None)
    if end is None:
        return None
    late = _late(began, end, rest)
    if late is None:
        return None
    passed = f"{began.moment} {began.which}" if began.moment == _ROUND else repr(began.moment)
    return (
        f"the script's moment {passed} had passed when its {began.action} came: "
        f"QEMU was at {_word(end)} {1000 * late:.1f} ms before"
    )


def _late(began: Began, end: Event, rest: Sequence[Event]) -> float | None:
    """By how many seconds; None: not at all."""
    if began.brings is None:
        return began.at - end.t if end.t <= began.at else None
    if _status(end) in _GIVEN_UP:
        return None
    taken = next((event for event in rest if _status(event) == began.brings), None)
    if taken is None:
        # It was never taken: whatever the moment has turned into came before it.
        return max(0.0, began.at - end.t)
    return _instant(taken) - _instant(end) if taken.seq > end.seq else None


def _begin(began: Began, told: Sequence[Event]) -> int | None:
    """The place of the moment's own event."""
    count = 0
    for place, event in enumerate(told):
        if began.moment == _ROUND:
            if event.kind == "MIGRATION_PASS" and _data(event).get("pass") == began.which:
                return place
        elif _status(event) == began.moment:
            count += 1
            if count == began.which:
                return place
    return None


def _ends(began: Began, event: Event) -> bool:
    status = _status(event)
    if began.moment == _ROUND:
        # The first begins in setup, and goes on.
        return event.kind == "MIGRATION_PASS" or status not in (None, "active")
    return status is not None and status != began.moment


def _word(event: Event) -> str:
    status = _status(event)
    return repr(status) if status is not None else f"pass {_data(event).get('pass')}"


def _status(event: Event) -> str | None:
    return str(_data(event).get("status")) if event.kind == "MIGRATION" else None


def _data(event: Event) -> Mapping[str, object]:
    data = event.data.get("data")
    return data if isinstance(data, Mapping) else {}


def _instant(event: Event) -> float:
    """QEMU's own time of it, where it bears one: both are then of one QEMU, and one clock."""
    at = event.data.get("at")
    return float(at) if isinstance(at, int | float) else event.t
