# SPDX-License-Identifier: GPL-2.0-or-later
"""A thread with mounts, network and host name of its own.

Namespaces belong to threads, not to processes: what such a thread starts or
opens is in its host's namespaces, and the rest of the harness stays where it
is.  A socket that was made here stays in this network for ever, whichever
thread uses it.
"""

from __future__ import annotations

import os
import queue
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from harness.hosts import kernel
from harness.hosts.kernel import Namespace

_T = TypeVar("_T")


def background(work: Callable[[], _T], name: str) -> Future[_T]:
    """Start ``work`` in a thread that nobody has to wait for, not even the end of the process."""
    future: Future[_T] = Future()
    threading.Thread(target=_settle, args=(future, work), name=name, daemon=True).start()
    return future


def _settle(future: Future[_T], work: Callable[[], _T]) -> None:
    try:
        result = work()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)


class Space:
    """Namespaces of a host, and the thread that lives in them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        # A daemon: namespaces end with the lab, an unfinished call in here must not hold it up.
        self._thread = threading.Thread(target=self._live, name=f"host-{name}", daemon=True)
        self._network: Future[int] = Future()
        self._thread.start()

    def _live(self) -> None:
        _settle(self._network, self._enter)
        while (work := self._work.get()) is not None:
            work()

    def _enter(self) -> int:
        kernel.unshare(Namespace.MOUNT | Namespace.NET | Namespace.UTS)
        kernel.make_mounts_private()
        socket.sethostname(self.name)
        kernel.bring_loopback_up()
        # Not /proc/self: that is the process, whose network is the lab's.
        return os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    @property
    def network(self) -> int:
        """A descriptor of the network namespace, to move links into it."""
        return self._network.result()

    def submit(self, work: Callable[[], _T]) -> Future[_T]:
        """Have ``work`` done in the namespaces; calls are done one after the other."""
        future: Future[_T] = Future()

        def inside() -> _T:
            # Where the namespaces could not be made, nothing is done in those of the lab instead.
            self._network.result()
            return work()

        self._work.put(lambda: _settle(future, inside))
        return future

    def run(self, work: Callable[[], _T]) -> _T:
        """Do ``work`` in the namespaces and return what it returns."""
        return self.submit(work).result()

    def close(self) -> None:
        """End the thread when it has done what it was given."""
        self._work.put(None)
        self._thread.join(timeout=5)
        if self._network.done() and self._network.exception() is None:
            os.close(self._network.result())
