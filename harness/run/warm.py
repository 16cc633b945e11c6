# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that is booted once, kept in a file, and goes on from there in each further run.

    key = key_of_guest(definition, files)
    keep_guest(folder, ...)          # boots it, and writes down memory and devices
    restore_guest(kept, ...)         # a new QEMU, with both

QEMU writes and reads the state of its devices itself (``migrate`` to a socket of ours, with x-ignore-shared).
The memory is the lab's file, which we copy, piece by piece and hole by hole, before the new QEMU reads the
rest: so what was memory is memory, and what nobody had touched is none, as after a boot.

What was kept is from another time: the guest is told what time it is, and draws new random numbers
(the agent's verb ``wake``).  The run's seed comes with its workload, as ever.
"""

from __future__ import annotations

import contextlib
import json
import queue
import secrets
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import UUID

from harness.errors import MachineryError
from harness.evidence.device_state import device_stream
from harness.guest.domain import domain_xml
from harness.hosts.lab import LabHost
from harness.hosts.libvirtd import libvirt_version
from harness.memory.packed import keep_memory, restore_memory
from harness.memory.qemu_ram import Backing, backings
from harness.migration.blocks import query_ramblocks
from harness.migration.qmp import CLOSED, Monitor, MonitorLoop, QmpEvent
from harness.migration.settle import capabilities_in, parameters_in
from harness.migration.transcript import Transcript
from harness.scenario.script import actions
from harness.toolchain.cache import file_digest, key_of

if TYPE_CHECKING:
    import libvirt

    from harness.events import Deadline, EventStream
    from harness.guest.control import GuestControl
    from harness.hosts.interface import Host
    from harness.plan.plan import RunPlan
    from harness.report.folder import RunFolder
    from harness.run.channels import QemuFiles
    from harness.run.definition import Definition

#: Grows when what is kept, or how, is another.
_FORMAT: Final = 1
_ABOUT: Final = "guest.json"
_DEVICES: Final = "devices"
_CONSOLE: Final = "console.log"
#: For our monitor of a QEMU that is not yet, or not any more, a side of a migration.
SIDE: Final = "warm"
_SHARED: Final = "x-ignore-shared"
_ROUNDS: Final = "announce-rounds"
#: What the agent takes (vm-images/guest/wake.c).
_RANDOM_BYTES: Final = 32
_NO_GUEST: Final = UUID(int=0)
_NOWHERE: Final = Path("/")


@dataclass(frozen=True, slots=True)
class KeptGuest:
    """A guest in a folder: which it is, and its RAMBlocks by name, each a packed file."""

    folder: Path
    uuid: UUID
    blocks: dict[str, str]

    @classmethod
    def load(cls, folder: Path) -> KeptGuest:
        """Read what a folder says of itself."""
        about = json.loads((folder / _ABOUT).read_text("utf-8"))
        return cls(folder, UUID(about["uuid"]), dict(about["blocks"]))

    @property
    def devices(self) -> Path:
        """The stream that QEMU has written of its devices."""
        return self.folder / _DEVICES

    @property
    def console(self) -> Path:
        """What it said while it booted."""
        return self.folder / _CONSOLE


def key_of_guest(definition: Definition, source: Host, files: QemuFiles) -> str:
    """The hash of all that makes the guest what it is when it has booted.

    What differs from run to run and makes no other guest is left out: its UUID, where it is recorded,
    where the device holds a migration, and a fault that sleeps until there is one.
    """
    plan = definition.plan
    plain = replace(files, record=_NOWHERE, trace=_NOWHERE)
    spec = replace(definition, uuid=_NO_GUEST).spec(source, plain)
    balloon = replace(spec.balloon, hold=(), record=None)
    return key_of(
        format=_FORMAT,
        domain=domain_xml(replace(spec, balloon=balloon, extra=())),
        qemu=plan.source_qemu.identity,
        firmware=_firmware(plan.source_qemu.firmware),
        kernel=file_digest(plan.kernel.vmlinuz),
        image=plan.image.sha256,
        more=[_digest(plan.archive), _digest(plan.device_modules)],
        kexec=any(action.needs_kernel for action in actions(plan.resolved.scenario.script)),
        libvirt=libvirt_version(),
    )


def _firmware(folders: tuple[Path, ...]) -> dict[str, str]:
    found = {}
    for folder in folders:
        for pattern in ("bios*.bin", "linuxboot*.bin"):
            found.update({str(path): file_digest(path) for path in sorted(folder.glob(pattern))})
    return found


def _digest(path: Path | None) -> str | None:
    return None if path is None else file_digest(path)


def space_for(plan: RunPlan) -> int:
    """Bytes on disk that keeping it may take."""
    return plan.resolved.scenario.guest.memory + (16 << 20)


@contextlib.contextmanager
def _monitored(
    place: Path, folder: RunFolder, name: str, events: EventStream, deadline: Deadline
) -> Iterator[Monitor]:
    with MonitorLoop() as loop, Transcript(folder.file(f"{name}.jsonl")) as transcript:
        monitor = Monitor.connect(loop, SIDE, place, events, transcript, deadline)
        try:
            yield monitor
        finally:
            monitor.close()


def write_guest(
    domain: libvirt.virDomain, uuid: UUID, host: Host, files: QemuFiles, kept: Path, folder: RunFolder,
    events: EventStream, deadline: Deadline,
) -> None:  # fmt: skip
    """Write a guest down that has said that it is ready.  It stands still from here on.

    ``folder`` has its console, and gets what was said to its QEMU.
    """
    domain.suspend()
    with _monitored(files.monitor, folder, "keep", events, deadline) as monitor:
        place = files.monitor.with_name("state.sock")
        (kept / _DEVICES).write_bytes(device_stream(monitor, place, place))
        blocks = {}
        for number, backing in enumerate(_backings(monitor, host)):
            blocks[backing.block.name] = f"memory-{number}"
            memory = kept / blocks[backing.block.name]
            keep_memory(backing.path, memory)
            memory.chmod(0o644)  # a cache may serve all users of a machine
    shutil.copyfile(folder.file(_CONSOLE), kept / _CONSOLE)
    about = {"uuid": str(uuid), "blocks": blocks}
    (kept / _ABOUT).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def restore_guest(
    kept: KeptGuest, host: Host, files: QemuFiles, folder: RunFolder, events: EventStream, deadline: Deadline
) -> None:
    """Give a QEMU that waits for a migration the guest; it stands still.  Its settings are as before."""
    with _monitored(files.monitor, folder, "restore", events, deadline) as monitor:
        found = {backing.block.name: backing for backing in _backings(monitor, host)}
        if found.keys() != kept.blocks.keys():
            raise MachineryError(
                f"it has the memory {sorted(found)}, and what was kept is {sorted(kept.blocks)}"
            )
        for name, backing in found.items():
            restore_memory(kept.folder / kept.blocks[name], backing.path)
        capabilities, parameters = capabilities_in(monitor), parameters_in(monitor)
        # It has not moved: nobody on its network has to be told where it is now.
        _set(monitor, {_SHARED: True}, {_ROUNDS: 0})
        _load(monitor, kept.devices, files.monitor.with_name("restore.sock"), deadline)
        _set(monitor, {_SHARED: capabilities[_SHARED]}, {_ROUNDS: parameters[_ROUNDS]})


def _set(monitor: Monitor, capabilities: Mapping[str, bool], parameters: Mapping[str, object]) -> None:
    states = [{"capability": name, "state": on} for name, on in capabilities.items()]
    monitor.execute("migrate-set-capabilities", {"capabilities": states})
    monitor.execute("migrate-set-parameters", parameters)


def _backings(monitor: Monitor, host: Host) -> tuple[Backing, ...]:
    """The RAMBlocks that are files; the others are in the stream."""
    assert isinstance(host, LabHost)
    return backings(monitor.pid, query_ramblocks(monitor), host.memory_dir)


def _load(monitor: Monitor, stream: Path, place: Path, deadline: Deadline) -> None:
    ended: queue.SimpleQueue[QmpEvent] = queue.SimpleQueue()
    monitor.listen(ended.put)
    monitor.execute("migrate-incoming", {"uri": f"unix:{place}"})
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(deadline.timeout())
        connection.connect(str(place))
        connection.sendall(stream.read_bytes())
        connection.shutdown(socket.SHUT_WR)
        while True:
            try:
                event = ended.get(timeout=deadline.timeout())
            except queue.Empty:
                deadline.check()
                continue
            status = event.data.get("status") if event.name == "MIGRATION" else None
            if status == "completed":
                return
            if status == "failed" or event.name == CLOSED:
                raise MachineryError("QEMU does not take the state of the devices that was kept")


def wake_guest(control: GuestControl, deadline: Deadline) -> Mapping[str, object]:
    """Tell a guest that goes on what time it is, and give it other random numbers; what it says of itself."""
    control.call("wake", time.time_ns(), secrets.token_hex(_RANDOM_BYTES), deadline=deadline)
    return control.greet(deadline)
