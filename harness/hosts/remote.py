# SPDX-License-Identifier: GPL-2.0-or-later
"""Two hosts that are machines of the user's own, reached by ssh.

::

    with RemotePair.connect(scenario.remote, events) as pair:     # nothing is started or written yet
        pair.demand_memory(guest_memory)
        with pair.ready(files, logs) as hosts:                    # folders, forwardings, copies
            ...

One ssh process for each machine carries everything: our deputy, libvirt's socket,
QEMU's monitor, console and control channel, and unless asked otherwise the migration
itself.  When it ends, however it ends, the deputy's keeper leaves the machine as it
was found.  docs/remote.md says why it is done this way.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final

from harness.errors import InputError
from harness.events import EventStream
from harness.hosts.remote_deputy import DeputyClient
from harness.hosts.remote_fit import RECORDS_ROOM, common_parent, demand_machine_memory
from harness.hosts.remote_host import RemoteHost
from harness.hosts.remote_memory import ORACLE, LookContext
from harness.hosts.remote_ssh import SshConnection
from harness.scenario.remote_uri import RemoteUri

if TYPE_CHECKING:
    from harness.scenario.remote import Remote, RemoteSide

#: Beside the guest's RAM on each machine: QEMU's own, and the deputy's digests.
MEMORY_MARGIN: Final = 256 << 20


class RemotePair:
    """The two machines.  Use :meth:`connect`."""

    def __init__(self, hosts: tuple[RemoteHost, RemoteHost], runtime_dir: Path, stream: str) -> None:
        self.runtime_dir = runtime_dir
        self.guest_name = f"freepage-{secrets.token_hex(6)}"
        self._hosts = hosts
        self._stream = stream

    @property
    def file_room(self) -> None:
        """None: a guest goes through no file between two machines."""

    @property
    def memory_dir(self) -> None:
        """None: two machines have no memory in common."""

    @property
    def source(self) -> RemoteHost:
        """Where the guest starts."""
        return self._hosts[0]

    @property
    def destination(self) -> RemoteHost:
        """Where the guest goes."""
        return self._hosts[1]

    @property
    def hosts(self) -> tuple[RemoteHost, ...]:
        """Source and destination."""
        return self._hosts

    @classmethod
    @contextlib.contextmanager
    def connect(cls, remote: Remote, events: EventStream) -> Iterator[RemotePair]:
        """Connect to both, and make sure that they will do.  All is left as it was found afterwards."""
        with contextlib.ExitStack() as stack:
            runtime_dir = Path(tempfile.mkdtemp(prefix="fp-"))
            stack.callback(shutil.rmtree, runtime_dir, ignore_errors=True)
            shared = LookContext(secrets.token_bytes(32))
            hosts = []
            for name, side in (("source", remote.source), ("destination", remote.destination)):
                with events.step("connect", host=name, to=RemoteUri.parse(side.uri).place) as step:
                    config = Path(remote.ssh_config) if remote.ssh_config is not None else None
                    host = connect_host(name, side, config, runtime_dir, shared, events, stack)
                    step.note(kernel=host.facts.kernel, libvirt=host.libvirt_version)
                    hosts.append(host)
            source, destination = hosts
            if source.daemon.host_uuid == destination.daemon.host_uuid:
                raise InputError(
                    "source and destination are the same host for libvirt (UUID "
                    f"{source.daemon.host_uuid}), which migrates no guest to where it is",
                    hint="two machines; or, for clones of one, a host_uuid of its own in libvirtd.conf",
                )
            yield cls((source, destination), runtime_dir, remote.stream)

    def memory_available(self) -> int:
        """Bytes for the guests of both sides together, as a lab counts them."""
        return 2 * min(host.facts.memory_available for host in self._hosts)

    def demand_memory(self, memory: int) -> None:
        """Raise unless a guest of this size fits on both."""
        for host in self._hosts:
            available = host.facts.memory_available
            demand_machine_memory(available, memory, MEMORY_MARGIN, host.name, host.remote.place)

    def make_folders(self, needed: int) -> None:
        """Make the run's folder on both, with room for ``needed`` bytes of files."""
        told = [(host.remote.place, host.facts) for host in self._hosts]
        parent = common_parent(told, needed + RECORDS_ROOM)
        for host in self._hosts:
            host.make_folder(f"{parent}/{self.guest_name}")

    @contextlib.contextmanager
    def ready(self, emulators: Mapping[str, Path], logs: Path) -> Iterator[RemotePair]:
        """Everything is in place for a guest; ``emulators``: each side's QEMU, named as it is here."""
        for host in self._hosts:
            host.expect_guest(self.guest_name, emulators[host.name], logs / host.name)
        if self._stream == "forwarded":
            self._forward_migration(self.source, self.destination)
            self._forward_migration(self.destination, self.source)
        yield self

    def _forward_migration(self, origin: RemoteHost, target: RemoteHost) -> None:
        """Who connects to this socket on ``origin`` reaches the same socket on ``target``, by way of us."""
        name = f"to-{target.name}.migrate"
        here = self.runtime_dir / name
        target.forward_here(name, here)
        origin.forward_there(name, here)
        target.migrate_uri = f"unix://{target.path_in_folder(name)}"

    def bring(self, files: Mapping[str, Path]) -> None:
        """Copy files of ours to both hosts."""
        with ThreadPoolExecutor(2, "bring") as pool:
            list(pool.map(lambda host: host.bring(files), self._hosts))

    def report(self) -> dict[str, object]:
        """What the result says of the two machines, and of what went over the network."""
        return {
            "hosts": {host.name: host.report() for host in self._hosts},
            "stream": self._stream,
            "oracle_bytes": sum(host.deputy.bytes_for(ORACLE) for host in self._hosts),
            "file_bytes": sum(host.deputy.bytes_for("files") for host in self._hosts),
        }


def connect_host(
    name: str,
    side: RemoteSide,
    config: Path | None,
    runtime_dir: Path,
    shared: LookContext,
    events: EventStream,
    stack: contextlib.ExitStack,
) -> RemoteHost:
    """Connect to one machine, and make sure that it will do; ``stack`` leaves it.

    ``config``: a file for ``ssh -F``.
    """
    uri = RemoteUri.parse(side.uri)
    folder = runtime_dir / name
    folder.mkdir(mode=0o700)
    ssh = SshConnection(uri, folder, config=config, python=side.python)
    stack.callback(ssh.close)
    deputy = DeputyClient(name, ssh)
    host = RemoteHost(name, uri, ssh, deputy, folder, shared, events)
    stack.callback(host.leave)
    host.examine()
    return host
