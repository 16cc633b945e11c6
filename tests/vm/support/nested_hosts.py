# SPDX-License-Identifier: GPL-2.0-or-later
"""Two nested machines in a lab, each with its own kernel, KVM, libvirt and ssh.

The machines' libvirt is set up as the distribution delivers it: QEMU runs as a user
of its own.  Their only network is a bridge in namespaces of this process's own, at
which this process is reached by nobody else::

    bridge hosts0 (10.78.0.1) --+-- tap, eth0 of the source (10.78.0.11)
                                +-- tap, eth0 of the destination (10.78.0.12)
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

from harness.events import Deadline, EventStream
from harness.nested.commands import choose_chain, shares_of
from harness.nested.machine import OWN_MEMORY, MachineSpec, NestedMachine, SharedFolder, Tap
from harness.nested.parts import machine_parts
from harness.toolchain.cache import Cache
from tests.vm.support.ssh_hosts import SSH_CLIENT, SSHD, keygen

BRIDGE = "10.78.0.1"
ADDRESSES = {"source": "10.78.0.11", "destination": "10.78.0.12"}
PORT = 22
REAPER = Path(__file__).with_name("reaper.py")

#: In each machine: the guest, a copy of what it boots in a file system in memory, libvirt and ssh.
MACHINE_MEMORY = OWN_MEMORY + (1536 << 20)

#: After a run, for what is still ending over there.
SETTLE_SECONDS = 60.0

#: What a run might leave behind in a machine.
_TRACES = (
    "ls -A /var/tmp /run/libvirt/qemu /var/log/libvirt/qemu /var/cache/libvirt/qemu/capabilities 2>&1; "
    # Of those that have ended some are never reaped.
    "ps -e -o stat=,comm= | grep -v ^Z | grep -oE '(qemu|python|.*virt).*' | sort"
)


def services(name: str, folder: Path) -> tuple[str, ...]:
    """What makes a machine one of those two: for a shell in it."""
    return (
        f"hostname {name}",
        f"ip address add {ADDRESSES[name]}/24 dev eth0",
        "ip link set eth0 up",
        # As the harness has it in a lab: see docs/nested.md.
        "echo always >/sys/kernel/mm/transparent_hugepage/shmem_enabled",
        # virtme-ng's init has locked all accounts.
        "sed 's/^root:[^:]*:/root:*:/' /etc/shadow >/run/shadow",
        "cat /run/shadow >/etc/shadow",
        "mkdir -p /run/sshd /var/log/libvirt/qemu",
        f"/usr/sbin/sshd -E /dev/ttyS0 -f {shlex.quote(str(folder / f'sshd-{name}'))}",
        # As udev does elsewhere: QEMU is another user's.
        "chmod 0666 /dev/kvm",
        "virtlogd --daemon",
        # virtme-ng's init reaps nobody.
        f"python3 {shlex.quote(str(REAPER))} libvirtd --daemon",
        # What libvirt learns about the machine's own QEMUs is no trace of a run.
        "virsh --connect qemu:///system capabilities >/dev/null",
    )


def prepare_ssh(folder: Path) -> None:
    """Keys, and a configuration for each server and for the client."""
    folder.mkdir(mode=0o700)
    for key in ("host_key", "user_key"):
        keygen(folder / key)
    (folder / "authorized_keys").write_bytes((folder / "user_key.pub").read_bytes())
    host_key = " ".join((folder / "host_key.pub").read_text().split()[:2])
    known = "".join(f"{address} {host_key}\n" for address in ADDRESSES.values())
    (folder / "known_hosts").write_text(known)
    (folder / "config").write_text(SSH_CLIENT.format(folder=folder, known=folder / "known_hosts"))
    for name, address in ADDRESSES.items():
        text = SSHD.format(address=address, port=PORT, folder=folder, more="")
        (folder / f"sshd-{name}").write_text(text)


def network() -> dict[str, Tap]:
    """The bridge, in this process's own network, and a tap for each machine."""
    from pyroute2.iproute.linux import IPRoute

    taps = {}
    with IPRoute() as route:
        route.link("add", ifname="hosts0", kind="bridge")
        (bridge,) = route.link_lookup(ifname="hosts0")
        route.addr("add", index=bridge, address=BRIDGE, prefixlen=24)
        route.link("set", index=bridge, state="up")
        for number, name in enumerate(ADDRESSES):
            descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
            # TUNSETIFF, with IFF_TAP, IFF_NO_PI and IFF_VNET_HDR.
            fcntl.ioctl(descriptor, 0x400454CA, struct.pack("16sH22x", name.encode(), 0x5002))
            (port,) = route.link_lookup(ifname=name)
            route.link("set", index=port, master=bridge, state="up")
            taps[name] = Tap(descriptor, f"52:54:00:78:00:{number + 11:02x}")
    return taps


@contextlib.contextmanager
def machines(folder: Path, events: EventStream) -> Iterator[dict[str, NestedMachine]]:
    """Both machines, with everything in them up."""
    cache = Cache(None, events)
    parts, (chain, _) = machine_parts(cache), choose_chain(cache, events)
    taps, found = network(), {}
    shares = (*shares_of([], [REAPER]), SharedFolder(folder, writable=False))
    with contextlib.ExitStack() as stack:
        for name, tap in taps.items():
            console = folder.with_name(f"{name}-console.log")
            spec = MachineSpec(chain, MACHINE_MEMORY, shares, tap, services(name, folder))
            try:
                machine = found[name] = stack.enter_context(NestedMachine(parts, spec, events))
            finally:
                os.close(tap.descriptor)
            stack.callback(lambda to=console, of=machine: to.write_text(of.console()))
        yield found


def options(folder: Path) -> list[str]:
    """What the command is told of both machines."""
    uris = {name: f"qemu+ssh://root@{address}:{PORT}/system" for name, address in ADDRESSES.items()}
    words = ["--source", uris["source"], "--destination", uris["destination"]]
    return [*words, "--ssh-config", str(folder / "config")]


def traces(folder: Path) -> dict[str, str]:
    """What there is on both that a run might leave behind."""
    ssh = ["ssh", "-o", "BatchMode=yes", "-F", str(folder / "config")]
    return {
        name: subprocess.run(
            [*ssh, f"root@{address}", _TRACES],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout
        for name, address in ADDRESSES.items()
    }


def settled(folder: Path, wanted: dict[str, str]) -> dict[str, str]:
    """What there is when it is what is wanted, or when the time is over."""
    deadline = Deadline(SETTLE_SECONDS, "the machines to be left")
    while (found := traces(folder)) != wanted and not deadline.expired:
        pass  # nobody tells; each look takes two logins
    return found
