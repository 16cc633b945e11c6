# SPDX-License-Identifier: GPL-2.0-or-later
"""XBZRLE: what has changed in a page, in place of the page.

Runs of bytes that stay and of bytes that are new, each with its length as a LEB128
number of at most two bytes (QEMU's migration/xbzrle.c, ``xbzrle_decode_buffer()``).
"""

from __future__ import annotations


def apply_delta(old: bytes, delta: bytes) -> bytes:
    """The page that ``delta`` makes of ``old``.  Raises :class:`ValueError` if it makes none."""
    page, at, place = bytearray(old), 0, 0
    while at < len(delta):
        same, used = _length(delta, at)
        if at and not same:
            raise ValueError("an empty run of bytes that stay")
        at += used
        place += same
        new, used = _length(delta, at)
        at += used
        if not new:
            raise ValueError("an empty run of new bytes")
        if place + new > len(page) or at + new > len(delta):
            raise ValueError("a run that goes beyond the page or its own end")
        page[place : place + new] = delta[at : at + new]
        place += new
        at += new
    return bytes(page)


def _length(data: bytes, at: int) -> tuple[int, int]:
    """A number of one or two bytes, and how many."""
    if at >= len(data):
        raise ValueError("it ends before a length")
    first = data[at]
    if not first & 0x80:
        return first, 1
    if at + 1 >= len(data) or data[at + 1] & 0x80:
        raise ValueError("a length of more than two bytes")
    return first & 0x7F | data[at + 1] << 7, 2
