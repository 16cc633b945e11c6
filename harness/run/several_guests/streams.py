# SPDX-License-Identifier: GPL-2.0-or-later
r"""The event streams of a run with several guests.

::

    hosts ---> guest 1 ---> run
          \--> guest 2 --/
           \-------------/

A guest's stream has what is its own, and what is of the hosts and so of all: how a daemon or a process ended.
It has nothing of another guest, so whoever reads it for its verdict cannot mistake one for the other.  The
run's stream has all of it, with the guest's number.  Events only go to the right: the streams' locks are
taken in that order and in no other.
"""

from __future__ import annotations

from typing import Final

from harness.events import Event, EventStream

#: In an event's data, of one that a guest's stream has from the hosts.
_OF_HOSTS: Final = "of_hosts"


def hosts_stream(run: EventStream) -> EventStream:
    """What happens on the hosts, of which the run is told."""
    hosts = EventStream()
    hosts.subscribe(run.repeat)
    return hosts


def guest_stream(guest: int, hosts: EventStream, run: EventStream) -> EventStream:
    """The stream of the guest with that number."""
    own = EventStream()

    def hand_on(event: Event) -> None:
        if _OF_HOSTS not in event.data:
            run.repeat(event, **_named(guest, event))

    own.subscribe(hand_on)
    hosts.subscribe(lambda event: own.repeat(event, **{_OF_HOSTS: True}), replay=True)
    return own


def _named(guest: int, event: Event) -> dict[str, object]:
    """What the run is told beside the event: whose it is, also where people read it."""
    words = {key: f"guest {guest}: {event.data[key]}" for key in ("step", "text") if key in event.data}
    # A console's text is the guest's own, and the event says whose console it is.
    return {"guest": guest, **(words if event.source == "harness" else {})}
