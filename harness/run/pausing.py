# SPDX-License-Identifier: GPL-2.0-or-later
"""Both QEMUs of a migration stand still, and go on as if nothing had been.

with paused(there, held, stopped=True) as states:
...
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from harness.errors import FreepageError
from harness.migration.qmp import Monitor

if TYPE_CHECKING:
    from harness.hosts.interface import Host

#: The source has no guest any more that could go on.
_LEFT: Final = ("device", "completed", "postcopy-active", "postcopy-paused", "postcopy-recover")
#: For a QEMU that may hang to say how it is.
ANSWER_SECONDS: Final = 5.0
#: For a source whose destination is stopped: it may be waiting for it with all that it has.
_AT_ONCE_SECONDS: Final = 1.0
_IS_STOPPED: Final = "its process is stopped (SIGSTOP)"


@dataclass(frozen=True, slots=True)
class Standing:
    """A QEMU that is there."""

    side: str
    host: Host
    monitor: Monitor

    @property
    def pid(self) -> int:
        """Its process, in the lab."""
        return self.monitor.pid

    def tell(self, command: str, seconds: float = ANSWER_SECONDS) -> None:
        """Have it do something; one that hangs does nothing."""
        with contextlib.suppress(FreepageError):
            self.monitor.execute(command, seconds=seconds)

    def ask(self, command: str, seconds: float = ANSWER_SECONDS) -> Mapping[str, object]:
        """An answer; nothing of a QEMU that does not answer."""
        with contextlib.suppress(FreepageError):
            found = self.monitor.execute(command, seconds=seconds)
            return found if isinstance(found, Mapping) else {}
        return {}

    def state(self) -> str:
        """What it says of itself."""
        status = self.ask("query-status").get("status")
        if status is None:
            return "it does not answer its monitor"
        migration = self.ask("query-migrate").get("status")
        return f"its guest is {status!r}" + (f", its migration {migration!r}" if migration else "")


@contextlib.contextmanager
def paused(there: list[Standing], held: Callable[[], bool], *, stopped: bool) -> Iterator[Mapping[str, str]]:
    """Both guests stand still, and with ``stopped`` both processes; what each says of itself.

    ``held``: whether the device has stopped the guest meanwhile, which is let go on by whoever answers that.
    """
    with _stopped(there, held) if stopped else _guests_paused(there, held) as states:
        yield states


@contextlib.contextmanager
def _guests_paused(there: list[Standing], held: Callable[[], bool]) -> Iterator[Mapping[str, str]]:
    paused = []
    for one in there:
        if one.ask("query-status").get("running") is True:
            one.tell("stop")
            paused.append(one)
    try:
        yield {one.side: one.state() for one in there}
    finally:
        for one in paused:
            _go_on(one, held)


@contextlib.contextmanager
def _stopped(there: list[Standing], held: Callable[[], bool]) -> Iterator[Mapping[str, str]]:
    """Both processes stand still.

    The destination's first, and it goes on last, so that the migration does not end in between: the source
    waits for it.  The source's guest is paused before, so that its clocks do not jump; a source that is about
    to complete answers nobody, and has stopped its guest already.
    """
    source = next((one for one in there if one.side == "source"), None)
    others = [one for one in there if one is not source]
    for one in others:
        _signal(one, signal.SIGSTOP)
    said, sent = _IS_STOPPED, False
    if source is not None:
        # One that the device has stopped is its to let go on.
        if source.ask("query-status", _AT_ONCE_SECONDS).get("running") is True:
            sent = True
            source.tell("stop", _AT_ONCE_SECONDS)
            said = f"its guest was paused, and {_IS_STOPPED}"
        _signal(source, signal.SIGSTOP)
    try:
        yield {one.side: said if one is source else _IS_STOPPED for one in there}
    finally:
        answered = True
        if source is not None:
            _signal(source, signal.SIGCONT)
            answered = not sent or _go_on(source, held, _AT_ONCE_SECONDS)
        for one in others:
            _signal(one, signal.SIGCONT)
        if source is not None and not answered:
            _go_on(source, held)


def _signal(one: Standing, number: signal.Signals) -> None:
    # A QEMU that is gone needs none.
    with contextlib.suppress(ProcessLookupError):
        os.kill(one.pid, number)


def _go_on(one: Standing, held: Callable[[], bool], seconds: float = ANSWER_SECONDS) -> bool:
    """``cont`` a guest that is paused, unless it has left; whether QEMU answers."""
    status = one.ask("query-status", seconds).get("status")
    if status != "paused":
        return status is not None
    # What it has said before that answer has come before it.
    if held():
        return True
    if one.side == "source" and one.ask("query-migrate", seconds).get("status") in _LEFT:
        return True
    # One that is gone by now is noticed by whoever follows it.
    one.tell("cont", seconds)
    return True
