# SPDX-License-Identifier: GPL-2.0-or-later
"""Serve one run on standard input and output, until the connection ends or the harness takes its leave.

Started as ``python3 ARCHIVE FOLDER``; FOLDER is where the archive lies, and goes with it.
"""

from __future__ import annotations

import contextlib
import os
import queue
import select
import sys
import threading

from .deputy import Deputy
from .keeper import Keeper
from .wire import Frame, WireError, pack, read_frame

#: The harness says something every few seconds.  After so long a silence its connection is lost,
#: even if nobody has told the kernel.
_PATIENCE = 60.0


def main() -> None:
    """Run the deputy; returns when the run has ended."""
    keeper = Keeper.start(sys.argv[1])
    requests: queue.SimpleQueue[Frame] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests,), daemon=True).start()
    _send({"hello": 1}, b"")
    deputy = Deputy(keeper, sys.argv[1])
    while True:
        frame = requests.get()
        if "id" not in frame[0]:
            continue  # a sign of life
        _send(*deputy.answer(frame))
        if frame[0].get("verb") == "leave":
            os._exit(0)


def _listen(requests: queue.SimpleQueue[Frame]) -> None:
    """Put down what comes; when nothing comes any more, end at once: the keeper does the rest."""
    try:
        while (frame := read_frame(_read)) is not None:
            requests.put(frame)
    except (OSError, WireError) as error:
        # Nobody may be there to hear it.
        with contextlib.suppress(OSError):
            print(f"deputy: {error}", file=sys.stderr, flush=True)  # noqa: T201
    finally:
        os._exit(1)


def _read(length: int) -> bytes:
    parts = []
    while length:
        if not select.select([0], [], [], _PATIENCE)[0]:
            raise OSError(f"nothing was heard for {_PATIENCE:g} s")
        part = os.read(0, min(length, 1 << 20))
        if not part:
            break
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


def _send(header: dict[str, object], payload: bytes) -> None:
    data = memoryview(pack(header, payload))
    try:
        while data:
            data = data[os.write(1, data) :]
    except OSError:
        os._exit(1)
