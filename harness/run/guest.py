# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest under test: its pieces on each host, and how it is started."""

from __future__ import annotations

import contextlib
import json
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final

from harness import accel
from harness.errors import GuestLost, MachineryError
from harness.events import Deadline, EventStream
from harness.explain import trace
from harness.guest.console import Console
from harness.guest.control import GuestControl
from harness.guest.devices import Balloon, Disk
from harness.guest.dirty_log import DirtyLog
from harness.guest.domain import Boot, DomainSpec, domain_xml
from harness.guest.memory_shape import MemoryShape, SharedMemory, dimm_xml
from harness.guest.ssh import Keys
from harness.hosts.interface import Ends, Host, Pair
from harness.hosts.netns import GUEST_ADDRESS, PREFIX
from harness.hosts.qemu_log import last_words, logged_command
from harness.plan.plan import RunPlan
from harness.report.folder import RunFolder
from harness.run.disk import copy_sparse
from harness.scenario.script import DEVICE_HOLDS, RESTARTS, Kexec, holds_needed, uses
from harness.toolchain import QemuBinary, cpio
from harness.toolchain.preload import HIDDEN

if TYPE_CHECKING:
    import libvirt

NAME: Final = "guest"

#: Each byte for the console is an exit of the guest's, and each exit of an emulated KVM costs a millisecond.
#: (A kernel that panics says so at any level.)  Tests of its ciphers take it as long as all else.
_EMULATED_KVM: Final = "loglevel=4 cryptomgr.notests"

#: After its QEMU has ended: for the last of what it has said to be read.
_DRAIN_SECONDS: Final = 2.0


