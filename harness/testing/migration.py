# SPDX-License-Identifier: GPL-2.0-or-later
"""One migration, step by step, as a test goes along.

    with guest.migration() as migration:
        migration.begin(hold=["request"])
        with migration.held("request"):         # the guest stands still, before the request leaves
            ...
        migration.switch_over()                 # both sides stand still
        assert migration.judge().verdict == "pass"
        migration.resume()

What follows a migration has to react to both QEMUs at any time.  It therefore runs in
a thread of its own, and the test meets it where it has asked for it.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Final

from harness.errors import DeadlineExceeded, MachineryError
from harness.events import EventStream
from harness.evidence.guest_checks import resume
from harness.hosts.interface import Host
from harness.report.folder import RunFolder
from harness.run.live_migration import LiveMigration

if TYPE_CHECKING:
    import libvirt

    from harness.evidence.switch_over import SwitchOver
    from harness.memory.access import Image
    from harness.migration.qmp import Monitor
    from harness.run.boot import ReadyGuest
    from harness.verdict.judge import Judgement

#: Seconds.  A moment that has not come by then does not come.
_PATIENCE: Final = 300.0
_END: Final = ""


class GuidedMigration:
    """See the module.  A migration that is left before its switch-over is cancelled."""

    def __init__(
        self,
        ready: ReadyGuest,
        hosts: tuple[Host, Host],
        domain: libvirt.virDomain,
        folder: RunFolder,
        events: EventStream,
        arrived: Callable[[libvirt.virDomain], None],
    ) -> None:
        self._ready = ready
        self._arrived = arrived
        self._folder = folder
        self._hosts = hosts
        self._domain = domain
        self._events = events
        self._live = LiveMigration(ready.guest, hosts, folder, events, on_moment=self._moment)
        self._points: frozenset[str] = frozenset()
        self._arrivals: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._release: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._follow, name="migration")
        self._error: BaseException | None = None
        self._end: SwitchOver | None = None

    def __enter__(self) -> GuidedMigration:
        self._live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._thread.is_alive():
                self._give_up()
        finally:
            self._live.__exit__(None, None, None)

    # --- the steps

    def begin(self, *, hold: Iterable[str] = ()) -> None:
        """Start to migrate.  ``hold`` names the moments at which it waits for :meth:`held`.

        At ``request`` and ``answer`` guest and migration stand still (arm info, ``strict``).
        At others (``start``, ``pass``, ``active``, ``pre-switchover``, ...) only whoever
        follows the migration does.
        """
        self._points = frozenset(hold)
        self._thread.start()

    @contextlib.contextmanager
    def held(self, moment: str, *, timeout: float = _PATIENCE) -> Iterator[None]:
        """Wait for the next moment of that name; the migration goes on when the block is left.

        Raises what ended the migration if it ends before, and DeadlineExceeded.
        """
        while True:
            try:
                found = self._arrivals.get(timeout=timeout)
            except queue.Empty:
                raise DeadlineExceeded(
                    f"the migration has come to no {moment} within {timeout:g} s"
                ) from None
            if found == _END:
                self._arrivals.put(_END)
                self._raise()
                raise AssertionError(f"the migration ended before it came to {moment!r}")
            if found == moment:
                break
            self._release.put(None)
        yield
        self._release.put(None)

    def switch_over(self) -> SwitchOver:
        """Let the migration come to its end: the guest stands still on both sides.

        Raises :class:`harness.migration.statistics.MigrationError` if it is given up, and
        :class:`harness.errors.LostError` for a QEMU that is gone.
        """
        if self._end is None:
            self._let_go()
            self._thread.join()
            self._raise()
        assert self._end is not None
        return self._end

    def run(self) -> SwitchOver:
        """From the beginning to the switch-over."""
        self.begin()
        return self.switch_over()

    def judge(self) -> Judgement:
        """Compare both memories, and judge every page as a run does; wrong ones are kept in the folder."""
        from harness.evidence.gather import gather
        from harness.evidence.keep import keep_pages
        from harness.verdict.judge import judge

        end = self.switch_over()
        judgement = judge(gather(end, self._ready.plan.resolved, self._events).case)
        keep_pages(judgement, end, self._folder)
        return judgement

    def resume(self) -> None:
        """Let the guest run on its new host, and wait for its agent's first answer there."""
        domain = self.switch_over().domain
        resume(domain, self._ready.guest.control, self._hosts[1].name, self._events)
        self._arrived(domain)

    # --- what there is to see

    @property
    def running(self) -> bool:
        """Whether it has begun, and has come to no end."""
        return self._thread.is_alive()

    def images(self, side: str) -> Mapping[str, Image]:
        """The memory of one side at switch-over, by RAMBlock."""
        end = self.switch_over()
        return (end.source if side == "source" else end.destination).images

    def monitor(self, side: str) -> Monitor:
        """QMP with a QEMU, from the first moment on; ``source`` is where the guest comes from this time."""
        return self._live.monitor(side)

    # --- the thread

    def _follow(self) -> None:
        try:
            how = self._ready.plan.resolved.scenario.migration
            self._end = self._live.run(self._domain, how)
        except BaseException as error:
            self._error = error
        finally:
            self._arrivals.put(_END)

    def _moment(self, name: str) -> None:
        if name in self._points:
            self._arrivals.put(name)
            self._release.get()

    def _let_go(self) -> None:
        """Nothing is waited for any more."""
        self._points = frozenset()
        self._release.put(None)

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _give_up(self) -> None:
        """The test has left in mid-migration: the guest stays where it is."""
        with contextlib.suppress(MachineryError):
            self._live.monitor("source").execute("migrate_cancel")
        self._let_go()
        self._thread.join(_PATIENCE)
        if self._end is None:
            self._ready.guest.control.rebind(self._hosts[0].name)
