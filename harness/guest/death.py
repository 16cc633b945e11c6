# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that dies is noticed at once, and not when a deadline passes.

    with DeathWatch(events, control, host="destination", side="destination") as watch:
        control.call("verify", deadline=deadline)       # raises GuestLost as the guest dies
    watch.words                                         # how it died, None: it has not

What counts: an Oops or a panic on its console; a reset, a shutdown, a panic or a
watchdog's end that QEMU says is the guest's own doing; the agent's ``ready`` of a
guest that has booted again.  A guest that a script boots anew is expected to do so.

What stands still without a word is asked for: before a call is sent again, ``silence``
(:func:`halted_for_good` in a run) looks at the processors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Final, Self

from harness.events import Event, EventStream
from harness.guest.control import GuestControl
from harness.hosts.processors import processors_of

#: What a Linux kernel prints first of an Oops, by architecture-independent and x86's own code
#: (arch/x86/mm/fault.c, arch/x86/kernel/traps.c, lib/bug.c, arch/arm64/mm/fault.c).
_OOPS: Final = re.compile(
    r"Oops: |Oops - |BUG: unable to handle|BUG: kernel NULL pointer|Unable to handle kernel"
    r"|kernel BUG at |Internal error: Oops|general protection fault|double fault:|stack segment:"
)
#: QEMU's events of a guest that ends or begins anew by itself.
_ENDS: Final = {"RESET": "it has reset itself", "SHUTDOWN": "it has shut itself down"}
_ALWAYS: Final = {
    "GUEST_PANICKED": "its kernel told QEMU that it has panicked",
    "WATCHDOG": "its watchdog ran off",
}


def halted_for_good(registers: str) -> bool:
    """Whether every processor is halted with interrupts off: nothing but a reset can wake it.

    ``registers``: HMP's ``info registers -a`` of a QEMU for x86; of others nothing is known.
    """
    found = processors_of(registers)
    return bool(found) and all(one.halted is True and one.interrupts is False for one in found)


def how_it_dies(event: Event, host: str, side: str) -> str | None:
    """Words for an event that shows a guest on ``host`` (its QEMU's monitor: ``side``) to die."""
    if event.source == f"{host}.console":
        if event.kind == "guest-panic":
            return f"its kernel panicked: {event.data.get('text')}"
        if event.kind == "console" and _OOPS.search(str(event.data.get("text"))):
            return f"its kernel said: {event.data.get('text')}"
    if event.source == f"{host}.control" and event.kind == "guest-ready":
        return "it has booted again"
    if event.source == f"{side}.qmp":
        data = event.data.get("data")
        facts = data if isinstance(data, Mapping) else {}
        if event.kind == "WATCHDOG" and facts.get("action") == "none":
            # QEMU only tells of it: the guest lets it bite to find out whether it does (guest.devices).
            return None
        own = facts.get("guest") is True
        if own and facts.get("reason") == "guest-reset":
            # A SHUTDOWN as well, where libvirt has QEMU end instead.
            return _ENDS["RESET"]
        return _ALWAYS.get(event.kind) or (_ENDS.get(event.kind) if own else None)
    return None


class DeathWatch:
    """Context manager.  ``silence`` says in words that a guest that does not answer never will."""

    def __init__(
        self,
        events: EventStream,
        control: GuestControl,
        *,
        host: str,
        side: str,
        silence: Callable[[], str | None] | None = None,
    ) -> None:
        self._events = events
        self._control = control
        self._host, self._side = host, side
        self._silence = silence
        self._began = events.now()
        self._unsubscribe: Callable[[], None] | None = None
        self.words: str | None = None

    def __enter__(self) -> Self:
        self._unsubscribe = self._events.subscribe(self._look)
        self._control.ask_before_repeating(self._silence)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._unsubscribe is not None:
            self._unsubscribe()
        self._control.ask_before_repeating(None)
        self._control.revive()

    def _look(self, event: Event) -> None:
        """In the thread that emits."""
        how = how_it_dies(event, self._host, self._side) if self.words is None else None
        if how is None or self._control.boots_again:
            return
        self.words = f"{how} ({event.t - self._began:.1f} s after it went on)"
        self._control.lose(self.words)
