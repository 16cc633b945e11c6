# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs that are asked something on this machine, each bounded in time and in what it may say."""

from __future__ import annotations

import os
import selectors
import subprocess
import time
from typing import Any

_MOST = 1 << 20


def ask(command: list[str], seconds: float, word: str = "") -> dict[str, Any]:
    """Run a program until it ends, or has said ``word``, or ``seconds`` are over; what it said."""
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
    except OSError as error:
        return {"status": None, "said": "", "problem": error.strerror or str(error)}
    assert process.stdout is not None
    until, said, wanted = time.monotonic() + seconds, b"", word.encode()
    with process.stdout, selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        ended = False
        while not ended and len(said) < _MOST and not (wanted and wanted in said):
            if not selector.select(max(0.0, until - time.monotonic())):
                break
            piece = os.read(process.stdout.fileno(), 65536)
            ended = not piece
            said += piece
        if not ended:
            process.kill()
    status = process.wait()
    problem = "" if ended or (wanted and wanted in said) else f"not within {seconds:g} s"
    return {"status": status, "said": said.decode(errors="replace"), "problem": problem}
