# SPDX-License-Identifier: GPL-2.0-or-later
"""libvirt's event loop: one for the process, in a thread of its own."""

from __future__ import annotations

import threading
from typing import Final

_lock: Final = threading.Lock()
_running = threading.Event()


def ensure_event_loop() -> None:
    """Have libvirt deliver events.  To be called before the first connection is opened."""
    with _lock:
        if _running.is_set():
            return
        import libvirt

        # Errors are raised as exceptions; libvirt would print each of them as well.
        libvirt.registerErrorHandler(lambda _context, _error: None, None)
        libvirt.virEventRegisterDefaultImpl()
        turn = libvirt.virEventRunDefaultImpl
        threading.Thread(target=_run, args=(turn,), name="libvirt", daemon=True).start()
        _running.set()


def _run(turn: object) -> None:
    assert callable(turn)
    while True:
        turn()
