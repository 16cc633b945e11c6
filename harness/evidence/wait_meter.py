# SPDX-License-Identifier: GPL-2.0-or-later
"""Looks, all the while, at how long QEMU's threads wait for a processor of this machine.

    with WaitMeter(events) as meter:
        ...                     # QEMUs come and go
    meter.of_each()             # for each of them its looks, in order

QEMUs are known from the moment when a monitor is connected to them.  A kernel that keeps no such account
(CONFIG_SCHED_INFO) has nobody wait.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from harness.events import Event, EventStream
from harness.guestview.waits import WaitSample

#: Seconds between two looks: a tenth of the lateness that is a finding.
_OFTEN: Final = 0.1
#: What QEMU calls a vCPU's thread ("CPU 0/KVM", "CPU 0/TCG"; "ALL CPUs/TCG" where one runs them all).
_VCPU: Final = ("CPU ", "ALL CPUs")


class WaitMeter:
    """See the module."""

    def __init__(self, events: EventStream) -> None:
        self._events = events
        self._samples: dict[int, list[WaitSample]] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="waits", daemon=True)
        self._forget: Callable[[], None] = lambda: None

    def __enter__(self) -> Self:
        self._forget = self._events.subscribe(self._heard)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._forget()
        self._over.set()
        self._thread.join()

    def of_each(self) -> Sequence[Sequence[WaitSample]]:
        """For each QEMU its looks so far, in order."""
        for pid in tuple(self._samples):
            self._look(pid)
        return tuple(tuple(samples) for samples in self._samples.values())

    def _heard(self, event: Event) -> None:
        pid = event.data.get("pid")
        # Of one on another machine there is no such limit, and no thread here.
        if (
            event.kind == "qemu-attached"
            and isinstance(pid, int)
            and event.data.get("core_limit") is not None
        ):
            self._samples.setdefault(pid, [])

    def _watch(self) -> None:
        while not self._over.wait(_OFTEN):
            for pid in tuple(self._samples):
                self._look(pid)

    def _look(self, pid: int) -> None:
        # It may end at any moment.
        with contextlib.suppress(OSError):
            self._samples[pid].append(sample_of(pid, self._events.now()))


def sample_of(pid: int, at: float) -> WaitSample:
    """What the threads of a process have waited until now.  Raises :class:`OSError` if it is gone."""
    loop, vcpus, others = 0.0, dict[int, float](), dict[int, float]()
    for task in Path(f"/proc/{pid}/task").iterdir():
        thread = int(task.name)
        # A thread that ends meanwhile is none that matters.
        with contextlib.suppress(OSError):
            if thread == pid:
                loop = _waited(task)
                continue
            name = (task / "comm").read_text(encoding="utf-8", errors="replace")
            (vcpus if name.startswith(_VCPU) else others)[thread] = _waited(task)
    # A QEMU that gives its threads no names (-name debug-threads=off): any of them may be a vCPU's.
    return WaitSample(at, loop, vcpus or others)


def _waited(task: Path) -> float:
    """Seconds; the second number of three, in nanoseconds (fs/proc/base.c)."""
    return int((task / "schedstat").read_text(encoding="ascii").split()[1]) / 1e9
