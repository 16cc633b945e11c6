# SPDX-License-Identifier: GPL-2.0-or-later
"""Beside QEMUs without the series: migration between them, both ways.

A guest that has negotiated the feature cannot go where there is none: the
destination's QEMU says which bit is missing, and the guest goes on.  Every other way is open.
With the property off, a patched QEMU's stream is a stock one's, byte for byte.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from harness.events import Deadline
from harness.memory.compare import compare
from harness.memory.image import RamImage
from harness.migration.qmp import Monitor
from harness.testing.agent_guest import PATIENCE, ModuleGuest, Setup
from harness.testing.plain_guest import MIB, PlainGuest, PlainMachine, Software
from harness.toolchain import QemuBinary, Toolchain
from tests.vm.support.stream import Stream, read_stream

MEMORY = 256 * MIB

#: A QEMU and what its device offers.
SIDES = ("info", "off", "stock")


def binary(toolchain: Toolchain, side: str) -> QemuBinary:
    return toolchain.qemu("stock" if side == "stock" else "patched")


def device(side: str) -> tuple[str, ...]:
    return ("free-page-info=on",) if side == "info" else ()


@contextmanager
def booted(toolchain: Toolchain, side: str, folder: Path) -> Iterator[ModuleGuest]:
    here = folder / "source"
    here.mkdir()
    qemu, kernel = binary(toolchain, side), toolchain.kernel()
    setup = Setup(toolchain, qemu, kernel, variant="shipped", memory=MEMORY, device=device(side))
    with ModuleGuest.boot(setup, here) as guest:
        guest.call("load", "freed", 1, 100 * MIB)
        yield guest


@contextmanager
def waiting(toolchain: Toolchain, side: str, folder: Path) -> Iterator[PlainGuest]:
    """A QEMU that waits for the guest, and stands still with it."""
    here = folder / "destination"
    here.mkdir()
    balloon = ",".join(["virtio-balloon-pci", "id=balloon", *device(side)])
    ports = ("-serial", "null", "-device", balloon, "-incoming", "defer")
    # A clock that stands still with the guest: else the time of day would be in the guest's state.
    machine = PlainMachine(binary(toolchain, side), MEMORY, more=("-S", "-rtc", "clock=vm", *ports))
    software = Software(toolchain.kernel().vmlinuz, toolchain.image(toolchain.kernel()).initrd)
    with PlainGuest.boot(machine, software, here) as there:
        yield there


def go(guest: ModuleGuest, there: PlainGuest) -> str:
    """Migrate; how it ended on the source."""
    path = there.folder / "migration"
    # A destination that fails stays, to be asked why.
    there.monitor.execute("migrate-incoming", {"uri": f"unix:{path}", "exit-on-error": False})
    on = [{"capability": "return-path", "state": True}]
    for monitor in (there.monitor, guest.monitor):
        monitor.execute("migrate-set-capabilities", {"capabilities": on})
    guest.monitor.execute("migrate", {"uri": f"unix:{path}"})
    return guest.wait_for_migration("completed", "failed")


def reason(monitor: Monitor) -> str:
    """What a user reads of a migration that failed."""
    answer = monitor.execute("query-migrate")
    assert isinstance(answer, Mapping)
    return str(answer.get("error-desc", ""))


@pytest.mark.parametrize(
    ("source", "destination"),
    [
        pytest.param("stock", "off", marks=pytest.mark.slow),
        ("stock", "info"),
        pytest.param("off", "stock", marks=pytest.mark.slow),
        pytest.param("off", "info", marks=pytest.mark.slow),
        ("info", "stock"),
        pytest.param("info", "off", marks=pytest.mark.slow),
    ],
)
def test_between_qemus(
    toolchain: Toolchain, folder: Path, capfd: pytest.CaptureFixture[str], source: str, destination: str
) -> None:
    with booted(toolchain, source, folder) as guest, waiting(toolchain, destination, folder) as there:
        outcome = go(guest, there)
        if source == "info":
            assert outcome == "failed"
            assert "load of migration failed" in reason(there.monitor)
            # The words that libvirt shows as well.  Bit 60 is what the destination cannot offer.
            said = capfd.readouterr().err
            (folder / "stderr").write_text(said, encoding="utf-8")
            features = re.search(r"Features 0x([0-9a-f]+) unsupported. Allowed features: 0x([0-9a-f]+)", said)
            assert features, said
            assert int(features[1], 16) >> 60 & 1
            assert not int(features[2], 16) >> 60 & 1
            # The guest goes on where it was, and is none the worse.
            assert guest.call("verify")["bad"] == 0
            return
        assert outcome == "completed", (reason(guest.monitor), reason(there.monitor))
        with (
            RamImage.open(guest.plain.folder / "m0", MEMORY) as ours,
            RamImage.open(there.folder / "m0", MEMORY) as theirs,
        ):
            found = compare(ours, theirs)
        assert found.differing.size == 0
        there.monitor.execute("cont")
        status = there.monitor.execute("query-status")
        assert isinstance(status, Mapping)
        assert status["running"]


def described(toolchain: Toolchain, side: str, machine: str, folder: Path) -> Any:
    """What a QEMU says of the state of every device that it has."""
    qemu = binary(toolchain, side)
    out = folder / f"{side}-{machine}.json"
    places = [word for place in qemu.firmware for word in ("-L", str(place))]
    subprocess.run([qemu.path, *places, "-nodefaults", "-machine", machine, "-dump-vmstate", out], check=True)
    return json.loads(out.read_text("utf-8"))


@pytest.mark.parametrize("machine", ["pc", "q35"])
def test_the_state_of_every_device_is_as_in_a_stock_qemu(
    toolchain: Toolchain, folder: Path, machine: str
) -> None:
    stock, patched = (described(toolchain, side, machine, folder) for side in ("stock", "off"))
    assert "virtio-balloon-device" in stock
    assert patched == stock


def wait_until_done(monitor: Monitor) -> str:
    """How a migration to or from a file has ended."""
    deadline = Deadline(PATIENCE, "a migration to or from a file")
    while True:
        answer = monitor.execute("query-migrate")
        assert isinstance(answer, Mapping)
        if answer.get("status") in ("completed", "failed"):
            return str(answer.get("error-desc", answer["status"]))
        deadline.check()


def saved_again(toolchain: Toolchain, side: str, folder: Path, state: Path) -> Stream:
    """What a QEMU writes that has been given this state, and has not let the guest run."""
    with waiting(toolchain, side, folder) as there:
        there.monitor.execute("migrate-incoming", {"uri": f"file:{state}", "exit-on-error": False})
        assert wait_until_done(there.monitor) == "completed"
        again = there.folder / "again"
        there.monitor.execute("migrate", {"uri": f"file:{again}"})
        assert wait_until_done(there.monitor) == "completed"
        return read_stream(again)


def test_the_stream_is_a_stock_qemus_byte_for_byte(toolchain: Toolchain, folder: Path) -> None:
    """One guest's state, loaded and saved by each QEMU; the guest's driver has used the balloon."""
    with booted(toolchain, "stock", folder) as guest:
        guest.monitor.execute("balloon", {"value": MEMORY - 64 * MIB})
        while guest.next_event("BALLOON_CHANGE").data["actual"] != MEMORY - 64 * MIB:
            pass
        guest.monitor.execute("stop")
        state = guest.plain.folder / "state"
        guest.monitor.execute("migrate", {"uri": f"file:{state}"})
        assert wait_until_done(guest.monitor) == "completed"
        streams = {}
        for side in SIDES:
            (folder / side).mkdir()
            streams[side] = saved_again(toolchain, side, folder / side, state)
    stock, patched = streams["stock"], streams["off"]
    assert patched.description == stock.description
    assert [key for key, section in patched.sections.items() if section != stock.sections[key]] == []
    # It would be noticed: with the property on, the device has one more queue.
    differ = [key for key, section in streams["info"].sections.items() if section != stock.sections[key]]
    assert [name.rpartition("/")[2] for name, _ in differ] == ["virtio-balloon"]
