# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest in a test's hands: its shell, its agent, its console, both QEMUs, and its migrations."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from harness.events import Deadline, EventStream
from harness.hosts.interface import Host
from harness.hosts.lab import LabHost
from harness.hosts.netns import GUEST_ADDRESS
from harness.report.folder import RunFolder
from harness.run.boot import ReadyGuest, load_workload
from harness.testing.migration import GuidedMigration

if TYPE_CHECKING:
    import libvirt

    from harness.guest.shell import CommandResult, Shell
    from harness.migration.qmp import Monitor
    from harness.plan.plan import RunPlan

#: Seconds, for anything that a guest is asked, on a slow machine under emulation.
_PATIENCE: Final = 120.0


class LabGuest:
    """A context manager: the ssh session is open until it is left."""

    def __init__(self, ready: ReadyGuest, folder: RunFolder, events: EventStream) -> None:
        self.domain: libvirt.virDomain = ready.domain
        """libvirt's, on the host where it runs now."""
        self.events = events
        """All that is said while it lives: QEMU's events, steps, the console's lines."""
        self.folder = folder
        """Like a run folder: console.log, events.jsonl, qmp.jsonl, ..."""
        self._ready = ready
        self._hosts = (ready.lab.source, ready.lab.destination)
        self._stack = contextlib.ExitStack()
        self._shell: Shell | None = None
        self._migrations = 0

    def __enter__(self) -> LabGuest:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def plan(self) -> RunPlan:
        """The scenario with every default filled in, and the binaries that are used."""
        return self._ready.plan

    @property
    def name(self) -> str:
        """What libvirt calls it."""
        return self._ready.lab.guest_name

    def host(self, side: str) -> Host:
        """``source``: where it was booted; ``destination``: the other one."""
        source, destination = self._ready.lab.source, self._ready.lab.destination
        return {"source": source, "destination": destination}[side]

    def memory_file(self, side: str, block: str = "pc.ram") -> Path:
        """The file with one side's RAM; it is gone when its QEMU is.  Raises ValueError if there is none."""
        host = self.host(side)
        assert isinstance(host, LabHost)
        (path,) = host.memory_dir.rglob(block)
        return path

    def load(self) -> int:
        """Load the scenario's workload; the number of the guest's last kernel message."""
        return load_workload(self._ready, self.events)

    def run(self, command: str | Sequence[str], *, timeout: float = _PATIENCE) -> CommandResult:
        """Run a command in the guest (a string: by its shell); its exit status and both outputs.

        All commands use one ssh session, which survives migrations.
        """
        deadline = Deadline(timeout, "the guest's shell")
        words = ["/bin/sh", "-c", command] if isinstance(command, str) else command
        if self._shell is None:
            from harness.guest.shell import Shell

            keys = self._ready.guest.keys
            self._shell = self._stack.enter_context(Shell.connect(GUEST_ADDRESS, keys, deadline))
        return self._shell.run(words, deadline)

    def shell(self, command: str | Sequence[str], *, timeout: float = _PATIENCE) -> str:
        """The output of a command in the guest.  Raises AssertionError if the command fails."""
        __tracebackhide__ = True
        outcome = self.run(command, timeout=timeout)
        line = command if isinstance(command, str) else shlex.join(command)
        assert outcome.status == 0, f"in the guest: {line}: status {outcome.status}: {outcome.stderr}"
        return outcome.stdout

    def call(self, verb: str, *words: str | int, timeout: float = _PATIENCE) -> Mapping[str, Any]:
        """Have the guest's agent do something (``stats``, ``verify``, ``exercise``, ...): its answer."""
        return self._ready.guest.control.call(verb, *words, deadline=Deadline(timeout, verb))

    def console(self) -> str:
        """What it has written to its console so far."""
        return self.folder.file("console.log").read_text("utf-8", errors="replace")

    @contextlib.contextmanager
    def monitor(self, side: str = "source") -> Iterator[Monitor]:
        """QMP with the QEMU of one side, while the guest is not being migrated.

        A QEMU speaks with one client at a time: in a migration, take
        :meth:`GuidedMigration.monitor`.
        """
        from harness.migration.qmp import Monitor, MonitorLoop
        from harness.migration.transcript import Transcript

        path = self._ready.guest.monitor_socket(self.host(side))
        name = self._fresh("qmp-test", ".jsonl")
        with MonitorLoop() as loop, Transcript(self.folder.file(name)) as transcript:
            deadline = Deadline(_PATIENCE, "QEMU's monitor")
            monitor = Monitor.connect(loop, side, path, self.events, transcript, deadline)
            try:
                yield monitor
            finally:
                monitor.close()

    def _fresh(self, stem: str, suffix: str) -> str:
        names = (f"{stem}{number or ''}{suffix}" for number in range(1000))
        return next(name for name in names if not self.folder.file(name).exists())

    @contextlib.contextmanager
    def migration(self) -> Iterator[GuidedMigration]:
        """A migration to the other host, with the scenario's ``migration`` section; see the class."""
        self._migrations += 1
        number = self._migrations
        place = self.folder if number == 1 else self.folder.below(f"move-{number}")
        with GuidedMigration(
            self._ready, self._hosts, self.domain, place, self.events, self._arrive
        ) as migration:
            yield migration

    def _arrive(self, domain: libvirt.virDomain) -> None:
        """It runs on the other host now."""
        self.domain = domain
        self._hosts = (self._hosts[1], self._hosts[0])
