# SPDX-License-Identifier: GPL-2.0-or-later
"""What this machine is and has, as facts; whether that will do is for the harness to say."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import pwd
import select
import shutil
import socket
import struct
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import Any

_START_SECONDS = 20.0
#: struct ucred: process, user, group.
_CREDENTIALS = struct.Struct("=iII")
#: Below these, in this order, there may be room for a run: on a disk, and where programs may be started.
_PARENTS = ("/var/tmp", "/tmp", "/run", "~")  # noqa: S108 - a fresh folder is made in one of them


@dataclass
class DaemonPlaces:
    """Where a libvirt daemon, the system's or this user's, keeps things."""

    sockets: list[str]
    logs: str
    states: str
    capabilities: str


def places(session: bool) -> DaemonPlaces:
    """The places of the system's daemon, or of this user's own."""
    if not session:
        run = "/run/libvirt"
        sockets = [f"{run}/virtqemud-sock", f"{run}/libvirt-sock"]
        return DaemonPlaces(
            sockets, "/var/log/libvirt/qemu", f"{run}/qemu", "/var/cache/libvirt/qemu/capabilities"
        )
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    run = (os.environ.get("XDG_RUNTIME_DIR") or cache) + "/libvirt"
    sockets = [f"{run}/virtqemud-sock", f"{run}/libvirt-sock"]
    qemu = f"{cache}/libvirt/qemu"
    return DaemonPlaces(sockets, f"{qemu}/log", f"{run}/qemu/run", f"{qemu}/cache/capabilities")


def capability_file(where: DaemonPlaces, emulator: str) -> str:
    """Where libvirt keeps what it has learnt about this emulator."""
    return f"{where.capabilities}/{hashlib.sha256(emulator.encode()).hexdigest()}.xml"


def try_socket(path: str) -> str:
    """Why a libvirt socket cannot be connected to; empty if it can."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        try:
            client.connect(path)
        except OSError as error:
            return error.strerror or str(error)
    return ""


def greet(folder: str) -> str:
    """Listen for one client, and speak first: whoever hears it has come through."""
    path = f"{folder}/greeter.sock"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(1)

    def serve() -> None:
        with listener, listener.accept()[0] as client:
            client.sendall(b"!")

    threading.Thread(target=serve, daemon=True).start()
    return path


def start_session(where: DaemonPlaces) -> tuple[int, str]:
    """Start this user's own daemon: process and name; 0 and "" if there is none, or it does not start."""
    search = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
    for name in ("virtqemud", "libvirtd"):
        program = shutil.which(name, path=search)
        if program is not None:
            # It goes into the background once it listens, and not before.
            process = subprocess.Popen(
                [program, "--daemon", "--timeout=120"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            if not _ends(process.pid, _START_SECONDS):
                process.kill()
            if process.wait() != 0:
                return 0, ""
            pid = next(filter(None, map(_listener, where.sockets)), 0)
            return (pid, name) if pid else (0, "")
    return 0, ""


def _ends(pid: int, seconds: float) -> bool:
    """Whether a child of ours ends within some time."""
    descriptor = os.pidfd_open(pid)
    try:
        return bool(select.select([descriptor], [], [], seconds)[0])
    finally:
        os.close(descriptor)


def _listener(path: str) -> int:
    """The process that listens on a socket; 0 if nobody does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        try:
            client.connect(path)
        except OSError:
            return 0
        said = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        return int(_CREDENTIALS.unpack(said)[0])


def facts(session: bool) -> dict[str, Any]:
    """Everything that the harness asks about before it starts anything."""
    where = places(session)
    return {
        "python": ".".join(map(str, sys.version_info[:3])),
        "arch": platform.machine(),
        "kernel": platform.release(),
        "node": platform.node(),
        "uid": os.geteuid(),
        "user": pwd.getpwuid(os.geteuid()).pw_name,
        "cpus": len(os.sched_getaffinity(0)),
        "memory_available": memory_available(),
        "sockets": {path: try_socket(path) for path in where.sockets},
        "parents": [room for room in map(_room, _PARENTS) if room is not None],
        "numpy": _numpy(),
        "kvm": _kvm(),
    }


def memory_available() -> int:
    """Bytes that this machine can give to guests now."""
    with open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 0


def _room(path: str) -> dict[str, Any] | None:
    path = os.path.expanduser(path)
    try:
        state = os.statvfs(path)
    except OSError:
        return None
    return {
        "path": os.path.realpath(path),
        "writable": os.access(path, os.W_OK | os.X_OK),
        "programs": not state.f_flag & os.ST_NOEXEC,
        "free": state.f_bavail * state.f_frsize,
    }


def _numpy() -> str:
    with contextlib.suppress(ImportError):
        import numpy

        return str(numpy.__version__)
    return ""


def _kvm() -> str:
    """Why /dev/kvm cannot even be opened; empty if it can."""
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"/dev/kvm cannot be opened: {error.strerror}"
    return ""
