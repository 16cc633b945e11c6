# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest under test: what it is, its channels, and its way from one host to the other."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from harness.errors import GuestLost, MachineryError
from harness.events import Deadline, EventStream
from harness.evidence.copied_disks import CopiedImages
from harness.guest.control import GuestControl
from harness.guest.devices import ScenarioDevice
from harness.guest.domain import DomainSpec
from harness.guest.ssh import Keys
from harness.guestview.msrs import VcpuMsrs
from harness.hosts.interface import Host, Pair
from harness.hosts.qemu_log import last_words
from harness.memory.registered import SourceFinding
from harness.migration.qmp import Monitor
from harness.migration.settle import Baselines
from harness.plan.plan import RunPlan
from harness.report.folder import RunFolder
from harness.run.arrival import DeviceLook, board_devices, look_at_devices, with_ends
from harness.run.channels import Channels
from harness.run.definition import ROOMS, Definition, link_name
from harness.run.helpers import DeviceHelpers
from harness.run.last_words import explained
from harness.run.let_in import WayIn
from harness.run.seed import demand_driver, silence_explained
from harness.run.start import plug_dimm, start_guest
from harness.run.warm import KeptGuest, key_of_guest, restore_guest, wake_guest, write_guest
from harness.scenario.devices import DeviceContext
from harness.scenario.devices.disk import ListedDisk
from harness.toolchain.preload import HIDDEN

if TYPE_CHECKING:
    import libvirt


@dataclass(frozen=True, slots=True)
class CopiedTargets:
    """What libvirt is to copy: its names of the disks; of images that lie on others only the upper one."""

    targets: tuple[str, ...]
    only_top: bool


