# SPDX-License-Identifier: GPL-2.0-or-later
"""Waiting for files to go away, as the kernel tells it (inotify, by way of the C library)."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import time

_IN_MOVED_FROM = 0x40
_IN_DELETE = 0x200
_IN_DELETE_SELF = 0x400
_IN_MOVE_SELF = 0x800
#: More than any burst of events takes; what they say is not looked at.
_EVENTS = 1 << 16


def await_gone(paths: list[str], seconds: float) -> None:
    """Wait until none of some files exists any more, but not longer than ``seconds``.

    Raises OSError where the kernel lets nothing be watched.
    """
    until = time.monotonic() + seconds
    with contextlib.ExitStack() as stack:
        watch = _inotify()
        stack.callback(os.close, watch)
        for folder in {os.path.dirname(path) for path in paths}:
            # A folder that is gone has taken its files with it.
            with contextlib.suppress(FileNotFoundError):
                _add(watch, folder)
        # Looked at after the watch is set: nothing can go unnoticed in between.
        while any(os.path.lexists(path) for path in paths):
            remaining = until - time.monotonic()
            if remaining <= 0 or not select.select([watch], [], [], remaining)[0]:
                return
            os.read(watch, _EVENTS)


_libc = ctypes.CDLL(None, use_errno=True)


def _inotify() -> int:
    descriptor = int(_libc.inotify_init1(os.O_CLOEXEC))
    if descriptor < 0:
        raise _error("inotify")
    return descriptor


def _add(watch: int, folder: str) -> None:
    mask = ctypes.c_uint32(_IN_MOVED_FROM | _IN_DELETE | _IN_DELETE_SELF | _IN_MOVE_SELF)
    if _libc.inotify_add_watch(watch, os.fsencode(folder), mask) < 0:
        raise _error(folder)


def _error(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), what)
