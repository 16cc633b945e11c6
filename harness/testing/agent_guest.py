# SPDX-License-Identifier: GPL-2.0-or-later
"""One guest with the module, its agent, and a host that migrates it to nowhere as often as one likes.

    with ModuleGuest.boot(setup, folder) as guest:
        guest.call("hold", "after-walk")
        with guest.migration():
            guest.call("held", "after-walk")
            ...
            guest.call("release")
        guest.stats()["answers"]

What the device accepted, request by request, is in its record (:meth:`ModuleGuest.record`).
"""

from __future__ import annotations

import queue
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.events import Deadline, EventStream
from harness.guest.control import GuestControl
from harness.memory.record import MigrationRecord, read_record
from harness.migration.qmp import QmpEvent
from harness.testing.plain_guest import MIB, PlainGuest, PlainMachine, Software
from harness.toolchain import Kernel, QemuBinary, Toolchain

#: For anything that a guest is asked, on a slow machine under emulation.
PATIENCE = 120

#: Bytes a second: what a guest has in its memory takes minutes.
SLOW = 1 << 18


@dataclass(frozen=True)
class Setup:
    """What to boot."""

    toolchain: Toolchain
    qemu: QemuBinary
    kernel: Kernel
    variant: str = "test"
    memory: int = 256 * MIB
    nodes: int = 1
    cpus: int | None = None
    cmdline: str = ""
    driver: str = "info"
    device: Sequence[str] = ("free-page-info=on",)
    more: Sequence[str] = field(default=())

    def machine(self, record: Path, port: socket.socket) -> PlainMachine:
        """The machine; what the device does is recorded where it has free page info."""
        options = ["virtio-balloon-pci", "id=balloon", *self.device]
        recorded = any(option.startswith("free-page-info=") for option in self.device)
        recording = ("-global", f"migration.x-record={record}") if recorded else ()
        return PlainMachine(
            self.qemu,
            self.memory,
            self.nodes,
            more=("-device", ",".join(options), *recording, *self.more),
            cpus=self.cpus,
            port=port,
        )


class MigratingGuest:
    """What both kinds of guest share: QMP, migrations to nowhere, the device's record."""

    def __init__(self, plain: PlainGuest, record: Path) -> None:
        self.plain = plain
        self.monitor = plain.monitor
        self._record = record
        self._events: queue.SimpleQueue[QmpEvent] = queue.SimpleQueue()
        self.monitor.listen(self._events.put)
        on = [{"capability": "events", "state": True}]
        self.monitor.execute("migrate-set-capabilities", {"capabilities": on})

    def begin_migration(self) -> None:
        """Start to migrate to nowhere, and so slowly that it does not end before :meth:`hurry`."""
        self.set_bandwidth(SLOW)
        self.monitor.execute("migrate", {"uri": "exec:cat > /dev/null"})

    def set_bandwidth(self, rate: int) -> None:
        """Bytes a second; 0: as fast as it goes."""
        self.monitor.execute("migrate-set-parameters", {"max-bandwidth": rate})

    def hurry(self) -> None:
        """Let the migration come to its end, and see it there; the guest runs on."""
        self.set_bandwidth(0)
        assert self.wait_for_migration("completed", "failed") == "completed"
        self.go_on()

    def go_on(self) -> None:
        """Let a guest that has been migrated to nowhere run on."""
        deadline = Deadline(PATIENCE, "the end of the migration")
        # "completed" is said a moment before all is done, and nothing is said then.
        while self.status() == "finish-migrate":
            deadline.check()
        self.monitor.execute("cont")

    def status(self) -> str:
        """What QEMU says of the guest: running, paused, ..."""
        answer = self.monitor.execute("query-status")
        assert isinstance(answer, dict)
        return str(answer["status"])

    def wait_for_migration(self, *status: str) -> str:
        """Wait until the migration is one of these; returns which."""
        while True:
            event = self.next_event("MIGRATION")
            if event.data["status"] in status:
                return str(event.data["status"])

    def next_event(self, name: str) -> QmpEvent:
        """The next event of that name."""
        return self.any_event(name)

    def any_event(self, *names: str) -> QmpEvent:
        """The next event of one of these names."""
        while True:
            event = self._events.get(timeout=PATIENCE)
            if event.name in names:
                return event

    def announce(self, name: str) -> None:
        """Put an event of the test's own among QEMU's."""
        self._events.put(QmpEvent("test", name, {}))

    @contextmanager
    def migration(self) -> Iterator[None]:
        """A migration that completes, but not before what is done meanwhile."""
        self.begin_migration()
        yield
        self.hurry()

    def migrate(self) -> MigrationRecord:
        """Migrate to nowhere; what the device recorded of it."""
        with self.migration():
            pass
        return self.record()[-1]

    def record(self) -> list[MigrationRecord]:
        """What the device recorded, migration by migration."""
        return read_record(self._record)


class ModuleGuest(MigratingGuest):
    """A running guest with the agent; see the module."""

    def __init__(self, plain: PlainGuest, control: GuestControl, record: Path) -> None:
        super().__init__(plain, record)
        self.control = control

    @classmethod
    @contextmanager
    def boot(cls, setup: Setup, results: Path) -> Iterator[ModuleGuest]:
        """Boot it, and wait for its own word."""
        image = setup.toolchain.image(setup.kernel, setup.variant)
        record = results / "record"
        with ExitStack() as stack:
            ours, theirs = socket.socketpair()
            stack.callback(ours.close)
            cmdline = f"freepage.driver={setup.driver} {setup.cmdline}"
            software = Software(setup.kernel.vmlinuz, image.initrd, cmdline)
            plain = stack.enter_context(PlainGuest.boot(setup.machine(record, theirs), software, results))
            theirs.close()
            control = stack.enter_context(GuestControl(EventStream(), last_lines=plain.last_lines))
            control.attach("source", ours)
            control.wait_ready(Deadline(PATIENCE, "the guest's ready word"))
            yield cls(plain, control, record)

    def call(self, verb: str, *words: str | int) -> Mapping[str, Any]:
        """Have the agent do something."""
        return self.control.call(verb, *words, deadline=Deadline(PATIENCE, verb))

    def reports(self) -> Sequence[str]:
        """What the kernel has complained about so far, and whether it has lost memory if it can tell."""
        lines = self.call("kmsg", 0)["lines"]
        assert isinstance(lines, list)
        return lines

    def stats(self) -> Mapping[str, Any]:
        """The module's counters."""
        module = self.call("stats")["module"]
        assert isinstance(module, Mapping), "the module is not loaded"
        return module
