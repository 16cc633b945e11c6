# SPDX-License-Identifier: GPL-2.0-or-later
"""How both QEMUs of a migration fared, from the event stream and from their logs.

    account = account_of("source", events.history(), since=first, log=host.qemu_log(name))

Reads events of three kinds: ``qemu-attached`` (a monitor was connected: process
id, and whether the guest ran then), QEMU's own (MIGRATION, STOP, RESUME), and
``process-ended`` (the lab's init reaps every QEMU, which libvirt detaches, and
tells how it ended, and whether it left a core).
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, cast

from harness.events import Event
from harness.hosts.core_files import core_words
from harness.verdict.locks import LockLook, LockMoment
from harness.verdict.outcome import CRASH_SIGNALS, ProcessEnd, QemuAccount

#: What sanitizers print first, and what glib and libc print of an assertion that does not hold.
_REPORT: Final = re.compile(
    r"ERROR: \w+Sanitizer|WARNING: ThreadSanitizer|: runtime error: |Assertion .* failed|assertion failed"
    r"|code should not be reached|^ERROR:.*:\d+:"
)


def reports_in(lines: Iterable[str]) -> tuple[str, ...]:
    """Those of a QEMU's own lines that report a fault of QEMU's."""
    return tuple(line for line in lines if _REPORT.search(line))


def process_end(returncode: int) -> ProcessEnd:
    """How a process ended, from its exit status as :mod:`subprocess` gives it (-N: by signal N)."""
    if returncode >= 0:
        return ProcessEnd(status=returncode)
    known = -returncode in {number.value for number in signal.Signals}
    return ProcessEnd(signal=signal.Signals(-returncode).name if known else f"signal {-returncode}")


def account_of(side: str, history: Sequence[Event], *, since: int, words: Sequence[str] = ()) -> QemuAccount:
    """What the QEMU on ``side`` said and did.

    ``since``: sequence number of the first event of this migration.  ``words``:
    what QEMU itself wrote to its log.
    """
    statuses: list[str] = []
    running: list[tuple[float, float | None]] = []
    pid: int | None = None
    end: ProcessEnd | None = None
    completed: float | None = None
    ended: float | None = None
    switched: float | None = None
    failed: float | None = None
    over = left = False
    for event in history:
        if event.seq < since:
            continue
        if event.kind == "process-ended" and pid is not None and event.data.get("pid") == pid:
            code = event.data.get("returncode")
            end = process_end(code) if isinstance(code, int) else None
            ended = _instant(event)
            _stop(running, ended)
        if event.source != f"{side}.qmp":
            continue
        if event.kind == "qemu-attached":
            number = event.data.get("pid")
            pid = number if isinstance(number, int) else None
            if event.data.get("running"):
                running.append((_instant(event), None))
        elif event.kind == "MIGRATION":
            status = str(_data(event).get("status"))
            # What comes after the end is another migration: that by which the fields are described.
            over = over or (status == "setup" and statuses[-1:] in (["completed"], ["failed"], ["cancelled"]))
            if not over:
                statuses.append(status)
                completed = _instant(event) if status == "completed" else completed
                failed = _instant(event) if status == "failed" else failed
                if status == "postcopy-active" and switched is None:
                    switched = _instant(event)
        elif event.kind == "RESUME" and not (running and running[-1][1] is None):
            running.append((_instant(event), None))
        elif event.kind in ("STOP", "SHUTDOWN"):
            _stop(running, _instant(event))
        if event.kind in ("SHUTDOWN", "RESET"):
            left = left or _data(event).get("guest") is True
    return QemuAccount(
        side,
        statuses=tuple(statuses),
        running=tuple(running),
        reports=reports_in(words),
        end=end,
        last_words=tuple(words),
        completed=completed,
        ended=ended,
        left=left,
        switched=switched,
        failed=failed,
    )


def with_core(account: QemuAccount, history: Sequence[Event], *, since: int, keep: Path) -> QemuAccount:
    """The same, with what became of the core file of a QEMU that crashed, which is moved to ``keep``."""
    if account.end is None or account.end.signal not in CRASH_SIGNALS:
        return account
    ours = [event for event in history if event.seq >= since]
    attached = [
        event.data
        for event in ours
        if event.kind == "qemu-attached" and event.source == f"{account.side}.qmp"
    ]
    pid, limit = attached[-1].get("pid"), attached[-1].get("core_limit")
    ends = [event.data for event in ours if event.kind == "process-ended" and event.data.get("pid") == pid]
    if not isinstance(pid, int) or not ends:
        return account
    words = core_words(
        pid, dumped=ends[-1].get("core") is True, limit=str(limit) if limit is not None else None, keep=keep
    )
    return replace(account, core=words)


def locks_of(history: Sequence[Event], *, since: int) -> tuple[LockLook, ...]:
    """The looks at the locks of the disks' images (events ``image-locks``), from ``since`` on."""
    looks = []
    for event in history:
        if event.seq < since or event.kind != "image-locks":
            continue
        held = event.data.get("held")
        sides = held if isinstance(held, Mapping) else {}
        source, destination = sides.get("source"), sides.get("destination")
        looks.append(
            LockLook(
                cast("LockMoment", event.data["moment"]),
                source if isinstance(source, Mapping) else None,
                destination if isinstance(destination, Mapping) else None,
            )
        )
    return tuple(looks)


def _stop(running: list[tuple[float, float | None]], instant: float) -> None:
    if running and running[-1][1] is None:
        running[-1] = (running[-1][0], instant)


def _data(event: Event) -> Mapping[str, object]:
    data = event.data.get("data")
    return data if isinstance(data, Mapping) else {}


def _instant(event: Event) -> float:
    """QEMU's own time of an event, seconds; of one that bears none, when it reached us."""
    at = event.data.get("at")
    return float(at) if isinstance(at, int | float) else event.t
