# SPDX-License-Identifier: GPL-2.0-or-later
"""The process that cleans up when the deputy cannot.

It is forked before the deputy does anything, holds the reading end of a pipe and
does nothing but wait.  The deputy writes into the pipe what there is to take away,
*before* it comes into being.  When the pipe closes without a farewell (the ssh
connection is lost, the deputy was killed) the keeper takes it all away.
"""

from __future__ import annotations

import json
import os
import shutil
import signal

from .tidy import Traces, tidy

_FAREWELL = {"farewell": True}


class Keeper:
    """The deputy's end."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe

    @classmethod
    def start(cls, own: str) -> Keeper:
        """Fork the keeper.  ``own`` is the folder in which the deputy itself lies."""
        reading, writing = os.pipe()
        if os.fork() == 0:
            os.close(writing)
            # Whatever happens in there must not come back into the deputy's code.
            try:
                _keep(reading, own)
            finally:
                os._exit(0)
        os.close(reading)
        return cls(writing)

    def note(self, traces: Traces) -> None:
        """Tell the keeper everything that there is to take away from now on."""
        self._say(traces.as_dict())

    def farewell(self) -> None:
        """Say that all was taken away, so that the keeper ends without doing anything."""
        self._say(_FAREWELL)

    def _say(self, what: object) -> None:
        data = memoryview(json.dumps(what).encode() + b"\n")
        while data:
            data = data[os.write(self._pipe, data) :]


def _keep(reading: int, own: str) -> None:
    os.setsid()
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    # The ssh session ends when nobody holds its ends any more; nor is a folder kept busy.
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    os.chdir("/")
    traces, said_farewell = Traces(), False
    with os.fdopen(reading, encoding="utf-8") as lines:
        for line in lines:
            if not line.endswith("\n"):
                break  # killed while it wrote: what was noted before stands
            said = json.loads(line)
            said_farewell = said == _FAREWELL
            traces = Traces() if said_farewell else Traces(**said)
    if not said_farewell:
        tidy(traces)
    shutil.rmtree(own, ignore_errors=True)
