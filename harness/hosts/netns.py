# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab's network: a segment for each NIC of the guest's, one wire for migrations.

::

    lab       bridge lab0 (the harness) --+-- source
                                          +-- destination
    host      bridge br0 = up0 (to lab0) + the guest's NIC; br1 = up1 (to lab1) + its second one, ...
    between   mig0 ---- mig0, shaped on request; or, for a bad wire,
              mig0 ---- wire0 (in the lab) -- relay -- wire1 ---- mig0

The guest's segment spans both hosts, so the guest keeps its address, and QEMU's
announcement after a migration teaches the bridges where it is now.  A second NIC
has a segment of its own, so that nothing for it can come in by the first.  Migrations
have a wire of their own: shaping it does not slow down the guest's ssh session.
Nothing leads out of the namespaces, so the addresses are nobody else's.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

from harness.errors import MachineryError
from harness.hosts.interface import Nic
from harness.hosts.shaping import shape
from harness.hosts.space import Space

#: The guest's segment.
SUBNET: Final = "10.77.0.0/24"
PREFIX: Final = 24
NETMASK: Final = "255.255.255.0"
LAB_ADDRESS: Final = "10.77.0.1"
#: The lab's own link on the segment of the guests' first NICs.
LAB_LINK: Final = "lab0"
GUEST_ADDRESS: Final = "10.77.0.10"
GUEST_MAC: Final = "52:54:00:77:00:0a"

#: Ends of the migration wire.
WIRE: Final = ("10.77.1.1", "10.77.1.2")
_WIRE_PREFIX: Final = 30

#: The hosts' names, which are their addresses on the wire.
NAMES: Final = ("source", "destination")

#: libvirt resolves its own name when it starts; there is nobody to ask in here.
HOSTS_FILE: Final = "127.0.0.1 localhost\n" + "".join(
    f"{address} {name}\n" for address, name in zip(WIRE, NAMES, strict=True)
)

#: Where a relay takes the frames of the migration wire from: ends of the source and of the destination.
_WIRE_ENDS: Final = ("wire0", "wire1")
#: Few large frames: each costs the relay the same.
_RELAYED_MTU: Final = 9000
_RELAYED_BUFFER: Final = 16 << 20
_SO_RCVBUFFORCE: Final = 33

#: QEMU's and the relay's ports of the first guest; two more for each further one, and so many for a segment.
_FIRST_PORT: Final = 7001
_PORTS_OF_SEGMENT: Final = 32
#: The third number of the addresses on the second NIC's segment is one more than this.
_FURTHER_SEGMENTS: Final = 16
TUN: Final = Path("/dev/net/tun")
#: The flag of a listening socket in /proc/net/unix (__SO_ACCEPTCON).
_ACCEPTS: Final = 0x10000
#: Offloads that a packet socket cannot take on, by ethtool's names.
_OFFLOADS: Final = ("tx-checksumming", "tcp-segmentation-offload", "generic-segmentation-offload")


@dataclass(frozen=True, slots=True)
class SegmentPlan:
    """What each guest's NIC on one segment is to be attached by."""

    #: A tap; else datagrams, which a relay carries.
    tap: bool = True
    #: Of the tap.
    queues: int = 1


def lab_address(segment: int) -> str:
    """The lab's own address on the segment of the guests' NICs of that number, from 0."""
    return LAB_ADDRESS if not segment else str(ip_address(LAB_ADDRESS) + 256 * (_FURTHER_SEGMENTS + segment))


def nic_of(number: int, *, tap: bool, segment: int = 0) -> Nic:
    """A NIC (from 0, ``segment``) of the lab's guest of that number, from 1: the same on both hosts."""
    at = number - 1
    lab = ip_address(lab_address(segment))
    address = lab + (int(ip_address(GUEST_ADDRESS)) - int(ip_address(LAB_ADDRESS))) + at
    mac = f"{GUEST_MAC[:-5]}{segment:02x}:{int(GUEST_MAC[-2:], 16) + at:02x}"
    name = f"{at}n{segment}" if segment else str(at)
    if tap:
        return Nic(mac, f"tap{name}", address=str(address), lab=str(lab))
    port = _FIRST_PORT + 2 * at + _PORTS_OF_SEGMENT * segment
    return Nic(mac, None, (port, port + 1), str(address), f"nic{name}", str(lab))