class Guest:
    """Context manager: console and control channel are open while it is entered.

    ``label``: of a guest that is not the first of its hosts, begins the names of its files there.
    """

    def __init__(
        self, plan: RunPlan, pair: Pair, folder: RunFolder, events: EventStream, *, label: str = ""
    ) -> None:
        self.keys = Keys.generate()
        self._definition = Definition(
            plan, pair, pair.runtime_dir / f"{label}initrd", folder.file("disk.raw"), label
        )
        devices = plan.resolved.scenario.guest.all_devices
        self._definition.absent.update(n for n, device in enumerate(devices) if device.comes_later)
        self._channels = Channels(folder, events, label)
        self._pair = pair
        self._events = events
        self._folder = folder
        self._helpers = DeviceHelpers(plan.programs, folder, events)
        #: What each device remembers, by its number.
        self._notes: dict[int, dict[str, str]] = {}
        self._disk_is_evidence = False
        self._release: str | None = None
        self._way_in: WayIn | None = None
        #: What each of its QEMUs had for parameters before its first migration.
        self.baselines = Baselines()
        #: Whether it has gone on from a file, and was not booted.
        self.warm = False
        #: Where it runs.
        self._host = pair.source
        #: Whether it has run elsewhere than where it booted.
        self.has_moved = False
        #: Where it has its hypervisor write, as it said last.
        self.registers: SourceFinding | None = None
        #: What its processors had in their registers then.
        self.msrs: Sequence[VcpuMsrs] | None = None

    def __enter__(self) -> Guest:
        self._channels.__enter__()
        self._helpers.__enter__()
        self.arrive(self._pair.source)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._way_in is not None:
            self._way_in.close()
        self._helpers.__exit__(kind, value, trace)
        self._channels.__exit__(kind, value, trace)
        # As large as a guest's disk, and of no use without its memory; unless it was judged, and is wrong.
        if not self._disk_is_evidence:
            self._definition.own_disk.unlink(missing_ok=True)
            for added in self._definition.every(self._pair.source, self._channels.of(self._pair.source)):
                added.device.leave(added.context)

    @property
    def name(self) -> str:
        """What libvirt calls it."""
        return self._pair.guest_name

    @property
    def label(self) -> str:
        """What the names of its files in the lab begin with."""
        return self._definition.label

    @property
    def address(self) -> str:
        """Its own on the lab's network; empty where it has none."""
        nic = self._pair.source.nic
        return "" if nic is None else nic.address

    @property
    def plan(self) -> RunPlan:
        """The run that it is the guest of."""
        return self._definition.plan

    @property
    def control(self) -> GuestControl:
        """The channel to its agent."""
        return self._channels.control

    def disk(self) -> Path | None:
        """The run's own disk, which the guest writes to, as a raw image; nobody may write to it meanwhile."""
        for added in self._devices_on(self._host):
            if added.context.at_work and isinstance(added.device, ListedDisk):
                return added.device.raw_image(added.context)
        disk = self.plan.disk
        return self._definition.own_disk if disk is not None and disk.private else None

    def keep_disk(self) -> None:
        """Leave the disk that a workload wrote to in the run folder; a distribution's always goes."""
        disk = self.plan.disk
        self._disk_is_evidence = disk is None or disk.path is None

    @property
    def held(self) -> bool:
        """Whether the device holds the migration for the oracle."""
        return self._definition.held

    def arrive(self, host: Host) -> None:
        """A new QEMU is about to start on ``host``: sockets and files for it, and what serves its devices."""
        self._channels.arrive(host)
        if host.nic is not None:
            host.forget_announcements()
        self._helpers.arrive(host, self._definition.every(host, self._channels.of(host)))

    def plug_xml(self, device: str, which: int, host: Host) -> tuple[int, str]:
        """One of the scenario's disks or NICs, as libvirt plugs it in and out: its number, and its XML."""
        guest = self.plan.resolved.scenario.guest
        wanted = (guest.nics if device == "nic" else guest.disks)[which]
        every = self._definition.every(host, self._channels.of(host))
        added = next(one for one in every if one.device is wanted)
        nics = [id(one) for one in guest.all_nics]
        shape = self._definition.interface_of(host, nics.index(id(wanted))) if device == "nic" else added
        return added.number, ET.tostring(next(shape.elements()), encoding="unicode")

    def plugged(self, number: int, host: Host, events: EventStream) -> None:
        """It has been plugged in: the guest uses it for the first time, and on each host from now on."""
        self._definition.absent.discard(number)
        there = [one for one in self._devices_on(host) if one.number == number]
        board_devices(there, self.control, events, self._notes)

    def link_name(self, nic: int) -> str:
        """What QEMU calls a NIC of the guest's."""
        return link_name(self.plan.resolved.scenario.guest, nic)

    def linked(self, nic: int, *, up: bool) -> None:
        """Its link is up from now on, or down."""
        down = self._definition.links_down
        (down.discard if up else down.add)(nic)

    def unplugged(self, number: int) -> None:
        """The guest has let go of it."""
        self._definition.absent.add(number)

    def is_on(self, host: Host) -> None:
        """It has arrived on ``host``, and is about to go on there."""
        self._host = host
        self.has_moved = True

    @property
    def libvirt_has_disks(self) -> bool:
        """Whether libvirt knows of a disk of the scenario's that is written to."""
        return any(one.by_libvirt for one in self.plan.resolved.scenario.guest.all_disks)

    def copied_disks(self, host: Host) -> CopiedTargets:
        """The disks that libvirt is to copy to ``host``."""
        found = [(added.device, added.context) for added in self._devices_on(host)]
        disks = [(one, context) for one, context in found if isinstance(one, ListedDisk)]
        names = [one.copied_target(context) for one, context in disks]
        only_top = any(one.storage == "copied-top" for one, _ in disks)
        return CopiedTargets(tuple(name for name in names if name is not None), only_top)

    def copied_images(self, origin: Host, target: Host) -> Mapping[str, str]:
        """The images of those: on ``origin``, and on ``target``."""
        return {str(here.image(one)): str(here.image(two)) for here, one, two in self._copied(origin, target)}

    def disk_images(self, origin: Host, target: Host) -> tuple[CopiedImages, ...]:
        """How to read them, on both hosts."""
        return tuple(
            CopiedImages(
                f"{one.name} ({here.format})", partial(here.raw_image, one), partial(here.raw_image, two)
            )
            for here, one, two in self._copied(origin, target)
        )

    def _copied(self, *hosts: Host) -> Iterator[tuple[ListedDisk, DeviceContext, DeviceContext]]:
        for here, there in zip(*(self._devices_on(host) for host in hosts), strict=True):
            if isinstance(here.device, ListedDisk) and here.device.is_copied:
                yield here.device, here.context, there.context

    def disk_room(self, host: Host) -> Path:
        """The small file system that disks of a QEMU on ``host`` are in, whether there is one yet or not."""
        rooms, first = self._pair.runtime_dir / ROOMS, self._pair.source.name
        for disk in self.plan.resolved.scenario.guest.all_disks:
            if disk.room is not None:
                return disk.room_in(rooms, host.name, first)
        raise MachineryError("no disk of the guest's is in a file system of its own")

    def kill_backend(self, device: str, host: Host) -> None:
        """Kill what serves a device of its newest QEMU on ``host``."""
        self._helpers.kill(device, host)

    def monitor_socket(self, host: Host) -> Path:
        """Where the QEMU on ``host`` listens for us."""
        return self._channels.of(host).monitor

    def gate_socket(self, host: Host) -> Path:
        """Where a migration from ``host`` goes through on its way to the daemon."""
        return self._channels.of(host).gate

    def record_file(self, host: Host) -> Path:
        """The record that the device on ``host`` keeps, in its present QEMU."""
        return self._channels.of(host).record

    def state_file(self, folder: RunFolder, *, little_room: bool) -> Path:
        """Where a guest that goes by a file is written to: in ``folder``, or where there is little room."""
        room = self._pair.file_room if little_room else None
        return folder.file("guest.state") if room is None else room / "guest.state"

    def trace_file(self, host: Host) -> Path | None:
        """What the present QEMU on ``host`` traces; None where the scenario asks for none."""
        return self._channels.of(host).trace if self.plan.resolved.scenario.trace else None

    def spec(self, host: Host) -> DomainSpec:
        """The domain for ``host``, with its present QEMU's files."""
        return self._definition.spec(host, self._channels.of(host))

    def start(self) -> libvirt.virDomain:
        """Start it on the source; returns when its QEMU runs."""
        files = self._channels.of(self._pair.source)
        if self.plan.login is not None:
            self._way_in = WayIn(self.plan, self._pair.source.nic, self._folder.file("dnsmasq.log"))
        return start_guest(self._definition, self.keys, files, self._folder)

    def key(self) -> str:
        """The hash of all that makes it what it is when it has booted, for one that is kept."""
        return key_of_guest(self._definition, self._pair.source, self._channels.of(self._pair.source))

    def write(self, domain: libvirt.virDomain, kept: Path, events: EventStream, deadline: Deadline) -> None:
        """Write it down, once it has said that it is ready; it stands still from here on."""
        files, uuid = self._channels.of(self._pair.source), self._definition.uuid
        write_guest(domain, uuid, self._pair.source, files, kept, self._folder, events, deadline)

    def go_on(
        self, kept: KeptGuest, events: EventStream, deadline: Deadline
    ) -> tuple[libvirt.virDomain, Mapping[str, object]]:
        """In place of :meth:`start` and :meth:`wait_until_ready`: go on from what was kept."""
        source = self._pair.source
        self._definition = replace(self._definition, uuid=kept.uuid)
        files = self._channels.of(source)
        domain = start_guest(self._definition, self.keys, files, self._folder, waits=True)
        restore_guest(kept, source, files, self._folder, events, deadline)
        domain.resume()
        said = wake_guest(self.control, deadline)
        self._release = str(said["release"])
        self.warm = True
        return domain, said

    def plug(self, domain: libvirt.virDomain, deadline: Deadline) -> None:
        """Plug the scenario's DIMM in, if it has one, and wait until the guest has taken it into use."""
        plug_dimm(domain, self._definition.shape, self.control, deadline)

    def wait_until_ready(self, deadline: Deadline) -> Mapping[str, object]:
        """Wait for the guest's own word; what it says of itself."""
        with silence_explained(self.plan, deadline):
            if self._way_in is not None:
                self.keys = self._way_in.let_in(self.keys, self.control, self._events, deadline)
            said = self.control.wait_ready(deadline)
        demand_driver(self.plan, said)
        self._release = str(said["release"])
        return said

    @property
    def kernel_release(self) -> str:
        """The kernel that it runs, by its own word; before that, the one that it is started with."""
        return self._release or self.plan.kernel.release

    def board_devices(self, host: Host, events: EventStream) -> None:
        """Have it use the scenario's devices, on ``host``, before it is migrated."""
        board_devices(self._devices_on(host), self.control, events, self._notes)

    def look_at_devices(
        self, host: Host, monitor: Monitor, events: EventStream, *, announced: bool
    ) -> list[DeviceLook]:
        """How the scenario's devices are, now that it runs on ``host``; its QEMU's monitor.

        ``announced``: it has come there by the network, so its QEMU announces its NICs.
        """
        network = host if announced else None
        looks = look_at_devices(self._devices_on(host), self.control, monitor, events, self._notes, network)
        return with_ends(looks, self._helpers.ended(host))

    def look_at_devices_left(self, host: Host, monitor: Monitor, events: EventStream) -> list[DeviceLook]:
        """The same of a guest that has not left ``host``: without those whose program a script has killed."""
        dead = self._helpers.unserved(host)
        devices = [one for one in self._devices_on(host) if one.device.device not in dead]
        looks = look_at_devices(devices, self.control, monitor, events, self._notes)
        return with_ends(looks, self._helpers.ended(host))

    def _devices_on(self, host: Host) -> tuple[ScenarioDevice, ...]:
        return self._definition.added(host, self._channels.of(host))

    def load(self, deadline: Deadline) -> Mapping[str, object]:
        """Have it load the scenario's workload."""
        return self.control.call("load", *self.plan.resolved.load_words(), deadline=deadline)

    def demand_dirty_log(self) -> None:
        """Raise unless QEMU logs writes as the scenario says: what was hidden from it, it has asked for."""
        if self.plan.preload is not None:
            said = last_words(self._pair.source.qemu_log(self._pair.guest_name), lines=1000)
            if not any(HIDDEN in line for line in said):
                raise MachineryError(
                    "QEMU has not asked KVM for manual protection: nothing was hidden from it"
                )

    def explained(self, error: GuestLost) -> GuestLost:
        """The same error with all that is left of the guest: its last lines, QEMU's, the command line."""
        return explained(error, self._channels.console, self._pair, self._folder.file("console.log"))
