# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest without a kernel that writes to the same few pages of each NUMA node for ever.

An operating system flushes the TLB many times a second, and so hides what a
migration under TCG forgets to reset in it.  This guest never does: no paging, no
interrupts, just a loop that counts in :data:`HOT` pages of each node.
"""

from __future__ import annotations

import shutil
import socket
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.events import Deadline, EventStream
from harness.migration.qmp import Monitor, MonitorLoop
from harness.migration.transcript import Transcript
from harness.toolchain import QemuBinary
from harness.units import PAGE_SIZE

MIB = 1 << 20
HOT = 64
#: Where in its node a node's hot pages begin; each node's have TLB slots of their own.
HOT_AT = (32 * MIB + 0x80 * PAGE_SIZE, 8 * MIB + 0x20 * PAGE_SIZE)
_LOAD = 1 * MIB


def image(nodes: Sequence[int]) -> bytes:
    """A multiboot kernel; ``nodes`` are their sizes in bytes."""
    begin = 0
    body = b"\x66\xba\xf8\x03\xb0R\xee\xb0\n\xee"  # "R\n" to the serial port: the loop begins
    loop = b""
    for size, at in zip(nodes, HOT_AT, strict=True):
        loop += b"\xbe" + struct.pack("<I", begin + at)  # mov esi, first page
        loop += b"\xb9" + struct.pack("<I", HOT)  # mov ecx, pages
        loop += b"\xff\x06\x81\xc6" + struct.pack("<I", PAGE_SIZE) + b"\xe2\xf6"  # inc [esi]; next; loop
        begin += size
    loop += b"\xeb" + struct.pack("<b", -len(loop) - 2)  # jmp to the beginning
    flags = 1 << 16  # addresses are in the header
    head = struct.pack("<III", 0x1BADB002, flags, -(0x1BADB002 + flags) & 0xFFFFFFFF)
    entry = _LOAD + 32
    return head + struct.pack("<IIIII", _LOAD, _LOAD, 0, 0, entry) + body + loop


@dataclass(frozen=True)
class Side:
    """One of the two QEMUs."""

    process: subprocess.Popen[bytes]
    monitor: Monitor
    memory: tuple[Path, ...]
    errors: Path

    def said(self) -> str:
        """What it wrote to its standard error."""
        return self.errors.read_text("utf-8", errors="replace")


@contextmanager
def pair(qemu: QemuBinary, nodes: Sequence[int], results: Path) -> Iterator[tuple[Side, Side]]:
    """The running guest, and a QEMU that waits for it (``unix:migration`` in its folder)."""
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="freepage-hot-", dir="/dev/shm"))
        stack.callback(shutil.rmtree, folder)
        (folder / "kernel").write_bytes(image(nodes))
        loop = stack.enter_context(MonitorLoop())
        sides = [
            _side(stack, loop, qemu, nodes, folder / name, results) for name in ("source", "destination")
        ]
        source, destination = sides
        assert source.process.stdout is not None
        assert source.process.stdout.readline().strip() == b"R", source.said()
        yield source, destination


def _side(
    stack: ExitStack,
    loop: MonitorLoop,
    qemu: QemuBinary,
    nodes: Sequence[int],
    folder: Path,
    results: Path,
) -> Side:
    folder.mkdir()
    name = folder.name
    command = ["setpriv", "--pdeathsig=KILL", "--", str(qemu.path)]
    for place in qemu.firmware:
        command += ["-L", str(place)]
    command += ["-accel", "tcg", "-machine", "pc", "-nodefaults", "-display", "none", "-no-reboot"]
    command += ["-smp", str(len(nodes)), "-m", f"{sum(nodes) // MIB}M", "-serial", "stdio"]
    memory = tuple(folder / f"node{number}" for number in range(len(nodes)))
    for number, (size, path) in enumerate(zip(nodes, memory, strict=True)):
        command += ["-object", f"memory-backend-file,id=m{number},size={size},mem-path={path},share=on"]
        command += ["-numa", f"node,nodeid={number},cpus={number},memdev=m{number}"]
    command += ["-kernel", str(folder.parent / "kernel")]
    if name == "destination":
        command += ["-S", "-incoming", "defer"]
    errors = results / f"{name}.stderr"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening, errors.open("wb") as stderr:
        path = folder / "monitor"
        listening.bind(str(path))
        listening.listen()
        chardev = f"socket,id=monitor,fd={listening.fileno()},server=on,wait=off"
        process = stack.enter_context(
            subprocess.Popen(
                [*command, "-chardev", chardev, "-mon", "chardev=monitor,mode=control"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                pass_fds=(listening.fileno(),),
            )
        )
    stack.callback(process.kill)
    transcript = stack.enter_context(Transcript(results / f"{name}.qmp.jsonl"))
    deadline = Deadline(60, "QEMU's monitor")
    monitor = Monitor.connect(loop, name, path, EventStream(), transcript, deadline)
    stack.callback(monitor.close)
    return Side(process, monitor, memory, errors)