def port_of(host: str, segment: int) -> str:
    """The lab's end of what leads to a host on a segment, a link."""
    return host[:11] + (str(segment) if segment else "")


def try_device(path: Path) -> None:
    """Open it as whoever uses it would; raises :class:`OSError` if this user cannot."""
    os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))


def can_open_tun() -> bool:
    """Whether this user may make taps."""
    try:
        try_device(TUN)
    except OSError:
        return False
    return True


def build_network(
    spaces: Sequence[Space],
    bandwidth: int | None,
    *,
    segments: Sequence[SegmentPlan] = (SegmentPlan(),),
    apart: bool = False,
    guests: int = 1,
) -> tuple[tuple[Nic, ...], ...]:
    """Make all links; returns how each guest's NICs are attached, to either host.

    ``apart``: the migration wire ends in the lab on both sides, see :func:`wire_sockets`.
    """
    # Costs 0.1 s, and the daemons are starting meanwhile.
    from pyroute2.iproute.linux import IPRoute

    source, destination = spaces
    with IPRoute() as route:
        _quiet()
        for segment in range(len(segments)):
            _make_segment(route, segment, spaces)
        if apart:
            for end, space in zip(_WIRE_ENDS, spaces, strict=True):
                _make_wire_end(route, end, space)
        else:
            route.link(
                "add",
                ifname="mig0",
                kind="veth",
                net_ns_fd=source.network,
                peer={"ifname": "mig0", "net_ns_fd": destination.network},
            )
    nics = tuple(
        tuple(nic_of(number, tap=plan.tap, segment=segment) for segment, plan in enumerate(segments))
        for number in range(1, guests + 1)
    )
    queues = [plan.queues for plan in segments]
    for space, address in zip(spaces, WIRE, strict=True):
        space.run(_inside(IPRoute, address, bandwidth, nics, queues=queues, apart=apart))
    return nics


def _make_segment(route: Any, segment: int, spaces: Sequence[Space]) -> None:
    bridge = _add(route, f"lab{segment}", kind="bridge")
    route.addr("add", index=bridge, address=lab_address(segment), prefixlen=PREFIX)
    route.link("set", index=bridge, state="up")
    for space in spaces:
        name = port_of(space.name, segment)
        peer = {"ifname": f"up{segment}", "net_ns_fd": space.network}
        route.link("add", ifname=name, kind="veth", peer=peer)
        (port,) = route.link_lookup(ifname=name)
        route.link("set", index=port, master=bridge, state="up")


def _make_wire_end(route: Any, end: str, space: Space) -> None:
    """One end of a migration wire that a relay carries the frames of."""
    peer = {"ifname": "mig0", "net_ns_fd": space.network, "mtu": _RELAYED_MTU}
    route.link("add", ifname=end, kind="veth", mtu=_RELAYED_MTU, peer=peer)
    (link,) = route.link_lookup(ifname=end)
    route.link("set", index=link, mtu=_RELAYED_MTU, arp=False)
    route.link("set", index=link, state="up")


def _send_whole(name: str) -> None:
    """Have every frame leave a link whole and summed, as a packet socket needs it."""
    from pyroute2.ethtool.ioctl import IoctlEthtool

    with contextlib.closing(IoctlEthtool(name)) as ethtool:
        for offload in _OFFLOADS:
            ethtool.set_offload_flag(offload, 0)


def wire_sockets() -> tuple[socket.socket, socket.socket]:
    """The relay's ends of the migration wire: packets of the source and of the destination."""
    ends = []
    for name in _WIRE_ENDS:
        packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
        packets.bind((name, 0x0003))
        packets.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RELAYED_BUFFER)
        # Beyond the system's limit, for who may.
        with contextlib.suppress(OSError):
            packets.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RELAYED_BUFFER)
        ends.append(packets)
    return ends[0], ends[1]


