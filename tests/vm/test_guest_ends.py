# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that ends in mid-request, and takes the answer with it: the migration waits for nobody.

The machine stays, as libvirt has it (``-no-shutdown``), and is migrated as it is.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.memory.compare import compare
from harness.memory.image import RamImage
from harness.testing.agent_guest import Setup
from harness.testing.plain_guest import MIB, PlainGuest, PlainMachine, Software
from harness.testing.shell_guest import ShellGuest
from harness.toolchain import Toolchain

MEMORY = 256 * MIB
TEST = "/sys/kernel/debug/freepage_balloon/test"

#: How, and the command.
ENDS = {"poweroff": "busybox poweroff -f", "panic": "echo c > /proc/sysrq-trigger"}


@pytest.mark.parametrize("how", ENDS)
def test_a_guest_that_ends_in_mid_request(folder: Path, how: str) -> None:
    toolchain = Toolchain()
    kernel, qemu = toolchain.kernel(), toolchain.qemu()
    setup = Setup(toolchain, qemu, kernel, memory=MEMORY, more=("-no-shutdown",))
    device = "virtio-balloon-pci,id=balloon,free-page-info=on"
    machine = PlainMachine(
        qemu, MEMORY, more=("-S", "-serial", "null", "-device", device, "-incoming", "defer")
    )
    software = Software(kernel.vmlinuz, toolchain.image(kernel).initrd)
    places = folder / "source", folder / "destination"
    for place in places:
        place.mkdir()
    with (
        ShellGuest.boot(setup, places[0]) as guest,
        PlainGuest.boot(machine, software, places[1]) as there,
    ):
        guest.load()
        guest.run(f"echo before-walk > {TEST}/hold")
        uri = f"unix:{there.folder}/migration"
        there.monitor.execute("migrate-incoming", {"uri": uri})
        guest.set_bandwidth(1 << 18)
        guest.monitor.execute("migrate", {"uri": uri})
        # The module has the request, and stands before its walk.
        guest.run(f"until busybox grep -q before-walk {TEST}/held/before-walk; do :; done")
        guest.start(ENDS[how])
        guest.next_event("SHUTDOWN")
        assert guest.status() == "shutdown"
        guest.set_bandwidth(0)
        assert guest.wait_for_migration("completed", "failed") == "completed"
        (migration,) = guest.record()
        assert len(migration.requests) == 1
        assert not migration.accepts
        # Nothing was left behind: both memories are the same, whole.
        with (
            RamImage.open(guest.plain.folder / "m0", MEMORY) as ours,
            RamImage.open(there.folder / "m0", MEMORY) as theirs,
        ):
            assert compare(ours, theirs).differing.size == 0
