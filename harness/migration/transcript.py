# SPDX-License-Identifier: GPL-2.0-or-later
"""What was said on a monitor, line by line, for the run folder."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import IO

from harness.events import jsonable


class Transcript:
    """Writes one JSON object a line, each at once: a run that dies keeps what was said until then."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._zero = time.monotonic()
        self._lock = threading.Lock()
        # "x": nothing in a run folder is ever overwritten.
        self._file: IO[str] = path.open("x", encoding="utf-8", buffering=1)

    def note(self, side: str, what: str, content: object) -> None:
        """Append one line; silently nothing once closed (a monitor may outlive its run by a moment)."""
        line = json.dumps(
            {"t": round(time.monotonic() - self._zero, 6), "side": side, what: jsonable(content)},
            ensure_ascii=False,
        )
        with self._lock:
            if not self._file.closed:
                self._file.write(line + "\n")

    def __enter__(self) -> Transcript:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._file.close()
