# SPDX-License-Identifier: GPL-2.0-or-later
"""When a TCP connection whose receiver reads no more has come to its end.

A receiver that is full says that its window is closed; the sender probes it, after 200 ms,
400 ms and so on (tcp_send_probe0() in the kernel's net/ipv4/tcp_output.c).  That is not the end:
the receiver's kernel packs closer what has come, and lets its buffer grow (tcp_prune_queue() and
tcp_clamp_window() in tcp_input.c), so the answer to a probe may open the window again, for
some more megabytes.  But both are done when data arrives.  A probe carries none; so when one was
answered by a window that was still closed, the next ones will be, too.
"""

from __future__ import annotations

from typing import Final

#: Columns of /proc/net/tcp (Documentation/networking/proc_net_tcp.rst): both ends; what waits in the
#: queues; the timer that runs, and when it will have run off.
_ENDS: Final = slice(1, 3)
_QUEUES: Final = 4
_TIMER: Final = 5
_PROBE: Final = "04"

#: The timer is set as a probe is sent, and may be set once more as it is answered: when it has been
#: set three times, one probe has been answered, and another one sent.
_SETTINGS: Final = 3


class ClosedWindow:
    """Looks at all connections of a network namespace, again and again."""

    def __init__(self) -> None:
        # Connection -> what waits in its queues, the timer's rest when it was looked at last, and how
        # often the timer was set since anything has moved.
        self._seen: dict[tuple[str, ...], tuple[str, int, int]] = {}

    def stays_closed(self, connections: str) -> bool:
        """Whether one of these connections is probed, and has been without anything moving.

        ``connections``: /proc/PID/net/tcp, tcp6 or both.
        """
        now: dict[tuple[str, ...], tuple[str, int, int]] = {}
        for row in (line.split() for line in connections.splitlines()):
            timer, _, rest = row[_TIMER].partition(":") if len(row) > _TIMER else ("", "", "")
            if timer != _PROBE:
                continue
            ends, queues, left = tuple(row[_ENDS]), row[_QUEUES], int(rest, 16)
            waited, before, settings = self._seen.get(ends, (queues, left, 0))
            if waited != queues:
                settings = 0
            elif left > before:
                settings += 1
            now[ends] = (queues, left, settings)
        self._seen = now
        return any(settings >= _SETTINGS for _, _, settings in now.values())
