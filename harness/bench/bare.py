# SPDX-License-Identifier: GPL-2.0-or-later
"""The floor: two QEMUs and a migration, driven over QMP by as little as it takes.

    python -I harness/bench/bare.py QEMU FIRMWARE KERNEL INITRD MEMORY ARM

QEMU, kernel, image, devices and migration are those of ``freepage run idle``.
There is no libvirt, no lab, no oracle and no check of anything, and no library but
Python's own.  Prints one JSON object: seconds from the process's start to each mark.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

KERNEL_WORDS = "console=ttyS0 panic=-1 no_timer_check"
DRIVERS = {"off": "info", "info": "info", "hint": "stock"}
PROPERTIES = {
    "off": [],
    "info": ["-global", "virtio-balloon-device.free-page-info=on"],
    "hint": [
        *("-object", "iothread,id=hint"),
        *("-global", "virtio-balloon-device.iothread=hint"),
        *("-global", "virtio-balloon-device.free-page-hint=on"),
    ],
}


def age() -> float:
    """Seconds since this process was started."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


class _Side:
    """One QEMU, its monitor and its control port."""

    def __init__(self, name: str, folder: Path, command: list[str]) -> None:
        self._sockets = {}
        for port in ("monitor", "control"):
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(folder / f"{name}.{port}"))
            listener.listen(1)
            self._sockets[port] = listener
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        self._connection, self.monitor = self._accept("monitor")
        _, self.control = self._accept("control")
        self.monitor.readline()
        self.execute("qmp_capabilities")

    def __enter__(self) -> _Side:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def _accept(self, port: str) -> tuple[socket.socket, Any]:
        connection, _ = self._sockets[port].accept()
        return connection, connection.makefile("rb")

    def execute(self, command: str, **arguments: object) -> Any:
        """One command; its answer, past all events."""
        words = {key.replace("_", "-"): value for key, value in arguments.items()}
        self._connection.sendall(json.dumps({"execute": command, "arguments": words}).encode() + b"\n")
        while "return" not in (message := json.loads(self.monitor.readline())):
            if "error" in message:
                raise RuntimeError(message["error"])
        return message["return"]

    def wait_for(self, status: str) -> None:
        """Read on until the migration has this status."""
        while line := self.monitor.readline():
            message = json.loads(line)
            if message.get("event") == "MIGRATION" and message["data"]["status"] == status:
                return
        raise RuntimeError("QEMU has ended")


def command(
    name: str, folder: Path, qemu: str, firmware: str, kernel: str, initrd: str, memory: str, arm: str
) -> list[str]:
    """QEMU's command line, like libvirt's as far as the guest and the migration can tell."""
    ram = f"memory-backend-file,id=pc.ram,size={memory},mem-path={folder}/{name}.ram,share=on"
    return [
        *(qemu, "-L", firmware, "-accel", "tcg", "-cpu", "qemu64,rdrand=on,rdseed=on"),
        *("-machine", "pc,memory-backend=pc.ram,usb=off", "-object", ram, "-m", memory),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-kernel", kernel, "-initrd", initrd),
        *(
            "-append",
            f"{KERNEL_WORDS} freepage.driver={DRIVERS[arm]} freepage.ip=10.77.0.10/24",
        ),
        *("-chardev", f"file,id=console,path={folder}/{name}.log", "-serial", "chardev:console"),
        *("-chardev", f"socket,id=control,path={folder}/{name}.control", "-serial", "chardev:control"),
        *(
            "-chardev",
            f"socket,id=monitor,path={folder}/{name}.monitor",
            "-mon",
            "chardev=monitor,mode=control",
        ),
        *("-netdev", "hubport,id=net,hubid=0", "-device", "virtio-net-pci,netdev=net,romfile="),
        *("-device", "virtio-balloon-pci", "-device", "vmcoreinfo"),
        *PROPERTIES[arm],
        *(("-incoming", "defer") if name == "destination" else ()),
    ]


def main(*what: str) -> None:
    """Boot, migrate, print."""
    marks = {"loaded": age()}
    with contextlib.ExitStack() as stack:
        # /dev/shm: where the lab has its RAM files is memory as well.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm")))
        source = stack.enter_context(_Side("source", folder, command("source", folder, *what)))
        destination = stack.enter_context(_Side("destination", folder, command("destination", folder, *what)))
        marks["started"] = age()
        source.control.readline()
        marks["ready"] = age()
        for side in (source, destination):
            side.execute("migrate-set-capabilities", capabilities=[{"capability": "events", "state": True}])
        source.execute("migrate-set-parameters", max_bandwidth=1 << 40)
        uri = f"unix:{folder}/migration"
        destination.execute("migrate-incoming", uri=uri)
        source.execute("migrate", uri=uri)
        source.wait_for("completed")
        marks["migrated"] = age()
        numbers = source.execute("query-migrate")
    numbers = {"migration_ms": numbers["total-time"], "sent": numbers["ram"]["transferred"]}
    print(json.dumps({**marks, **numbers}))  # noqa: T201 - this is the program's output


if __name__ == "__main__":
    main(*sys.argv[1:])
