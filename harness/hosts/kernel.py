# SPDX-License-Identifier: GPL-2.0-or-later
"""The few system calls that Python 3.11 does not have: unshare, mount, prctl, userfaultfd.

Thin on purpose: each wrapper raises ``OSError`` with the path it was about.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import struct
from enum import IntFlag
from pathlib import Path
from typing import Final

from harness.arch import HOST


class Namespace(IntFlag):
    """Flags of ``unshare(2)`` and ``setns(2)``."""

    MOUNT = 0x00020000
    UTS = 0x04000000
    IPC = 0x08000000
    USER = 0x10000000
    PID = 0x20000000
    NET = 0x40000000


class Mount(IntFlag):
    """Flags of ``mount(2)``."""

    NONE = 0
    NOSUID = 2
    NODEV = 4
    NOEXEC = 8
    BIND = 0x1000
    REC = 0x4000
    PRIVATE = 1 << 18


_MNT_DETACH: Final = 2
_PR_SET_PDEATHSIG: Final = 1
_SIOCGIFFLAGS: Final = 0x8913
_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP: Final = 1
_USERFAULTFD: Final = Path("/dev/userfaultfd")
_USERFAULTFD_IOC_NEW: Final = 0xAA00

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


def unshare(flags: Namespace) -> None:
    """Leave the named namespaces for new ones.

    Of the calling *thread*: a thread of a larger process may have mounts and
    network of its own.  (Not so a user namespace: there must be one thread.)
    """
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare")


def mount(
    source: str | Path, target: str | Path, kind: str = "", flags: Mount = Mount.NONE, data: str = ""
) -> None:
    """Mount; see ``mount(2)``."""
    result = _libc.mount(
        os.fsencode(source), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), data.encode()
    )
    _check(result, str(target))


def bind(source: str | Path, target: str | Path) -> None:
    """Make ``source``, with all that is mounted below it, appear at ``target``."""
    mount(source, target, flags=Mount.BIND | Mount.REC)


def unmount(target: str | Path) -> None:
    """Take a mount away, as soon as nobody uses it any more."""
    _check(_libc.umount2(os.fsencode(target), _MNT_DETACH), str(target))


def make_mounts_private() -> None:
    """From here on no mount of ours reaches anybody else, nor theirs us."""
    mount("none", "/", flags=Mount.PRIVATE | Mount.REC)


def die_with_parent() -> None:
    """Have the kernel send SIGKILL to this process when its parent *thread* ends.

    Cleared by every change of credentials, so call it again after one.  The
    parent may have ended before the call: check for that afterwards.
    """
    _check(_libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0), "prctl")


def bring_loopback_up() -> None:
    """Switch on ``lo`` of the calling thread's network namespace."""
    # An ioctl rather than netlink: this runs before anything is imported that speaks it.
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh22x", b"lo", 0)
        flags = struct.unpack("16sh22x", fcntl.ioctl(control, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", flags | _IFF_UP))


def open_userfaultfd() -> int:
    """A userfaultfd that sees the kernel's own accesses too, which is what QEMU needs of one.

    By the device or, where that may not be opened, by the system call: in QEMU's order
    (``uffd_open()`` in its util/userfaultfd.c).  The caller closes it.
    """
    flags = os.O_CLOEXEC | os.O_NONBLOCK
    try:
        device = os.open(_USERFAULTFD, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        made: int = _libc.syscall(ctypes.c_long(HOST.system_calls.userfaultfd), ctypes.c_int(flags))
        _check(made, "userfaultfd")
        return made
    try:
        return fcntl.ioctl(device, _USERFAULTFD_IOC_NEW, flags)
    finally:
        os.close(device)
