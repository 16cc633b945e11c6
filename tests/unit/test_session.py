# SPDX-License-Identifier: GPL-2.0-or-later
"""The parts of a run that need no guest."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import numpy as np
import pytest

from harness.errors import InputError, MachineryError
from harness.events import EventStream
from harness.hosts import kernel, this_machine
from harness.hosts.lab_qemu import LabQemu
from harness.hosts.qemu_log import last_words, logged_command
from harness.hosts.this_machine import command_start, demand_userfaultfd, demand_vhost, memory_available
from harness.memory.image import RamImage
from harness.memory.qemu_ram import backings
from harness.migration.hold import HoldKeeper
from harness.migration.statistics import RamBlock
from harness.plan.plan import Tools
from harness.plan.prepare import load_with_tools

LOG = """\
2026-01-01 00:00:00.000+0000: starting up libvirt version: 9.0.0, qemu version: 10.0.0, kernel: 6.1
LC_ALL=C \\
PATH=/nothing \\
XDG_CACHE_HOME=/x/.cache \\
/opt/first/qemu -name guest=old
2026-01-01 00:00:01.000+0000: shutting down, reason=failed
LC_ALL=C \\
PATH=/nothing \\
/opt/second/qemu \\
-name guest=guest,debug-threads=on \\
-append 'console=ttyS0 a=b'
2026-01-01 00:00:02.000+0000: Domain id=1 is tainted: custom-argv
qemu: something terrible
"""


def test_qemus_command_and_last_words_are_found_in_libvirts_log(tmp_path: Path) -> None:
    log = tmp_path / "guest.log"
    log.write_text(LOG)
    command = ("/opt/second/qemu", "-name", "guest=guest,debug-threads=on", "-append", "console=ttyS0 a=b")
    assert logged_command(log) == command
    assert last_words(log) == ("qemu: something terrible",)


def test_no_log_no_words(tmp_path: Path) -> None:
    assert logged_command(tmp_path / "none") == ()
    assert last_words(tmp_path / "none") == ()


def test_a_kernel_named_on_the_command_line_wins() -> None:
    scenario, tools = load_with_tools("idle", ["guest.kernel=/boot/one"], Tools(kernel="/boot/two"))
    assert (scenario.guest.kernel, tools.kernel) == ("/boot/two", "/boot/two")
    scenario, tools = load_with_tools("idle", ["guest.kernel=/boot/one"], Tools())
    assert tools.kernel == "/boot/one"
    scenario, tools = load_with_tools("idle", [], Tools())
    assert tools.kernel is None


def test_postcopy_is_refused_where_qemu_could_not_do_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> int:
        raise PermissionError(errno.EPERM, "Operation not permitted", "userfaultfd")

    monkeypatch.setattr(kernel, "open_userfaultfd", refused)
    with pytest.raises(InputError, match=r"migration\.postcopy.*Operation not permitted") as caught:
        demand_userfaultfd()
    assert "vm.unprivileged_userfaultfd" in str(caught.value.hint)
    # What is opened to ask is closed again.
    reading, writing = os.pipe()
    monkeypatch.setattr(kernel, "open_userfaultfd", lambda: reading)
    demand_userfaultfd()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(reading)
    os.close(writing)


def test_vhost_is_refused_where_it_cannot_be_opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    device = tmp_path / "vhost-net"
    monkeypatch.setattr(this_machine, "_VHOST", {device: "vhost_net"})
    with pytest.raises(InputError, match=r"guest\.vhost.*No such file") as caught:
        demand_vhost()
    assert "modprobe vhost_net" in str(caught.value.hint)
    device.touch()
    demand_vhost()


@pytest.mark.skipif(os.geteuid() != 0, reason="who may have one otherwise is the machine's affair")
def test_root_may_have_a_userfaultfd() -> None:
    made = kernel.open_userfaultfd()
    assert os.readlink(f"/proc/self/fd/{made}") == "anon_inode:[userfaultfd]"
    os.close(made)


def test_tools_are_named_again_for_the_replay(tmp_path: Path) -> None:
    tools = Tools(source_qemu=str(tmp_path / "a"), kernel="debug")
    assert tools.options() == ["--source-qemu", str(tmp_path / "a"), "--kernel", "debug"]


def test_a_run_is_measured_from_its_process_start() -> None:
    assert 0 < time.monotonic() - command_start() < 3600
    assert memory_available() > 0


def own_mapping(path: Path) -> tuple[int, int]:
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith(f" {path}"):
            start, end = line.split()[0].split("-")
            return int(start, 16), int(end, 16) - int(start, 16)
    raise AssertionError("not mapped")


def test_blocks_in_files_are_told_from_others(tmp_path: Path) -> None:
    """This process stands in for a QEMU: one block is a file that it has mapped, one is not."""
    import mmap

    file = tmp_path / "deep" / "pc.ram"
    file.parent.mkdir()
    file.write_bytes(bytes(1 << 16))
    anonymous = np.arange(1024, dtype=np.uint64)
    with file.open("r+b") as opened, mmap.mmap(opened.fileno(), 0):
        address, size = own_mapping(file)
        ram = RamBlock("pc.ram", size, size, address)
        rom = RamBlock("pc.rom", anonymous.nbytes, anonymous.nbytes, anonymous.ctypes.data)
        # Half of a file is no image of a block.
        shifted = RamBlock("other", size // 2, size // 2, address + size // 2)
        found = backings(os.getpid(), [ram, rom, shifted], tmp_path)
    assert [(backing.block.name, backing.path) for backing in found] == [("pc.ram", file)]
    copy = LabQemu(os.getpid(), tmp_path).copy([rom])["pc.rom"]
    assert not isinstance(copy, OSError)
    assert b"".join(copy.page(number) for number in range(copy.pages)) == anonymous.tobytes()
    copy.close()


@pytest.mark.parametrize("private", [False, True])
def test_a_file_of_both_hosts_is_known_by_its_path(tmp_path: Path, private: bool) -> None:
    """Outside of the host's own folder; what is mapped privately is no image of the memory."""
    import mmap

    file = tmp_path / "shared"
    file.write_bytes(bytes(1 << 16))
    (tmp_path / "own").mkdir()
    flags = mmap.MAP_PRIVATE if private else mmap.MAP_SHARED
    with file.open("r+b") as opened, mmap.mmap(opened.fileno(), 0, flags=flags):
        address, size = own_mapping(file)
        block = RamBlock("shared", size, size, address)
        found = [backing.path for backing in backings(os.getpid(), [block], tmp_path / "own")]
    assert found == ([] if private else [file])


