# SPDX-License-Identifier: GPL-2.0-or-later
"""The lines that tell a person how to get at a run that stands still.  Text alone: nothing is asked here."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

#: Below a QEMU's folder: monitors that nobody of ours uses.
HMP_SOCKET = "hmp.sock"
QMP_SOCKET = "qmp.sock"


@dataclass(frozen=True, slots=True)
class QemuAtHand:
    """A QEMU of a run that stands still."""

    side: str
    #: As the command's user sees it.
    pid: int
    program: Path
    #: What it says of itself, in words.
    state: str
    #: Where its sockets are, in the lab.
    folder: Path
    #: Its process is stopped, so that it answers nobody.
    stopped: bool = False


@dataclass(frozen=True, slots=True)
class LabAtHand:
    """A lab that stands still, and how to get into it from outside."""

    #: A process in it, as the command's user sees it.
    pid: int
    #: It has a user namespace of its own, as an ordinary user's has.
    own_users: bool
    qemus: Sequence[QemuAtHand]
    #: The libvirt daemons' sockets, in the lab, by the names of the hosts.
    daemons: Sequence[tuple[str, Path]]
    #: libvirt's path in its URI: system or session.
    realm: str
    guest_name: str
    #: The folder with the keys of the guest's ssh server, in the lab; None: there is none to be reached.
    keys: Path | None
    guest_address: str
    #: qemu.qmp's shell, which comes with this project.
    qmp_shell: Path | None
    #: Whether this machine has socat.
    socat: bool = True

    def outside(self, path: Path) -> Path:
        """Where a file of the lab is seen from outside."""
        return Path(f"/proc/{self.pid}/root{path}")

    @property
    def enter(self) -> str:
        """What puts a command into the lab's mounts and network."""
        users = " -U --preserve-credentials" if self.own_users else ""
        return f"nsenter -t {self.pid}{users} -m -n"


def lines_of(lab: LabAtHand) -> Iterator[str]:
    """How to attach, a line each."""
    for qemu in lab.qemus:
        yield f"{qemu.side}: QEMU is process {qemu.pid}; {qemu.state}"
        # Of the libraries the same files are here: gdb need not enter the lab's mounts, which takes root.
        yield f"  gdb       gdb -iex 'set sysroot /' {shlex.quote(str(qemu.program))} -p {qemu.pid}"
        yield from _monitors(lab, qemu)
        if qemu.stopped:
            yield f"  monitors answer once the process goes on, as does the migration: kill -CONT {qemu.pid}"
    for name, socket in lab.daemons:
        uri = f"qemu+unix:///{lab.realm}?socket={lab.outside(socket)}"
        yield f"libvirt of the {name} (the guest is {lab.guest_name!r} there): virsh -c {shlex.quote(uri)}"
    if lab.keys is not None and lab.qemus:
        yield (
            f"a shell in the guest, where it runs (cont): {lab.enter} ssh -F /dev/null -i {lab.keys}/client "
            f"-o UserKnownHostsFile={lab.keys}/known_hosts root@{lab.guest_address}"
        )


def _monitors(lab: LabAtHand, qemu: QemuAtHand) -> Iterator[str]:
    hmp, qmp = (lab.outside(qemu.folder / name) for name in (HMP_SOCKET, QMP_SOCKET))
    if lab.qmp_shell is None:
        yield f"  HMP       socat - UNIX-CONNECT:{hmp}"
        yield f"  QMP       socat - UNIX-CONNECT:{qmp}"
        return
    shell = shlex.quote(str(lab.qmp_shell))
    # Without socat by way of QMP, whose socket takes one at a time.
    yield f"  HMP       socat - UNIX-CONNECT:{hmp}" if lab.socat else f"  HMP, or   {shell} -H {qmp}"
    yield f"  QMP       {shell} {qmp}"
