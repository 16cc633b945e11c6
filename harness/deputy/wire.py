# SPDX-License-Identifier: GPL-2.0-or-later
"""How harness and deputy talk: frames of one JSON object and some bytes, both ways.

::

    u32 length of the JSON text | u32 length of the payload | JSON text | payload

A request has ``id`` and ``verb``; its answer has the same ``id`` and either
``ok`` or ``error``.  A request without an id wants no answer.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any

HEAD = struct.Struct(">II")
LONGEST_TEXT = 1 << 22
LONGEST_PAYLOAD = 1 << 26

Header = dict[str, Any]
Frame = tuple[Header, bytes]


class WireError(Exception):
    """What arrived is no frame."""


def pack(header: Header, payload: bytes = b"") -> bytes:
    """One frame."""
    text = json.dumps(header).encode()
    if len(text) > LONGEST_TEXT or len(payload) > LONGEST_PAYLOAD:
        raise WireError(f"a frame of {len(text)} and {len(payload)} bytes is too long")
    return HEAD.pack(len(text), len(payload)) + text + payload


def read_frame(read: Callable[[int], bytes]) -> Frame | None:
    """The next frame; None at the end.  ``read(n)`` gives n bytes, fewer only at the end."""
    head = read(HEAD.size)
    if not head:
        return None
    if len(head) < HEAD.size:
        raise WireError("cut short in the head of a frame")
    text_length, payload_length = HEAD.unpack(head)
    if text_length > LONGEST_TEXT or payload_length > LONGEST_PAYLOAD:
        raise WireError(f"not a frame: {head!r}")
    text, payload = read(text_length), read(payload_length) if payload_length else b""
    if len(text) < text_length or len(payload) < payload_length:
        raise WireError("cut short in a frame")
    try:
        header = json.loads(text)
    except ValueError as error:
        raise WireError(f"not a frame: {error}") from error
    if not isinstance(header, dict):
        raise WireError("not a frame: its header is no object")
    return header, payload