@pytest.mark.parametrize("open_too", [False, True])
def test_shared_memory_without_a_name_is_a_file_all_the_same(tmp_path: Path, open_too: bool) -> None:
    """Anonymous and shared, as QEMU makes it before 10.0, and a file whose name is gone, as it does since."""
    import mmap

    file = tmp_path / "gone"
    file.write_bytes(bytes(1 << 20))
    with file.open("r+b") as opened:
        descriptor = opened.fileno() if open_too else -1
        file.unlink()
        with mmap.mmap(descriptor, 1 << 20) as memory:
            array = np.frombuffer(memory, dtype=np.uint8)
            block = RamBlock("pc.ram", 1 << 20, 1 << 20, array.ctypes.data)
            memory[4096:4100] = b"here"
            found = backings(os.getpid(), [block], tmp_path)
            if not found and os.geteuid():
                pytest.skip("the kernel leads only root to such a file")
            [backing] = found
            with backing.path.open("rb") as seen:
                seen.seek(backing.base + 4096)
                assert seen.read(4) == b"here"
            del array


def test_a_block_that_cannot_be_read_is_an_error_of_its_own() -> None:
    nowhere = RamBlock("pc.rom", 4096, 4096, 4096)
    assert isinstance(LabQemu(os.getpid(), Path()).copy([nowhere])["pc.rom"], OSError)


