# SPDX-License-Identifier: GPL-2.0-or-later
"""A connection and datagrams that a guest has kept while it moved: what both ends tell of them."""

from __future__ import annotations

from dataclasses import dataclass

from harness.guestview.report import Report


@dataclass(frozen=True, slots=True)
class StreamAccount:
    """What the host's end has seen."""

    sent: int
    """Bytes that it has sent, and received."""
    received: int
    first_wrong: int | None
    """The place of the first byte that was not what it had to be."""
    error: str | None
    """What the connection ended with, if it was not its end."""
    after: int
    """Bytes that came after the guest had moved."""
    ended: bool
    """Both ends have said that there is no more to come."""
    gap: float
    """The longest time in seconds in which no byte came."""
    datagrams: int
    """Sent."""
    right: int
    """Of those that came back, how many were right, and wrong."""
    wrong: int
    right_after: int
    """Right ones that came after the guest had moved."""
    datagram_gap: float
    waited: float
    """For so many seconds the host waited for what was missing."""


@dataclass(frozen=True, slots=True)
class StreamReview:
    """What came of both, for the verdict: faults in words, and what was measured."""

    broken: tuple[str, ...]
    datagrams_broken: tuple[str, ...]
    gap_ms: int
    datagram_gap_ms: int
    bytes: int
    datagrams_lost: int


def review(guest: Report, host: StreamAccount) -> StreamReview:
    """Hold what the guest tells against what the host has seen.  Raises :class:`MachineryError`."""
    return StreamReview(
        broken=tuple(_of_connection(guest, host)),
        datagrams_broken=tuple(_of_datagrams(guest, host)),
        gap_ms=round(1000 * host.gap),
        datagram_gap_ms=round(1000 * host.datagram_gap),
        bytes=host.sent + host.received,
        datagrams_lost=host.datagrams - host.right - host.wrong,
    )


def _of_connection(guest: Report, host: StreamAccount) -> list[str]:
    found = []
    if host.error is not None:
        found.append(f"the host's end broke: {host.error}")
    if guest.number("error"):
        found.append(f"the guest's end broke with error {guest.number('error')}")
    if host.first_wrong is not None:
        found.append(f"byte {host.first_wrong} from the guest is wrong")
    if guest.number("wrong"):
        found.append(f"byte {guest.number('first_wrong')} to the guest is wrong")
    if found:
        return found
    if not host.after:
        found.append(f"no byte came within {host.waited:.0f} s after the guest had moved")
    elif not host.ended:
        found.append(f"it did not come to its end within {host.waited:.0f} s after the guest had moved")
    elif (guest.number("sent"), guest.number("received")) != (host.received, host.sent):
        found.append(
            f"the guest sent {guest.number('sent')} bytes and received {guest.number('received')}, "
            f"the host received {host.received} and sent {host.sent}"
        )
    return found


def _of_datagrams(guest: Report, host: StreamAccount) -> list[str]:
    found = []
    if guest.number("bad"):
        found.append(f"{guest.number('bad')} datagrams to the guest were wrong")
    if host.wrong:
        found.append(f"{host.wrong} datagrams from the guest were wrong")
    if not host.right_after:
        found.append(f"none came back within {host.waited:.0f} s after the guest had moved")
    return found
