# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's console and control channel, and the sockets and files of the QEMU of each host."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from harness.events import EventStream
from harness.guest.console import Console
from harness.guest.control import GuestControl
from harness.hosts.interface import Ends, Host
from harness.report.folder import RunFolder


@dataclass(frozen=True, slots=True)
class QemuFiles:
    """What belongs to one QEMU: its sockets, and the files that it writes."""

    sockets: Ends
    #: What the device records.
    record: Path
    #: What QEMU traces, if it is told to.
    trace: Path

    @property
    def monitor(self) -> Path:
        """Where QEMU listens for us."""
        return self.sockets.ours.monitor

    @property
    def gate(self) -> Path:
        """Where a migration of this QEMU's guest goes through on its way to the daemon."""
        return self.monitor.with_name("confirm.sock")


class Channels:
    """Context manager: console and control channel are open while it is entered."""

    def __init__(self, folder: RunFolder, events: EventStream, label: str = "") -> None:
        self.console = Console(events, folder.file("console.log"))
        self.control = GuestControl(events, last_lines=self.console.tail)
        self._folder = folder
        self._label = label
        self._files: dict[str, QemuFiles] = {}
        self._arrivals = 0

    def __enter__(self) -> Self:
        self.console.__enter__()
        self.control.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.control.__exit__(kind, value, trace)
        self.console.__exit__(kind, value, trace)

    def arrive(self, host: Host) -> None:
        """A new QEMU is about to start on ``host``: make sockets for it, and name its files.

        Console and control are ours, which QEMU connects to, once.  So they listen
        before there is any QEMU, and each QEMU has new ones.
        """
        self._arrivals += 1
        if self._arrivals > 1:
            self.control.mute(host.name)
        # One process, one record: its counters begin anew with each.
        again = host.name in self._files
        name = f"{host.name}-{self._arrivals}" if again else host.name
        ends = host.arrive(f"{self._label}qemu-{self._arrivals}")
        self._files[host.name] = QemuFiles(
            ends, self._folder.file(f"{name}.record"), self._folder.file(f"{name}.trace")
        )
        self.console.listen(host.name, ends.ours.console)
        self.control.listen(host.name, ends.ours.control)

    def of(self, host: Host) -> QemuFiles:
        """What belongs to the present QEMU of ``host``."""
        return self._files[host.name]
