# SPDX-License-Identifier: GPL-2.0-or-later
"""What this machine has for a run: memory, huge pages, devices of the kernel's."""

from __future__ import annotations

import os
import resource
import socket
import time
from pathlib import Path
from typing import Final

from harness.errors import InputError
from harness.hosts import kernel as kernel_calls
from harness.hosts import netns

_MEMINFO: Final = Path("/proc/meminfo")


#: A socket option of Linux's, which Python has no name for (include/uapi/asm-generic/socket.h).
_SO_ZEROCOPY: Final = 60
#: What a channel of QEMU's sends at a time (MULTIFD_PACKET_SIZE in its migration/multifd.c), in bytes.
_MULTIFD_PACKET: Final = 512 << 10

#: What a NIC that the kernel serves takes, and the modules that make them.
_VHOST: Final = {netns.TUN: "tun", Path("/dev/vhost-net"): "vhost_net"}


def memory_available() -> int:
    """Bytes that this machine can give to guests now."""
    for line in _MEMINFO.read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise InputError(f"{_MEMINFO} does not say how much memory is available")


def demand_hugepages(memory: int) -> None:
    """Raise if this machine has not reserved huge pages for so much memory, twice (bytes)."""
    numbers = {}
    for line in _MEMINFO.read_text(encoding="ascii").splitlines():
        key, _, value = line.partition(":")
        if value.split():
            numbers[key] = int(value.split()[0])
    size = numbers.get("Hugepagesize", 0) * 1024
    needed = 2 * -(-memory // size) if size else 0
    if not size or numbers.get("HugePages_Free", 0) < needed:
        raise InputError(
            f"guest.hugepages: {needed} free huge pages are needed, of which this machine has "
            f"{numbers.get('HugePages_Free', 0)}",
            hint=f"sudo sysctl vm.nr_hugepages={needed}, or guest.hugepages: false",
        )


def demand_userfaultfd(key: str = "migration.postcopy") -> None:
    """Raise if QEMU, which the user starts, could not see to faults in a guest's memory, as ``key`` wants."""
    try:
        os.close(kernel_calls.open_userfaultfd())
    except OSError as error:
        raise InputError(
            f"{key}: this user may have no userfaultfd: {error.strerror}",
            hint="sudo sysctl vm.unprivileged_userfaultfd=1, or be root, or another way",
        ) from error


def demand_vhost() -> None:
    """Raise if this machine's kernel cannot serve a guest's NIC, or not for this user."""
    for path, module in _VHOST.items():
        try:
            netns.try_device(path)
        except OSError as error:
            raise InputError(
                f"guest.vhost: {path} cannot be opened: {error.strerror}",
                hint=f"sudo modprobe {module}, and be somebody who may open it; or use --nested",
            ) from error


def demand_zero_copy(channels: int) -> None:
    """Raise if this machine's kernel sends nothing without a copy, or lets QEMU pin too little memory for it.

    What is sent without a copy is pinned until it has left (mm_account_pinned_pages() in Linux's
    net/core/skbuff.c), against the limit of the user's; each of the ``channels`` sends a packet at a time.
    """
    key = "migration.capabilities.zero-copy-send"
    with socket.socket() as probe:
        try:
            probe.setsockopt(socket.SOL_SOCKET, _SO_ZEROCOPY, 1)
        except OSError as error:
            raise InputError(f"{key}: this kernel sends nothing without a copy: {error.strerror}") from error
    _, most = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    needed = channels * _MULTIFD_PACKET
    if most != resource.RLIM_INFINITY and most < needed:
        raise InputError(
            f"{key}: {needed >> 10} KiB of memory have to be locked; this user may lock {most >> 10}",
            hint="raise the limit (ulimit -l, or memlock in /etc/security/limits.conf)",
        )


def command_start() -> float:
    """When this command began, by the clock of :func:`time.monotonic`: a run is measured from there.

    Before the first line of Python, that is: loading it is a part of what a user waits for.
    """
    # After the name in parentheses, which may hold anything, starttime is the 20th field.
    ticks = int(Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19])
    started = ticks / os.sysconf("SC_CLK_TCK")
    return time.monotonic() - (time.clock_gettime(time.CLOCK_BOOTTIME) - started)