class FakeMonitor:
    side = "source"

    def __init__(self, status: str = "active") -> None:
        self.said: list[str] = []
        self.status = status

    def execute(self, command: str, arguments: object = None) -> object:
        self.said.append(command)
        if command == "qom-list":
            return [{"name": "balloon0", "type": "child<virtio-balloon-pci>"}]
        assert command != "qom-set" or arguments == {
            "path": "/machine/peripheral/balloon0/virtio-backend",
            "property": "x-free-page-info-release",
            "value": True,
        }
        return {"status": self.status} if command == "query-migrate" else {}


def test_a_hold_takes_digests_and_lets_the_guest_go_on(tmp_path: Path) -> None:
    (tmp_path / "ram").write_bytes(b"\1" * 4096 + bytes(4096))
    monitor = FakeMonitor()
    with RamImage.open(tmp_path / "ram", 8192) as image:
        keeper = HoldKeeper(monitor, {"pc.ram": image}, EventStream())  # type: ignore[arg-type]
        keeper.handle({"id": 5, "point": "request"})
        keeper.handle({"id": 5, "point": "answer"})
    assert monitor.said == ["query-migrate", "cont"] * 2
    assert keeper.requests.requests == (5,)
    taken = keeper.requests.at(5)
    assert taken is not None
    firsts, digests = taken["pc.ram"].marks(np.array([0, 1]))
    assert firsts.tolist() == [0x0101010101010101, 0]
    assert digests.tolist() == [taken["pc.ram"].digest(b"\1" * 4096), taken["pc.ram"].digest(bytes(4096))]
    assert keeper.unchanged[5]["pc.ram"].all()
    assert keeper.looks == {}
    assert keeper.requests.zero_at(5)["pc.ram"].tolist() == [False, True]
    assert [hold.point for hold in keeper.holds] == ["request", "answer"]
    assert keeper.seconds >= 0


def test_an_applied_answers_hold_is_released_at_the_device() -> None:
    """There the VM runs: ``cont`` would say nothing to the migration that stands still."""
    monitor = FakeMonitor()
    HoldKeeper(monitor, {}, EventStream()).handle({"id": 5, "point": "applied"})  # type: ignore[arg-type]
    assert monitor.said == ["qom-list", "qom-set"]


def test_a_hold_that_fails_still_lets_the_guest_go_on(tmp_path: Path) -> None:
    (tmp_path / "ram").write_bytes(bytes(8192))
    monitor = FakeMonitor()
    with RamImage.open(tmp_path / "ram", 8192) as image:
        os.truncate(tmp_path / "ram", 0)
        (tmp_path / "ram").write_bytes(b"\1" * 100)
        keeper = HoldKeeper(monitor, {"pc.ram": image}, EventStream())  # type: ignore[arg-type]
        with pytest.raises(MachineryError):
            keeper.handle({"id": 5, "point": "request"})
    assert monitor.said == ["query-migrate", "cont"]


@pytest.mark.parametrize("data", [{}, {"id": "5", "point": "request"}, {"id": 5, "point": "lunch"}])
def test_a_hold_that_makes_no_sense(data: dict[str, object]) -> None:
    keeper = HoldKeeper(FakeMonitor(), {}, EventStream())  # type: ignore[arg-type]
    with pytest.raises(MachineryError, match="does not say"):
        keeper.handle(data)


@pytest.mark.parametrize("status", ["pre-switchover", "device", "completed"])
def test_a_source_that_the_guest_has_left_is_never_resumed(status: str) -> None:
    monitor = FakeMonitor(status)
    keeper = HoldKeeper(monitor, {}, EventStream())  # type: ignore[arg-type]
    with pytest.raises(MachineryError, match="did not hold"):
        keeper.handle({"id": 5, "point": "answer"})
    assert "cont" not in monitor.said