def _inside(
    route_type: Any,
    address: str,
    bandwidth: int | None,
    nics: Sequence[Sequence[Nic]],
    *,
    queues: Sequence[int],
    apart: bool,
) -> Callable[[], None]:
    """The part of :func:`build_network` that is done in a host's namespaces."""

    def work() -> None:
        with route_type() as route:
            _quiet()
            for segment, queue_pairs in enumerate(queues):
                bridge = _add(route, f"br{segment}", kind="bridge")
                route.link("set", index=bridge, state="up")
                (uplink,) = route.link_lookup(ifname=f"up{segment}")
                route.link("set", index=uplink, master=bridge, state="up")
                for nic in (of_guest[segment] for of_guest in nics):
                    port = (
                        _make_packet_port(route, nic)
                        if nic.tap is None
                        else _make_tap(route, nic.tap, queue_pairs)
                    )
                    route.link("set", index=port, master=bridge, state="up")
            (wire,) = route.link_lookup(ifname="mig0")
            route.addr("add", index=wire, address=address, prefixlen=_WIRE_PREFIX)
            if apart:
                route.link("set", index=wire, mtu=_RELAYED_MTU)
                _send_whole("mig0")
            route.link("set", index=wire, state="up")
            if bandwidth is not None:
                shape(route, wire, bandwidth)

    return work


def reserve_port(address: str) -> socket.socket:
    """A port of the calling thread's network that the kernel gives to nobody who does not name it.

    Who sets SO_REUSEADDR, as QEMU does, can listen at it meanwhile (net/ipv4/inet_connection_sock.c).
    """
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.bind((address, 0))
    return reserved


def set_wire(*, up: bool) -> None:
    """Switch the migration wire's end of the calling thread's network; addresses stay."""
    from pyroute2.iproute.linux import IPRoute

    with IPRoute() as route:
        (wire,) = route.link_lookup(ifname="mig0")
        route.link("set", index=wire, state="up" if up else "down")


def accepts(path: Path) -> bool:
    """Whether a Unix socket of the calling thread's network waits for connections at ``path``.

    Such sockets are listed by network, though a path is none of a network's: net/unix/af_unix.c.
    """
    lines = Path("/proc/thread-self/net/unix").read_text(encoding="ascii", errors="replace").splitlines()[1:]
    fields = (line.split() for line in lines)
    return any(words[-1] == str(path) and int(words[3], 16) & _ACCEPTS for words in fields)


def _add(route: Any, name: str, **what: object) -> int:
    try:
        route.link("add", ifname=name, **what)
    except Exception as error:
        code = getattr(error, "code", None)
        if code not in (errno.EOPNOTSUPP, errno.ENODEV):
            raise
        raise MachineryError(
            f"this kernel cannot make a {what.get('kind')} link",
            hint=f"sudo modprobe {what.get('kind')}",
        ) from error
    (index,) = route.link_lookup(ifname=name)
    return int(index)


def _quiet() -> None:
    """No IPv6 here: its duplicate detection and multicasts would only delay and disturb."""
    for scope in ("all", "default"):
        switch = Path(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6")
        if switch.exists():
            switch.write_text("1")


def _make_tap(route: Any, name: str, queues: int) -> int:
    """A persistent tap in the calling thread's network, for libvirt to open by its name."""
    # An ordinary user's daemon has no capabilities, in no namespace; the owner needs none.
    flags = {"no_pi": 1, "vnet_hdr": 1, **({"multi_queue": 1} if queues > 1 else {})}
    return _add(route, name, kind="tuntap", mode="tap", uid=os.geteuid(), ifr=flags)


def _make_packet_port(route: Any, nic: Nic) -> int:
    """A veth in place of the tap: the relay has a packet socket on its other end."""
    name = nic.packets.replace("nic", "guest")
    route.link("add", ifname=name, kind="veth", peer={"ifname": nic.packets})
    (port,) = route.link_lookup(ifname=name)
    (packets,) = route.link_lookup(ifname=nic.packets)
    # The guest has no offloads on this path.
    _send_whole(name)
    # Without ARP: this end would answer for the host's own addresses.
    # (In two steps: given both, older versions of pyroute2 leave the link down.)
    route.link("set", index=packets, arp=False)
    route.link("set", index=packets, state="up")
    return int(port)


def relay_sockets(nic: Nic) -> tuple[socket.socket, socket.socket]:
    """The relay's ends: packets of the veth, and datagrams to and from QEMU.  Call in the host's space."""
    packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
    packets.bind((nic.packets, 0x0003))
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    datagrams.bind(("127.0.0.1", nic.ports[0]))
    datagrams.connect(("127.0.0.1", nic.ports[1]))
    return packets, datagrams