class Guest:
    """Context manager: console and control channel are open while it is entered."""

    def __init__(self, plan: RunPlan, lab: Pair, folder: RunFolder, events: EventStream) -> None:
        self.plan = plan
        self.keys = Keys.generate()
        self.console = Console(events, folder.file("console.log"))
        self.control = GuestControl(events, last_lines=self.console.tail)
        self._lab = lab
        self._folder = folder
        self._uuid = uuid.uuid4()
        self._ends: dict[str, Ends] = {}
        self._records: dict[str, Path] = {}
        self._traces: dict[str, Path] = {}
        self._generations = {host.name: uuid.uuid4() for host in lab.hosts}
        self._arrivals = 0
        self._initrd = lab.runtime_dir / "initrd"
        self._own_disk = folder.file("disk.raw")

    def __enter__(self) -> Guest:
        self.console.__enter__()
        self.control.__enter__()
        self.arrive(self._lab.source)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.control.__exit__(kind, value, trace)
        self.console.__exit__(kind, value, trace)
        # As large as a guest's disk, and of no use without its memory.
        self._own_disk.unlink(missing_ok=True)

    def arrive(self, host: Host) -> None:
        """A new QEMU is about to start on ``host``: sockets for it.

        Console and control are ours, which it connects to, once; so they listen
        before there is any QEMU, and each has new ones.
        """
        self._arrivals += 1
        # One process, one record: its counters begin anew with each.
        again = host.name in self._records
        name = f"{host.name}-{self._arrivals}" if again else host.name
        self._records[host.name] = self._folder.file(f"{name}.record")
        self._traces[host.name] = self._folder.file(f"{name}.trace")
        ends = self._ends[host.name] = host.arrive(f"qemu-{self._arrivals}")
        self.console.listen(host.name, ends.ours.console)
        self.control.listen(host.name, ends.ours.control)

    @property
    def source(self) -> Host:
        """The host that it starts on."""
        return self._lab.source

    @property
    def held(self) -> bool:
        """Whether the device holds the migration for the oracle."""
        scenario = self.plan.resolved.scenario
        return scenario.arm == "info" and scenario.strict

    def monitor_socket(self, host: Host) -> Path:
        """Where the QEMU on ``host`` listens for us."""
        return self._ends[host.name].ours.monitor

    def gate_socket(self, host: Host) -> Path:
        """Where a migration from ``host`` goes through on its way to the daemon."""
        return self.monitor_socket(host).with_name("confirm.sock")

    def record_file(self, host: Host) -> Path:
        """The record that the device on ``host`` keeps, in its present QEMU."""
        return self._records[host.name]

    def trace_file(self, host: Host) -> Path | None:
        """What the present QEMU on ``host`` traces; None where the scenario asks for none."""
        return self._traces[host.name] if self.plan.resolved.scenario.trace else None

    def cmdline(self) -> str:
        """The kernel's command line.

        A kernel that panics restarts at once, which ends its QEMU: a guest that
        failed must not sit there until a deadline.  Whether the timer works is not
        tested: on a busy host, emulated, its ticks come too late for that test.
        """
        words = [
            "console=ttyS0 panic=-1 no_timer_check",
            f"freepage.driver={self.plan.driver}",
            f"freepage.ip={GUEST_ADDRESS}/{PREFIX}" if self._lab.source.nic is not None else "",
            # Of a guest that names its interfaces itself; the small one does not care.
            "net.ifnames=0" if self._private_disk else "",
            _EMULATED_KVM if accel.chain() == "kvm-in-tcg" else "",
            # The DIMM that is there from the beginning is used without anybody's doing.
            "memhp_default_state=online_movable" if self._shape.shared is not None else "",
            self.plan.resolved.scenario.guest.cmdline,
            self.plan.injection.cmdline,
        ]
        return " ".join(filter(None, words))

    def spec(self, host: Host) -> DomainSpec:
        """The domain for ``host``."""
        plan, scenario = self.plan, self.plan.resolved.scenario
        qemu = plan.source_qemu if host is self._lab.source else plan.destination_qemu
        # In the order in which the device comes to them.
        wanted = {*holds_needed(scenario.script)}
        if self.held:
            wanted |= {"request", "answer"} if scenario.walk else {"request"}
        holds = tuple(point for point in DEVICE_HOLDS if point in wanted) if scenario.arm == "info" else ()
        return DomainSpec(
            name=self._lab.guest_name,
            uuid=self._uuid,
            qemu=host.path_of(qemu.path),
            firmware=tuple(host.path_of(folder) for folder in qemu.firmware),
            boot=Boot(host.path_of(plan.kernel.vmlinuz), host.path_of(self._initrd), self.cmdline()),
            memory=scenario.guest.memory,
            vcpus=scenario.guest.vcpus,
            machine=scenario.guest.machine,
            disk=self._disk(host),
            accelerator=plan.resolved.accelerator,
            balloon=Balloon(
                arm=scenario.arm,
                hold=holds,
                record=self._record(host, qemu),
            ),
            sockets=self._ends[host.name].qemu,
            nic=host.nic,
            vhost=scenario.guest.vhost,
            extra=(*self.plan.injection.qemu_arguments, *self._tracing(host), *self._generation(host)),
            ram=host.site.ram,
            unconfined=host.site.unconfined,
            restarts=uses(scenario.script, RESTARTS),
            shape=self._shape,
            log=DirtyLog(scenario.guest.kvm_dirty, scenario.migration.clear_bitmap_shift, self.plan.preload),
        )

    @property
    def _shape(self) -> MemoryShape:
        guest = self.plan.resolved.scenario.guest
        shared = None
        if guest.shared is not None and self._lab.memory_dir is not None:
            shared = SharedMemory(self._lab.memory_dir / "shared", guest.shared)
        return MemoryShape(guest.nodes, guest.dimm, guest.below_4g, guest.hugepages, shared)

    def plug(self, domain: libvirt.virDomain, deadline: Deadline) -> None:
        """Plug the scenario's DIMM in, and wait until the guest has taken it into use."""
        dimm = self._shape.dimm
        if dimm is None:
            return
        import libvirt

        before = self.control.call("stats", deadline=deadline)["mem_total"]
        try:
            domain.attachDeviceFlags(dimm_xml(self._shape), libvirt.VIR_DOMAIN_AFFECT_LIVE)
        except libvirt.libvirtError as error:
            raise MachineryError(f"the DIMM cannot be plugged in: {error.get_error_message()}") from error
        wanted = int(str(before)) + dimm // (128 << 20) * (128 << 20)
        # The guest's ACPI and hotplug code takes its time, and says nothing when it is done.
        while int(str(self.control.call("stats", deadline=deadline)["mem_total"])) < wanted:
            with contextlib.suppress(MachineryError):
                # No block yet, or none that is offline: it may be one that comes online by itself.
                self.control.call("memory-online", deadline=deadline)
            deadline.check()

    def _generation(self, host: Host) -> tuple[str, ...]:
        wanted = self.plan.resolved.scenario.guest.generation_id
        if wanted == "none":
            return ()
        said = self._generations[host.name if wanted == "changed" else self._lab.source.name]
        return ("-device", f"vmgenid,guid={said}")

    def _tracing(self, host: Host) -> tuple[str, ...]:
        path = self.trace_file(host)
        return () if path is None else trace.arguments(host.record_path(path))

    def _record(self, host: Host, qemu: QemuBinary) -> Path | None:
        """A QEMU of anybody's may keep none; arm off is upstream's migration and nothing else."""
        recorded = qemu.has_free_page_info and qemu.has_record and self.plan.resolved.scenario.arm != "off"
        return host.record_path(self.record_file(host)) if recorded else None

    def start(self) -> libvirt.virDomain:
        """Start it on the source; returns when its QEMU runs."""
        import libvirt

        self._write_initrd()
        files = {"initrd": self._initrd, "vmlinuz": self.plan.kernel.vmlinuz}
        if self.plan.disk is not None and not self.plan.disk.private:
            files["disk"] = self.plan.disk.path
        self._lab.bring(files)
        source = self._lab.source
        xml = domain_xml(self.spec(source))
        self._folder.write_text("source.xml", xml)
        connection = source.connect()
        try:
            domain = connection.createXML(xml, 0)
            self._deflate(domain)
        except libvirt.libvirtError as error:
            raise lost(source, f"the source cannot start the guest: {error.get_error_message()}") from error
        return domain

    def _deflate(self, domain: libvirt.virDomain) -> None:
        """Take back the balloon that libvirt asks for: of the DIMM that both hosts map it knows nothing."""
        if self._shape.shared is None:
            return
        import libvirt_qemu

        size = self.plan.resolved.scenario.guest.memory + self._shape.shared.size
        command = json.dumps({"execute": "balloon", "arguments": {"value": size}})
        libvirt_qemu.qemuMonitorCommand(domain, command, 0)

    @property
    def _private_disk(self) -> bool:
        return self.plan.disk is not None and self.plan.disk.private

    def _disk(self, host: Host) -> Disk | None:
        disk = self.plan.disk
        if disk is None:
            return None
        if not disk.private:
            return Disk(host.path_of(disk.path))
        # Both hosts are this machine, and see the run folder.
        if not self._own_disk.exists():
            copy_sparse(disk.path, self._own_disk)
        return Disk(self._own_disk, readonly=False)

    def _write_initrd(self) -> None:
        """The image with the run's own keys behind it: the kernel unpacks one archive after the other."""
        with self._initrd.open("xb") as file:
            for archive in (self.plan.image.initrd, self.plan.archive):
                if archive is not None:
                    with archive.open("rb") as part:
                        shutil.copyfileobj(part, file)
            files = self.keys.openssh_files() if self._private_disk else self.keys.guest_files()
            entries = [cpio.file(f"/{name}", files[name], 0o600) for name in files]
            if uses(self.plan.resolved.scenario.script, (Kexec,)):
                # The kernel has unpacked, and thrown away, what it was started from.
                entries.append(cpio.file("/kexec/vmlinuz", self.plan.kernel.vmlinuz.read_bytes(), 0o600))
                entries.append(cpio.file("/kexec/initrd", self.plan.image.initrd.read_bytes(), 0o600))
            cpio.write_cpio(file, cpio.with_parents(entries))

    def load(self, deadline: Deadline) -> Mapping[str, object]:
        """Have it load the scenario's workload."""
        return self.control.call("load", *self.plan.resolved.load_words(), deadline=deadline)

    def wait_until_ready(self, deadline: Deadline) -> Mapping[str, object]:
        """Wait for the guest's own word; what it says of itself."""
        return self.control.wait_ready(deadline)

    def demand_dirty_log(self) -> None:
        """Raise unless QEMU logs writes as the scenario says: what was hidden from it, it has asked for."""
        if self.plan.preload is not None:
            said = last_words(self._lab.source.qemu_log(self._lab.guest_name), lines=1000)
            if not any(HIDDEN in line for line in said):
                raise MachineryError(
                    "QEMU has not asked KVM for manual protection: nothing was hidden from it"
                )

    def explained(self, error: GuestLost) -> GuestLost:
        """The same error with all that is left of the guest: its last lines, QEMU's, the command line."""
        self.console.drain(Deadline(_DRAIN_SECONDS, "the console's end"))
        lines = [f"console: {line}" for line in self.console.tail(20)]
        command: tuple[str, ...] = ()
        for host in self._lab.hosts:
            log = host.qemu_log(self._lab.guest_name)
            lines += [f"{host.name} QEMU: {line}" for line in last_words(log)]
            command = command or logged_command(log)
        panic = self.console.panic
        return GuestLost(
            f"the guest's kernel panicked: {panic}" if panic else error.message,
            last_lines=lines,
            command=error.command or command,
            hint=error.hint or f"the whole console is in {self._folder.file('console.log')}",
        )


def lost(host: Host, message: str) -> GuestLost:
    """The error for a QEMU of ``host`` that is gone; raises the daemon's, if that is gone too."""
    host.check()
    return GuestLost(message, command=logged_command(host.qemu_log(NAME)))
