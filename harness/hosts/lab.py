# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab: two hosts on this machine, for one run, in namespaces of the run's own.

::

    # in a command that harness.hosts.enter has put into a lab
    with Lab(events, memory=2 * guest_memory) as lab:
        domain = lab.source.connect().createXML(xml)
        domain.migrate3(lab.destination.connect(), {"migrate_uri": lab.destination.migrate_uri}, flags)

Entering returns at once, while daemons start and links are made; whoever needs
one of them waits for it (``connect()``, ``nic``).  What a caller does in between
costs nothing.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final

from harness import accel
from harness.errors import FreepageError, HostLost, MachineryError
from harness.events import Deadline, EventStream, patience
from harness.hosts import capscache, kernel, netns, relay
from harness.hosts.announcements import Announcements
from harness.hosts.certificates import write_certificates
from harness.hosts.enter import inside_lab
from harness.hosts.interface import Ends, Nic, Site, Sockets, Through
from harness.hosts.kernel import Mount
from harness.hosts.lab_qemu import LabQemu
from harness.hosts.libvirtd import CERTIFICATES, HUGEPAGES, LibvirtDaemon, Program, find_libvirt
from harness.hosts.obituary import Obituaries
from harness.hosts.room import ROOM
from harness.hosts.space import Space, background
from harness.hosts.wire_relay import WireRelay, start_tap

if TYPE_CHECKING:
    import socket

    import libvirt

    from harness.scenario.wire import WireConditions

#: How long a daemon may take to answer for the first time.
START_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class _Folders:
    """Where a host keeps things.  All but ``logs`` is in memory and gone with the lab."""

    own: Path
    memory: Path
    logs: Path


