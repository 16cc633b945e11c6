# SPDX-License-Identifier: GPL-2.0-or-later
"""The end of what a program says that says more than anybody would keep.

::

    tail = OutputTail(folder / "bridge.fifo")
    process = host.start_program(command, None, tail.path)     # it opens the path, and writes
    tail.begun()
    ...
    process.wait()
    tail.text()
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Final

#: So many bytes are kept.
_KEPT: Final = 1 << 16


class OutputTail:
    """Reads a pipe with a name, which goes as soon as the program has it open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path, 0o600)
        # Whoever writes to it does not wait then.
        self._end = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self._kept = b""
        self._reader = threading.Thread(target=self._read, name="output-tail", daemon=True)

    def begun(self) -> None:
        """The program has it open: from here on nothing to read means that it has ended."""
        self.path.unlink()
        os.set_blocking(self._end, True)
        self._reader.start()

    def given_up(self) -> None:
        """The program was not started."""
        self.path.unlink()
        os.close(self._end)

    def _read(self) -> None:
        try:
            while said := os.read(self._end, _KEPT):
                self._kept = (self._kept + said)[-_KEPT:]
        finally:
            os.close(self._end)

    def text(self) -> str:
        """Once the program has ended, and whoever has its end of the pipe from it."""
        self._reader.join()
        return self._kept.decode("utf-8", "replace")
