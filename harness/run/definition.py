# SPDX-License-Identifier: GPL-2.0-or-later
"""The definition of the guest: its domain for each host, from the plan and the host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final
from uuid import UUID, uuid4

from harness.errors import MachineryError
from harness.explain import trace
from harness.guest.devices import BalloonDevice, Disk, Interface, ScenarioDevice, SharedMemory
from harness.guest.devices.base import option
from harness.guest.devices.dimm import VirtioMemory
from harness.guest.dirty_log import DirtyLog
from harness.guest.domain import Boot, DomainSpec, FirmwareImage
from harness.guest.memory_shape import MAPPABLE, FileWithOffset, HostBacking, MemoryShape
from harness.hosts.interface import Host, Nic, Pair
from harness.hosts.netns import PREFIX
from harness.migration.hand_over import AUXILIARY_SHARED
from harness.plan.plan import RunPlan
from harness.report.folder import LINE_COUNTERS
from harness.run.attach import HMP_SOCKET, QMP_SOCKET
from harness.run.channels import QemuFiles
from harness.run.cmdline import kernel_cmdline
from harness.scenario.devices import DeviceContext
from harness.scenario.devices.base import NicLink
from harness.scenario.devices.nic import ListedNic
from harness.scenario.devices.pmem import Pmem
from harness.scenario.guest import Guest
from harness.scenario.raw import words_for
from harness.scenario.script import DEVICE_HOLDS, holds_needed, restarts
from harness.toolchain import QemuBinary
from harness.toolchain.counted import COUNTERS_VARIABLE

#: Below a lab's folder: the small file systems of disks, one for each host.
ROOMS: Final = "rooms"
#: MALLOC_PERTURB_: what is freed gets this byte, what is allocated its complement: neither is an address.
FILLED_WITH: Final = "165"
#: What libvirt calls the kinds of backends.
_BACKED: Final = {"file": "file", "memfd": "memfd", "ram": "anonymous"}


def link_name(guest: Guest, number: int) -> str:
    """What QEMU calls a NIC of the guest's: of several, by libvirt's rules for names that are not its own."""
    return f"ua-net{number}" if 1 < len(guest.all_nics) > number else f"net{number}"


@dataclass(frozen=True, slots=True)
class Definition:
    """What the guest is, the same for both hosts."""

    plan: RunPlan
    pair: Pair
    initrd: Path
    #: The run's copy of a disk that the guest writes to.
    own_disk: Path
    #: Begins the names of its files in the lab, where it is not the only guest there.
    label: str = ""
    uuid: UUID = field(default_factory=uuid4)
    #: The scenario's devices that are not plugged in at present, by number.
    absent: set[int] = field(default_factory=set)
    #: The NICs, from 0, whose links a script has taken down.
    links_down: set[int] = field(default_factory=set)

    @property
    def seed(self) -> Path:
        """The disk from which a guest of the user's own image gets its agent; it takes the initrd's place."""
        return self.initrd.with_name(f"{self.initrd.name}.iso")

    @property
    def held(self) -> bool:
        """Whether the device holds the migration for the oracle."""
        scenario = self.plan.resolved.scenario
        return scenario.arm == "info" and scenario.strict

    @property
    def shape(self) -> MemoryShape:
        """How its memory is cut up."""
        guest = self.plan.resolved.scenario.guest
        shared = None
        if guest.shared is not None and self.pair.memory_dir is not None:
            shared = SharedMemory(self.pair.memory_dir / f"{self.label}shared", guest.shared)
        backend, memory = guest.memory_backend, guest.virtio_mem
        # What is at an offset is told to QEMU alone; libvirt's own is not used then.
        told = backend is not None and backend.offset is None
        return MemoryShape(
            guest.nodes,
            guest.dimm,
            guest.below_4g,
            guest.hugepages,
            shared,
            HostBacking(_BACKED[backend.type], backend.shared, backend.prealloc, backend.page)
            if told and backend is not None
            else MAPPABLE,
            nvdimms=tuple(one.size for one in guest.devices if isinstance(one, Pmem)),
            device=VirtioMemory(memory.size, memory.block, memory.plugged) if memory is not None else None,
        )

    def _shape_of(self, host: Host, files: QemuFiles) -> MemoryShape:
        """The shape for one QEMU: a file in which RAM begins somewhere is this QEMU's alone."""
        guest, folder = self.plan.resolved.scenario.guest, self.pair.memory_dir
        backend = guest.memory_backend
        if backend is None or backend.offset is None or folder is None:
            return self.shape
        file = folder / host.name / f"{files.monitor.parent.name}.ram"
        ram = FileWithOffset(file, guest.memory, backend.offset, backend.shared, backend.prealloc)
        return replace(self.shape, at_offset=ram)

    def spec(self, host: Host, files: QemuFiles) -> DomainSpec:
        """The domain for ``host``, whose QEMU has ``files``."""
        plan, scenario = self.plan, self.plan.resolved.scenario
        qemu = plan.source_qemu if host is self.pair.source else plan.destination_qemu
        return DomainSpec(
            name=self.pair.guest_name,
            uuid=self.uuid,
            qemu=host.path_of(qemu.path) if qemu.emulator is None else qemu.emulator,
            firmware=tuple(host.path_of(folder) for folder in qemu.firmware),
            boot=self._boot(host),
            memory=scenario.guest.memory,
            vcpus=scenario.guest.vcpus,
            topology=self._topology(),
            firmware_image=self._firmware(host),
            machine=scenario.guest.machine if plan.board is None else plan.board.machine,
            cpu=scenario.guest.cpu,
            cpu_without=() if plan.board is None else plan.board.cpu_without,
            vmcoreinfo=plan.board is None or plan.board.vmcoreinfo,
            disk=self._disk(host),
            seed=Disk(host.path_of(self.seed), target="vdb") if plan.seeded else None,
            accelerator=plan.resolved.accelerator,
            balloon=BalloonDevice(
                arm=scenario.arm, hold=self._holds(), record=self._record(host, qemu, files)
            ),
            sockets=files.sockets.qemu,
            nics=self._nics(host, files),
            extra=(
                *plan.injection.qemu_arguments,
                *self._tracing(host, files),
                *self._handing_over(),
                *self._for_hand(files),
            ),
            added=self.added(host, files),
            environment={**self._filling(), **self._counting(qemu, files)},
            edits=scenario.guest.xml,
            words=self._words(host),
            ram=host.site.ram,
            unconfined=host.site.unconfined,
            restarts=restarts(scenario.script),
            shape=self._shape_of(host, files),
            log=DirtyLog(scenario.guest.kvm_dirty, scenario.migration.clear_bitmap_shift, plan.preload),
        )

    def _filling(self) -> Mapping[str, str]:
        """Have the C library overwrite what QEMU frees."""
        scenario = self.plan.resolved.scenario
        # It costs a little time at each allocation, which is not what is measured.
        filled = scenario.guest.freed_is_filled and scenario.measure is None
        return {"MALLOC_PERTURB_": FILLED_WITH} if filled else {}

    def interface_of(self, host: Host, number: int, served_at: str | None = None) -> Interface:
        """One of the guest's NICs, counted from 0, as it is on ``host``."""
        guest = self.plan.resolved.scenario.guest
        if number >= len(host.nics):
            raise MachineryError(f"the {host.name} has no NIC {number} for the guest")
        nic = guest.all_nics[number]
        alias = link_name(guest, number) if len(guest.all_nics) > 1 else None
        return Interface(host.nics[number], guest.vhost, nic.model, nic.queues, served_at, alias)

    def _nics(self, host: Host, files: QemuFiles) -> tuple[Interface, ...]:
        """Those that are plugged in."""
        if host.nic is None:
            return ()
        socket = self._nic_socket(host, files)
        # Only the first can be another process's.
        return tuple(
            self.interface_of(host, number, None if number else socket) for number in self.present_nics
        )

    def _handing_over(self) -> tuple[str, ...]:
        """What a QEMU needs whose memory is handed over to another one, or that is that other one."""
        migrations = self.plan.resolved.scenario.migrations
        return AUXILIARY_SHARED if any(how.hands_over for how in migrations) else ()

    def _boot(self, host: Host) -> Boot | None:
        plan = self.plan
        if plan.own_image:
            return None
        cmdline = kernel_cmdline(plan, nic=self.pair.source.nic if 0 in self.present_nics else None)
        return Boot(host.path_of(plan.kernel.vmlinuz), host.path_of(self.initrd), cmdline)

    def _holds(self) -> tuple[str, ...]:
        """The points at which the device stops the guest, in the order in which it comes to them."""
        scenario = self.plan.resolved.scenario
        if scenario.arm != "info":
            return ()
        wanted = {*holds_needed(scenario.script), *self.plan.hand.device_holds}
        if self.held:
            wanted |= {"request", "answer"} if scenario.walk else {"request"}
        return tuple(point for point in DEVICE_HOLDS if point in wanted)

    def _record(self, host: Host, qemu: QemuBinary, files: QemuFiles) -> Path | None:
        """A QEMU of anybody's may keep none."""
        return host.record_path(files.record) if qemu.records(self.plan.resolved.scenario.arm) else None

    def _counting(self, qemu: QemuBinary, files: QemuFiles) -> Mapping[str, str]:
        """Where a QEMU that counts its lines leaves the counters: both sides add to the same files."""
        if not (qemu.counts_lines and self.plan.machines.local):
            return {}
        return {COUNTERS_VARIABLE: str(files.record.with_name(LINE_COUNTERS))}

    def _firmware(self, host: Host) -> FirmwareImage | None:
        firmware = self.plan.firmware
        if firmware is None:
            return None
        variables = None if firmware.variables is None else host.path_of(firmware.variables)
        return FirmwareImage(host.path_of(firmware.code), variables, firmware.smm)

    def _topology(self) -> tuple[int, int, int, int] | None:
        topology = self.plan.resolved.scenario.guest.topology
        if topology is None:
            return None
        return topology.sockets, topology.dies, topology.cores, topology.threads

    def _words(self, host: Host) -> tuple[str, ...]:
        guest = self.plan.resolved.scenario.guest
        properties = tuple(word for one in guest.globals for word in ("-global", one))
        return (*properties, *words_for(guest.qemu_args, host.name))

    def _tracing(self, host: Host, files: QemuFiles) -> tuple[str, ...]:
        if not self.plan.resolved.scenario.trace:
            return ()
        return trace.arguments(host.record_path(files.trace))

    def _for_hand(self, files: QemuFiles) -> tuple[str, ...]:
        """Monitors for a person, where the run may stand still for one."""
        if not self.plan.hand.wanted:
            return ()
        words: list[str] = []
        for name, mode in ((HMP_SOCKET, "readline"), (QMP_SOCKET, "control")):
            path = option(files.sockets.qemu.monitor.with_name(name))
            words += ["-chardev", f"socket,id=by-hand-{mode},path={path},server=on,wait=off"]
            words += ["-mon", f"chardev=by-hand-{mode},mode={mode}"]
        return tuple(words)

    def _nic_socket(self, host: Host, files: QemuFiles) -> str | None:
        """Where another process than QEMU serves the first NIC."""
        for added in self.every(host, files):
            if isinstance(added.device, ListedNic):
                return added.device.bridge_socket(added.context)
        return None

    @property
    def _listed_nics(self) -> tuple[int, ...]:
        """The NICs among the scenario's devices, by their numbers there."""
        devices = self.plan.resolved.scenario.guest.all_devices
        return tuple(number for number, one in enumerate(devices) if isinstance(one, ListedNic))

    @property
    def present_nics(self) -> tuple[int, ...]:
        """The guest's NICs that are plugged in at present, counted from 0."""
        if not self._listed_nics:
            return (0,)
        return tuple(place for place, number in enumerate(self._listed_nics) if number not in self.absent)

    @property
    def nics_at_boot(self) -> tuple[Nic, ...]:
        """Those that a guest of the user's own image is told of by its seed."""
        nics = self.pair.source.nics
        return tuple(nics[number] for number in self.present_nics) if nics else ()

    def added(self, host: Host, files: QemuFiles) -> tuple[ScenarioDevice, ...]:
        """Those of the scenario's devices that are plugged in, a NIC with what its network is."""
        there = (one for one in self.every(host, files) if one.number not in self.absent)
        return tuple(
            replace(one, context=replace(one.context, link=self._link(host, one.number))) for one in there
        )

    def _link(self, host: Host, device: int) -> NicLink | None:
        """The network of a device that is a NIC, and of any other the first NIC's."""
        number = self._listed_nics.index(device) if device in self._listed_nics else 0
        if host.nic is None or number not in self.present_nics:
            return None
        nic, up = host.nics[number], number not in self.links_down
        return NicLink(number, nic.mac, nic.address, PREFIX, nic.lab, up)

    def every(self, host: Host, files: QemuFiles) -> tuple[ScenarioDevice, ...]:
        """The scenario's devices, with what each may know of its QEMU on ``host``."""
        resolved = self.plan.resolved
        context = DeviceContext(
            host.name,
            self.pair.source.name,
            self.uuid,
            resolved.scenario.guest.machine,
            resolved.accelerator,
            files.sockets.qemu.monitor.parent,
            self.pair.runtime_dir / "devices" / str(self.uuid),
            kept=self.own_disk.parent,
            programs=self.plan.programs,
            rooms=self.pair.runtime_dir / ROOMS,
            memory=(self.pair.memory_dir or Path()) / host.name,
        )
        work = resolved.scenario.guest.work_disk if resolved.scenario.workload.writes_disk else None
        return tuple(
            ScenarioDevice(device, replace(context, number=number, at_work=number == work), number)
            for number, device in enumerate(resolved.scenario.guest.all_devices)
        )

    def _disk(self, host: Host) -> Disk | None:
        disk = self.plan.disk
        if disk is None:
            return None
        if disk.path is None:
            # What is discarded becomes a hole, so that a discard does something.
            return Disk(self.own_disk, readonly=False, discard=True)
        # Both hosts are this machine where it is private, and see the run folder.
        return (
            Disk(self.own_disk, disk.kind, readonly=False) if disk.private else Disk(host.path_of(disk.path))
        )