class LabHost:
    """One of the two hosts: a libvirt daemon with its own network, memory folder and name."""

    def __init__(
        self,
        name: str,
        address: str,
        program: Program,
        folders: _Folders,
        events: EventStream,
        compressor: str | None = None,
    ) -> None:
        self.name = name
        #: IPv4 address on the migration wire.
        self.address = address
        #: Where guest RAM files are (libvirt's memory_backing_dir).
        self.memory_dir = folders.memory
        #: A private folder for sockets and the like, gone with the lab.
        self.runtime_dir = folders.own
        self.log_dir = folders.logs
        #: Certificates and keys for encrypted migrations; None: the run has none.
        self.credentials: Path | None = None
        self._events = events
        self._space = Space(name)
        self._daemon = LibvirtDaemon(
            program, self._space, folders.own / "libvirt", folders.memory, folders.logs, compressor
        )
        self._connection: Future[libvirt.virConnect] | None = None
        self._network: Future[tuple[tuple[Nic, ...], ...]] | None = None
        self._announcements: Future[Announcements] | None = None
        self._guest = 1
        self._relays: list[subprocess.Popen[bytes]] = []
        #: The daemon's exit status, once it has ended: one list for all who see this host.
        self._ended: list[int] = []
        self._wire: Future[WireRelay] | None = None

    @property
    def uri(self) -> str:
        """The libvirt URI of this host, valid anywhere in the lab."""
        return self._daemon.uri

    @property
    def migrate_uri(self) -> str:
        """Where a guest that moves to this host is sent; libvirt picks the port."""
        return f"tcp://{self.address}"

    @property
    def nic(self) -> Nic:
        """How a guest's first NIC is attached here; waits until the network is there."""
        return self.nics[0]

    @property
    def nics(self) -> tuple[Nic, ...]:
        """All of them."""
        assert self._network is not None
        with _told(f"cannot make the {self.name}'s network"):
            return self._network.result(patience(START_SECONDS))[self._guest - 1]

    def forget_announcements(self) -> None:
        """What has been announced here is of no matter any more: a new QEMU is about to start."""
        self._announced().forget()

    def announced(self, nic: Nic, deadline: Deadline) -> bool:
        """Whether a QEMU on this host has announced the NIC since; waits for it."""
        return self._announced().heard(self.nics.index(nic), nic.mac, deadline)

    def _announced(self) -> Announcements:
        assert self._announcements is not None
        with _told(f"cannot listen to the {self.name}'s announcements"):
            return self._announcements.result(patience(START_SECONDS))

    @property
    def site(self) -> Site:
        """A domain's RAM is a file of the lab's own file system in memory."""
        return Site(credentials=self.credentials)

    def arrive(self, name: str) -> Ends:
        """Sockets for a QEMU; both sides of them are on this machine."""
        folder = self.runtime_dir / name
        folder.mkdir(mode=0o700)
        sockets = Sockets.below(folder)
        return Ends(sockets, sockets)

    def path_of(self, file: Path) -> Path:
        """Where a file is for this host: the hosts see the machine's own files."""
        return file

    def record_path(self, record: Path) -> Path:
        """QEMU writes its record where we want it."""
        return record

    def fetch_record(self, record: Path) -> None:
        """Nothing has to be fetched: QEMU writes the record on this machine."""

    def qemu(self, monitor: Path, pid: int) -> LabQemu:  # noqa: ARG002 - others find it by its monitor
        """The QEMU at the other end of a monitor's socket."""
        return LabQemu(pid, self.memory_dir)

    def connect(self) -> libvirt.virConnect:
        """The connection to this host's daemon (one, shared); waits until it answers."""
        assert self._connection is not None
        try:
            with _told(f"cannot start the {self.name}"):
                return self._connection.result(patience(START_SECONDS))
        except FutureTimeout:
            raise HostLost(
                f"the {self.name}'s libvirt daemon does not answer within {patience(START_SECONDS):g} s",
                last_lines=self.last_words(),
            ) from None

    def open(self, through: Through | None = None) -> libvirt.virConnect:
        """A further connection, of the caller's own: for a call that blocks.

        Others on the same connection may have to wait for such a call to return:
        libvirt 9.0's client loses a wake-up when an event arrives at the wrong time.
        """
        self.connect()
        return self._open(through)

    def qemu_log(self, guest: str) -> Path:
        """QEMU's own log: its command line first, then what it had to say."""
        return self.log_dir / "qemu" / f"{guest}.log"

    def last_words(self, lines: int = 20) -> tuple[str, ...]:
        """The ends of the daemon's and QEMU's logs, for an error message."""
        return self._daemon.last_words(lines)

    def set_wire(self, *, up: bool) -> None:
        """Take this host's end of the migration wire down, or bring it up again."""
        with _told(f"cannot switch the {self.name}'s end of the migration wire"):
            self._space.run(lambda: netns.set_wire(up=up))
        if up and self._wire is not None:
            self._relay_of_wire().mend()

    def change_wire(self, conditions: WireConditions) -> None:
        """Have the relay between the hosts be as said."""
        self._relay_of_wire().change(conditions)

    def cut_wire(self, size: int, *, reset: bool) -> None:
        """Have it let so many bytes more through from the source."""
        self._relay_of_wire().cut_after(size, reset=reset)

    def tap(self, onward: str, folder: Path) -> int:
        """Start a tap in this host; it ends with the lab."""
        with _told(f"cannot start a tap on the {self.name}"):
            return self._space.run(lambda: start_tap(onward, folder))

    def reserve_port(self) -> socket.socket:
        """Bound in this host's network, and listening to nobody."""
        with _told(f"cannot reserve a port on the {self.name}"):
            return self._space.run(lambda: netns.reserve_port(self.address))

    def _relay_of_wire(self) -> WireRelay:
        if self._wire is None:
            raise MachineryError("the migration wire of this lab passes through no relay")
        with _told("cannot start the relay of the migration wire"):
            return self._wire.result(patience(START_SECONDS))

    def start_program(
        self, command: Sequence[str], inherited: int | None, log: Path
    ) -> subprocess.Popen[bytes]:
        """Start a program in the host's namespaces: it ends with the lab at the latest."""

        def start() -> subprocess.Popen[bytes]:
            with log.open("ab") as said:
                return subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=said,
                    pass_fds=() if inherited is None else (inherited,),
                    start_new_session=True,
                )

        with _told(f"cannot start {command[0]}"):
            return self._space.run(start)

    def accepts(self, path: Path) -> bool:
        """Whether somebody in the host's namespaces listens at that Unix socket."""
        return self._space.run(lambda: netns.accepts(path))

    def check(self) -> None:
        """Raise :class:`HostLost` if the daemon has ended."""
        if self._ended:
            raise self._lost()

    def keep_capabilities(self) -> None:
        """Keep for the next run what the daemon has learnt about QEMU binaries."""
        capscache.save(self._daemon.capabilities, capscache.capability_cache())

    # --- for the lab

    def begin(self) -> None:
        """Start the daemon, and connect to it, in a thread."""
        self._connection = background(self._start, f"start-{self.name}")

    def _start(self) -> libvirt.virConnect:
        self._daemon.prepare()
        capscache.load_capabilities(capscache.capability_cache(), self._daemon.capabilities)
        self._daemon.start(self._daemon_ended)
        connection = self._open()
        self._events.emit("host-ready", source=self.name, uri=self.uri)
        return connection

    def _open(self, through: Through | None = None) -> libvirt.virConnect:
        # Imported while the daemon starts.
        import libvirt

        from harness.hosts.loop import ensure_event_loop

        ensure_event_loop()
        uri = self.uri if through is None else self._daemon.uri_at(through(self._daemon.socket))
        try:
            return libvirt.open(uri)
        except libvirt.libvirtError as error:
            raise self._lost(str(error)) from error

    def _daemon_ended(self, status: int) -> None:
        self._ended.append(status)
        self._events.emit("host-ended", source=self.name, status=status)

    def _lost(self, why: str | None = None) -> HostLost:
        status = f" (it ended with status {self._ended[0]})" if self._ended else ""
        return HostLost(
            f"the {self.name}'s libvirt daemon is gone{status}" + (f": {why}" if why else ""),
            last_lines=self.last_words(),
        )

    def attach(self, network: Future[tuple[tuple[Nic, ...], ...]]) -> None:
        """Say where the guests' NICs will come from; starts relays if they need them."""

        def settle() -> tuple[tuple[Nic, ...], ...]:
            nics = network.result()
            for nic in itertools.chain(*nics):
                if nic.tap is None:
                    self._space.run(partial(self._relay, nic))
            return nics

        def listen() -> Announcements:
            segments = len(network.result()[0])
            return Announcements([netns.port_of(self.name, segment) for segment in range(segments)])

        self._network = background(settle, f"nic-{self.name}")
        self._announcements = background(listen, f"announcements-{self.name}")

    def for_guest(self, number: int) -> LabHost:
        """The same host as one of several guests sees it: with a NIC and a connection of its own.

        Two guests move at the same time, and on one connection one's call might wait for the other's.
        """
        host = copy.copy(self)
        host._guest = number
        host._connection = background(self.open, f"connect-{self.name}-{number}")
        return host

    def _relay(self, nic: Nic) -> None:
        packets, datagrams = netns.relay_sockets(nic)
        numbers = (packets.fileno(), datagrams.fileno())
        assert relay.__file__ is not None
        with packets, datagrams, (self.log_dir / "relay.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", relay.__file__, *map(str, numbers)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=numbers,
                start_new_session=True,
            )
            self._relays.append(process)

    def through(self, wire: Future[WireRelay]) -> None:
        """The migration wire passes through a relay."""
        self._wire = wire

    @property
    def space(self) -> Space:
        """The host's namespaces, for what else must be started in them."""
        return self._space

    def end(self) -> None:
        """Kill whatever runs in the host's network: daemon, QEMUs, relay."""
        self.keep_capabilities()
        # Without namespaces of its own nothing was started.
        with contextlib.suppress(OSError):
            _kill_all_in(self._space.network)
        for process in self._relays:
            process.wait()
        self._space.close()


