# SPDX-License-Identifier: GPL-2.0-or-later
"""What travels between a nested machine's owner and the agent in it: JSON, one message a line.

To the agent::

    {"run": N, "argv": [...], "cwd": "...", "env": {...}, "files": {...}}
                                                              run a command of ours
                              "terminal": [ROWS, COLUMNS]     on a terminal of its own; null: none
    {"input": N, "data": BASE64}                              its standard input; empty: the end of it
    {"window": [ROWS, COLUMNS]}                               its terminal has another size now
    {"signal": NUMBER}                                        send it to the command that runs

From the agent::

    {"hello": {"kvm": "" or why not, "uptime": SECONDS}}      it is ready
    {"alive": N}                                              every few seconds, whatever else goes on
    {"output": N, "to": "out" or "err", "data": BASE64}
    {"ended": N, "status": STATUS}                            after the last of its output
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

#: The serial port's name inside.
PORT: Final = "freepage.control"

#: How often the agent says that it is alive.
ALIVE_SECONDS: Final = 2.0

#: A longer line is no message of ours: whatever runs inside is not to fill our memory.
LONGEST_MESSAGE: Final = 1 << 20


class MachineWireError(Exception):
    """What arrived is not a message."""


def encode(message: Mapping[str, object]) -> bytes:
    """One message as a line."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def pack_message(data: bytes) -> str:
    """Bytes as text, for a message."""
    return base64.b64encode(data).decode("ascii")


def unpack(text: object) -> bytes:
    """The bytes that :func:`pack_message` was given; raises :class:`MachineWireError` for other text."""
    try:
        return base64.b64decode(str(text), validate=True)
    except ValueError as error:
        raise MachineWireError(f"not base64: {text!r:.80}") from error


class LineBuffer:
    """Puts messages together from what arrives, however it is cut."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[dict[str, Any]]:
        """The messages that are complete now; raises :class:`MachineWireError` for anything else."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LONGEST_MESSAGE:
            raise MachineWireError(f"a line of more than {LONGEST_MESSAGE} bytes")
        for line in lines:
            if not line.strip():
                continue  # what resynchronises a port is an empty line
            try:
                message = json.loads(line)
            except ValueError as error:
                raise MachineWireError(f"not JSON: {line!r:.80}") from error
            if not isinstance(message, dict):
                raise MachineWireError(f"not a message: {line!r:.80}")
            yield message
