# SPDX-License-Identifier: GPL-2.0-or-later
"""One guest whose init is a shell on its second serial port: for what no agent has a verb for.

    with ShellGuest.boot(setup, folder) as guest:
        guest.run("insmod /lib/modules/freepage_balloon.ko")
        guest.run("cat /proc/meminfo")

No driver of the balloon is loaded, unless the test does it.
"""

from __future__ import annotations

import re
import select
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from harness.errors import GuestLost
from harness.testing.agent_guest import PATIENCE, MigratingGuest, Setup
from harness.testing.plain_guest import PlainGuest, Software
from harness.toolchain import cpio

#: Sorts of trouble that a kernel says in its log; what a debug kernel finds is among them.
TROUBLE = re.compile(
    r"WARNING:|BUG:|Oops|KASAN|UBSAN|kmemleak: [0-9]+ new|unreferenced object|"
    r"possible recursive|possible circular|"
    r"inconsistent lock state|sleeping function|list_(?:add|del) corruption|Bad page|pagealloc|"
    r"INFO: task .* blocked|suspicious RCU|general protection|stack segment|Call Trace"
)

INIT = """\
#!/bin/sh
mount -t devtmpfs devtmpfs /dev
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /run
mount -t debugfs debugfs /sys/kernel/debug
while read -r name; do insmod /lib/modules/$name.ko; done < /etc/modules.list
exec < /dev/ttyS1 > /dev/ttyS1
stty raw -echo
echo ready
while read -r line; do
    eval "$line" 2>&1
    printf '\\n\\001%d\\n' $?
done
"""

#: In a guest's shell: what nobody points to any more, where the kernel looks for that (kmemleak).
#: It believes in a leak only when a second look finds the object as the first one did.
LEAKS = "k=/sys/kernel/debug/kmemleak; ! [ -e $k ] || { echo scan > $k && echo scan > $k && cat $k; }"

#: In a guest's shell: load a driver by its module's name.
LOAD = "insmod /lib/modules/{driver}.ko {parameters}"


class ShellCommandError(AssertionError):
    """A command in the guest has failed."""


class ShellGuest(MigratingGuest):
    """A running guest; see the module."""

    def __init__(self, plain: PlainGuest, port: socket.socket, record: Path) -> None:
        super().__init__(plain, record)
        self._port = port
        self._received = b""

    @classmethod
    @contextmanager
    def boot(cls, setup: Setup, results: Path) -> Iterator[ShellGuest]:
        """Boot it, and wait for its shell."""
        image = setup.toolchain.image(setup.kernel, setup.variant)
        initrd, record = results / "initrd", results / "record"
        with initrd.open("wb") as file:
            file.write(image.initrd.read_bytes())
            cpio.write_cpio(file, cpio.with_parents([cpio.file("/shell", INIT.encode(), 0o755)]))
        ours, theirs = socket.socketpair()
        with ours:
            cmdline = f"rdinit=/shell {setup.cmdline}"
            software = Software(setup.kernel.vmlinuz, initrd, cmdline)
            with PlainGuest.boot(setup.machine(record, theirs), software, results) as plain:
                theirs.close()
                guest = cls(plain, ours, record)
                guest._until(b"ready\n")
                yield guest
        initrd.unlink()

    def run(self, command: str, *, check: bool = True) -> str:
        """Run one line in the guest's shell; its output, both streams.  Raises if it fails."""
        assert "\n" not in command
        self._port.sendall(f"{command}\n".encode())
        output = self._until(b"\n\x01").decode("utf-8", "replace")
        status = int(self._until(b"\n"))
        if check and status:
            raise ShellCommandError(f"{command}: status {status}: {output}")
        return output.strip()

    def start(self, command: str) -> None:
        """Begin to run a line; :meth:`finish` waits for its end."""
        self._port.sendall(f"{command}\n".encode())

    def finish(self) -> str:
        """The output of what was started."""
        output = self._until(b"\n\x01").decode("utf-8", "replace")
        assert int(self._until(b"\n")) == 0, output
        return output.strip()

    def load(self, driver: str = "freepage_balloon", parameters: str = "") -> None:
        """Load a driver of the balloon."""
        self.run(LOAD.format(driver=driver, parameters=parameters))

    def unload(self, driver: str = "freepage_balloon") -> None:
        """And unload it."""
        self.run(f"rmmod {driver}")

    def read(self, name: str) -> str:
        """A file of the module's in debugfs."""
        return self.run(f"cat /sys/kernel/debug/freepage_balloon/{name}")

    def number(self, command: str) -> int:
        """What a command prints, as a number."""
        return int(self.run(command))

    def meminfo(self, name: str) -> int:
        """Bytes."""
        return self.number(f"awk '/^{name}:/ {{print $2}}' /proc/meminfo") * 1024

    def vmstat(self, name: str) -> int:
        """A counter of /proc/vmstat."""
        return self.number(f"awk '$1 == \"{name}\" {{print $2}}' /proc/vmstat")

    def trouble(self) -> Sequence[str]:
        """What the kernel has complained about so far, what it has lost included if it can tell."""
        lines = [*self.run("dmesg").splitlines(), *self.run(LEAKS).splitlines()]
        return [line for line in lines if TROUBLE.search(line)]

    def _until(self, mark: bytes) -> bytes:
        deadline = time.monotonic() + PATIENCE
        while mark not in self._received:
            ready, _, _ = select.select([self._port], [], [], max(0.0, deadline - time.monotonic()))
            data = self._port.recv(65536) if ready else b""
            if not data:
                why = "was gone" if ready else f"said nothing for {PATIENCE} s"
                tail = self._received[-300:]
                raise GuestLost(f"the guest {why}; last {tail!r}", last_lines=self.plain.last_lines())
            self._received += data
        before, _, self._received = self._received.partition(mark)
        return before