class Lab:
    """Context manager: the two hosts and the network between them.

    ``bandwidth`` shapes the migration wire, in bytes a second.  ``memory`` bounds
    the RAM files of all guests together, in bytes.  ``logs`` is a folder (of the
    run) for the daemons' and QEMUs' logs, which then survive whatever happens.
    ``tls``: the hosts have certificates, for encrypted migrations.  ``hugepages``:
    guests may be backed with those that this machine has reserved (root's only).
    ``room``: there is a further file system, of so many bytes, for a guest that is saved; ``compressor``:
    the program by which libvirt compresses it.
    ``nics``: of each guest: how many, and how each is attached; where no tap can be made, otherwise.
    ``guests``: there are such NICs for each of so many.
    ``wire``: the migration wire is like that, ``seed`` says which of its frames are lost.
    """

    def __init__(
        self,
        events: EventStream,
        bandwidth: int | None = None,
        *,
        memory: int | None = None,
        logs: Path | None = None,
        tls: bool = False,
        hugepages: bool = False,
        room: int | None = None,
        disk_room: int | None = None,
        compressor: str | None = None,
        nics: Sequence[netns.SegmentPlan] = (netns.SegmentPlan(),),
        guests: int = 1,
        wire: WireConditions | None = None,
        seed: int = 0,
    ) -> None:
        self._compressor = compressor
        self._events = events
        self._room = room
        self._disk_room = disk_room
        self._nics = nics
        self._guests = guests
        self._wire = wire
        self._seed = seed
        self._tls = tls
        self._hugepages = hugepages
        self._bandwidth = bandwidth
        self._memory = memory
        self.runtime_dir = ROOM / "lab"
        self._logs = logs if logs is not None else self.runtime_dir / "logs"
        self._stack = contextlib.ExitStack()
        self._hosts: tuple[LabHost, ...] = ()

    @property
    def source(self) -> LabHost:
        """Where the guest starts."""
        return self._hosts[0]

    @property
    def destination(self) -> LabHost:
        """Where the guest goes."""
        return self._hosts[1]

    @property
    def hosts(self) -> tuple[LabHost, ...]:
        """Source and destination."""
        return self._hosts

    @property
    def memory_dir(self) -> Path:
        """The file system in memory that has both hosts' RAM files in its folders."""
        return self.runtime_dir / "memory"

    @property
    def file_room(self) -> Path | None:
        """A file system in memory with little room."""
        return None if self._room is None else self.runtime_dir / "room"

    @property
    def guest_name(self) -> str:
        """The guest's name; a lab has no guests of anybody else."""
        return "guest"

    def report(self) -> None:
        """None: both hosts are this machine, of which the result says enough elsewhere."""

    def bring(self, files: Mapping[str, Path]) -> None:
        """Nothing has to be brought: the hosts see this machine's files."""

    def __enter__(self) -> Lab:
        if not inside_lab():
            raise MachineryError("not in a lab", hint="harness.hosts.enter.enter() makes one")
        program = find_libvirt()
        with contextlib.ExitStack() as stack:
            stack.enter_context(Obituaries(self._events))
            self.runtime_dir.mkdir(mode=0o700)
            stack.callback(self._remove_folder)
            self._mount_memory(stack)
            self._mount_room(stack)
            self._mount_disk_rooms(stack)
            self._hosts = tuple(
                self._make_host(name, address, program, stack)
                for name, address in zip(netns.NAMES, netns.WIRE, strict=True)
            )
            if self._tls:
                folders = [host.runtime_dir / "libvirt" / CERTIFICATES for host in self._hosts]
                for host, folder in zip(self._hosts, folders, strict=True):
                    host.credentials = folder
                write_certificates(folders, [host.address for host in self._hosts])
            for host in self._hosts:
                if self._hugepages:
                    (host.runtime_dir / "libvirt" / HUGEPAGES).mkdir(mode=0o700)
                host.begin()
            tap = netns.can_open_tun()
            if not tap and any(nic.tap for nic in self._nics):
                self._events.emit(
                    "message",
                    text="no access to /dev/net/tun: the guest's frames go through a relay instead of a tap",
                )
            spaces = [host.space for host in self._hosts]
            apart = self._wire is not None
            network = background(
                lambda: netns.build_network(
                    spaces,
                    self._bandwidth,
                    segments=[netns.SegmentPlan(tap and nic.tap, nic.queues) for nic in self._nics],
                    apart=apart,
                    guests=self._guests,
                ),
                "network",
            )
            for host in self._hosts:
                host.attach(network)
            if self._wire is not None:
                self._relay_wire(self._wire, network, stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _relay_wire(
        self,
        conditions: WireConditions,
        network: Future[tuple[tuple[Nic, ...], ...]],
        stack: contextlib.ExitStack,
    ) -> None:
        """Start the relay when there are links."""

        def start() -> WireRelay:
            network.result()
            relay = WireRelay(netns.wire_sockets(), self._seed, self._logs / "wire.log", self._events)
            relay.change(conditions)
            return relay

        wire = background(start, "wire")
        stack.callback(_close_relay, wire)
        for host in self._hosts:
            host.through(wire)

    def _mount_memory(self, stack: contextlib.ExitStack) -> None:
        memory = self.memory_dir
        memory.mkdir()
        size = "100%" if self._memory is None else str(self._memory)
        # Each fault of a guest whose KVM is emulated costs a millisecond: 512 pages to a fault, there.
        huge = ",huge=always" if accel.chain() == "kvm-in-tcg" else ""
        kernel.mount("memory", memory, "tmpfs", Mount.NOSUID | Mount.NODEV, f"mode=0700,size={size}{huge}")
        stack.callback(kernel.unmount, memory)

    def _mount_room(self, stack: contextlib.ExitStack) -> None:
        if self.file_room is None:
            return
        self.file_room.mkdir()
        options = f"mode=0700,size={self._room}"
        kernel.mount("room", self.file_room, "tmpfs", Mount.NOSUID | Mount.NODEV, options)
        stack.callback(kernel.unmount, self.file_room)

    def _mount_disk_rooms(self, stack: contextlib.ExitStack) -> None:
        if self._disk_room is None:
            return
        for name in netns.NAMES:
            place = self.runtime_dir / "rooms" / name
            place.mkdir(parents=True)
            options = f"mode=0700,size={self._disk_room}"
            kernel.mount("disks", place, "tmpfs", Mount.NOSUID | Mount.NODEV, options)
            stack.callback(kernel.unmount, place)

    def _make_host(self, name: str, address: str, program: Program, stack: contextlib.ExitStack) -> LabHost:
        folders = _Folders(self.runtime_dir / name, self.memory_dir / name, self._logs / name)
        for folder in (folders.own, folders.own / "libvirt", folders.memory):
            folder.mkdir(mode=0o700)
        folders.logs.mkdir(parents=True, exist_ok=True)
        host = LabHost(name, address, program, folders, self._events, self._compressor)
        stack.callback(host.end)
        return host

    def _remove_folder(self) -> None:
        import shutil

        shutil.rmtree(self.runtime_dir, ignore_errors=True)


def _close_relay(wire: Future[WireRelay]) -> None:
    with contextlib.suppress(Exception):  # it never was there; whoever needed it has been told
        wire.result(patience(START_SECONDS)).close()


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """What the system or a library says, as an error of ours; ours and a timeout as they are."""
    try:
        yield
    except (FreepageError, FutureTimeout):
        raise
    except Exception as error:  # pyroute2's have no common base
        raise MachineryError(f"{what}: {error}", hint="freepage doctor looks for the reason") from error


def _kill_all_in(network: int) -> None:
    """Kill all processes of a network namespace and wait until they are gone."""
    inode = os.fstat(network).st_ino
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if (entry / "ns" / "net").stat().st_ino == inode:
                _kill(int(entry.name))


def _kill(pid: int) -> None:
    descriptor = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        # Readable once it has ended: its mounts and memory are free then.
        import select

        select.select([descriptor], [], [], 10)
    finally:
        os.close(descriptor)
