# SPDX-License-Identifier: GPL-2.0-or-later
"""Migrations of which free page info keeps out, and in which words it says so over QMP.

One QEMU, with a guest that answers; the migrations lead to a file, to nowhere,
or into a second QEMU.  docs/modes.md lists what is seen here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.memory.compare import compare
from harness.memory.image import RamImage
from harness.migration.cleanup import await_cleanup
from harness.migration.device import read_counters
from harness.migration.qmp import CommandError, Monitor
from harness.testing.agent_guest import ModuleGuest, Setup
from harness.testing.plain_guest import MIB, PlainGuest, PlainMachine, Software
from harness.toolchain import QemuBinary, Toolchain
from harness.toolchain.variant import WITH_COLO

DEVICE = "/machine/peripheral/balloon/virtio-backend"
MEMORY = 256 * MIB


@pytest.fixture(scope="module")
def guest(toolchain: Toolchain, qemu: QemuBinary, results: Path) -> Iterator[ModuleGuest]:
    folder = results / "refusals"
    folder.mkdir()
    setup = Setup(toolchain, qemu, toolchain.kernel(), variant="shipped", memory=MEMORY)
    with ModuleGuest.boot(setup, folder) as guest:
        # Free, and not zero: what is left behind must be missed if it were not.
        guest.call("load", "freed", 1, 100 * MIB)
        yield guest


def capabilities(monitor: Monitor, *names: str, state: bool = True) -> None:
    wanted = [{"capability": name, "state": state} for name in names]
    monitor.execute("migrate-set-capabilities", {"capabilities": wanted})


@pytest.fixture(autouse=True)
def as_before(guest: ModuleGuest) -> Iterator[None]:
    yield
    answer = guest.monitor.execute("query-migrate-capabilities")
    assert isinstance(answer, list)
    known = {entry["capability"]: entry["state"] for entry in answer}
    for name in ("postcopy-ram", "background-snapshot", "mapped-ram", "x-ignore-shared"):
        if known.get(name):
            capabilities(guest.monitor, name, state=False)


def counters(guest: ModuleGuest) -> Mapping[str, Any]:
    return read_counters(guest.monitor, DEVICE)


def migrate(guest: ModuleGuest, uri: str) -> None:
    """To the end, and the guest goes on."""
    guest.monitor.execute("migrate-set-parameters", {"max-bandwidth": 0})
    # QEMU takes no other before it has cleaned up after the last one.
    await_cleanup(guest.monitor)
    guest.monitor.execute("migrate", {"uri": uri})
    assert guest.wait_for_migration("completed", "failed") == "completed"


@pytest.fixture
def scratch(guest: ModuleGuest) -> Path:
    """For files as large as the guest: in memory, and gone with it."""
    return guest.plain.folder


def test_a_background_snapshot_has_no_dirty_log(guest: ModuleGuest) -> None:
    """Where the host's kernel can do it; else QEMU says so itself."""
    before = counters(guest)
    try:
        capabilities(guest.monitor, "background-snapshot")
        migrate(guest, "exec:cat > /dev/null")
    except CommandError as error:
        assert "Background-snapshot" in error.message
    else:
        assert "background-snapshot is enabled: it has no dirty log" in counters(guest)["refused"]
    assert counters(guest)["requests"] == before["requests"]


def test_colo_is_refused(guest: ModuleGuest) -> None:
    """By QEMU, which is built without it."""
    with pytest.raises(CommandError, match="COLO"):
        capabilities(guest.monitor, "x-colo")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_with_colo_nothing_is_asked(toolchain: Toolchain, folder: Path) -> None:
    """A QEMU that has it, of a build of its own: the first time, that takes minutes."""
    qemu = toolchain.qemu(variant=WITH_COLO)
    setup = Setup(toolchain, qemu, toolchain.kernel(), variant="shipped", memory=MEMORY)
    with ModuleGuest.boot(setup, folder) as guest:
        capabilities(guest.monitor, "x-colo")
        guest.begin_migration()
        guest.wait_for_migration("active")
        now = counters(guest)
        assert now["refused"] == "x-colo is enabled: the secondary needs every page"
        assert now["requests"] == 0
        guest.monitor.execute("migrate_cancel")
        guest.wait_for_migration("cancelled")
        # Only that one.
        capabilities(guest.monitor, "x-colo", state=False)
        guest.migrate()
        assert counters(guest)["requests"] > 0


def test_a_migration_that_hands_memory_over_asks_nothing(guest: ModuleGuest, scratch: Path) -> None:
    """CPR: QEMU stops the guest before it begins."""
    before = counters(guest)
    guest.monitor.execute("migrate-set-parameters", {"mode": "cpr-reboot"})
    migrate(guest, f"file:{scratch}/state")
    guest.monitor.execute("migrate-set-parameters", {"mode": "normal"})
    guest.go_on()
    now = counters(guest)
    assert now["refused"] == "the migration mode is not normal: memory is handed over, not sent"
    assert now["requests"] == before["requests"]
    assert guest.call("verify")["bad"] == 0


def images(guest: ModuleGuest | PlainGuest) -> RamImage:
    plain = guest.plain if isinstance(guest, ModuleGuest) else guest
    return RamImage.open(plain.folder / "m0", MEMORY, "m0")


def loader(
    toolchain: Toolchain, qemu: QemuBinary, *more: str, device: Sequence[str] = ("free-page-info=on",)
) -> tuple[PlainMachine, Software]:
    """A QEMU that waits for a migration; what it would boot is the same."""
    balloon = ",".join(["virtio-balloon-pci", "id=balloon", *device])
    image = toolchain.image(toolchain.kernel(), "shipped")
    ports = ("-serial", "null", "-device", balloon, "-incoming", "defer")
    machine = PlainMachine(qemu, MEMORY, more=("-S", *ports, *more))
    return machine, Software(toolchain.kernel().vmlinuz, image.initrd, "freepage.driver=info")


def test_what_mapped_ram_leaves_out_is_zero(
    guest: ModuleGuest, toolchain: Toolchain, qemu: QemuBinary, folder: Path, scratch: Path
) -> None:
    """Of a guest that runs: what is free need not be in the file, and must not be stale on load."""
    before = counters(guest)["skipped"]
    capabilities(guest.monitor, "mapped-ram")
    migrate(guest, f"file:{scratch}/state")
    machine, software = loader(toolchain, qemu)
    with PlainGuest.boot(machine, software, folder) as loaded, images(guest) as saved:
        capabilities(loaded.monitor, "mapped-ram", "events")
        loaded.monitor.execute("migrate-incoming", {"uri": f"file:{scratch}/state"})
        wait_until_loaded(loaded.monitor)
        with images(loaded) as there:
            found = compare(saved, there)
            assert not any(there.read(page, 1).any() for page in found.differing.tolist())
    # As fast as a file is written, few pages are left by the time the guest has answered, or none.
    assert found.differing.size <= counters(guest)["skipped"] - before
    guest.go_on()


def wait_until_loaded(monitor: Monitor) -> str:
    """What an incoming migration has come to."""
    while True:
        answer = monitor.execute("query-migrate")
        assert isinstance(answer, Mapping)
        if answer.get("status") in ("completed", "failed"):
            return str(answer.get("error-desc", answer["status"]))


def test_a_snapshot_is_whole(guest: ModuleGuest, scratch: Path) -> None:
    """savevm stops the guest first, so nothing is asked; loadvm brings every page back."""
    monitor = guest.monitor
    disk = scratch / "disk.qcow2"
    for job, what in (
        ("file", {"driver": "file", "filename": str(disk), "size": 0}),
        ("format", {"driver": "qcow2", "file": "store", "size": 2 * MEMORY}),
    ):
        monitor.execute("blockdev-create", {"job-id": job, "options": what})
        finish(guest, job)
        if job == "file":
            monitor.execute("blockdev-add", {"driver": "file", "node-name": "store", "filename": str(disk)})
    monitor.execute("blockdev-add", {"driver": "qcow2", "node-name": "disk", "file": "store"})
    before = counters(guest)
    where = {"tag": "one", "vmstate": "disk", "devices": ["disk"]}
    monitor.execute("stop")
    with images(guest) as image:
        saved = np.concatenate([words.copy() for _, words in image.blocks()])
        monitor.execute("snapshot-save", {"job-id": "save", **where})
        finish(guest, "save")
        assert counters(guest)["requests"] == before["requests"]
        monitor.execute("cont")
        # Memory that the snapshot has free is in use, and the other way round.
        guest.call("load", "freed", 2, 100 * MIB)
        monitor.execute("stop")
        monitor.execute("snapshot-load", {"job-id": "load", **where})
        finish(guest, "load")
        loaded = np.concatenate([words.copy() for _, words in image.blocks()])
    assert np.array_equal(saved, loaded)
    monitor.execute("cont")
    # The agent of the snapshot knows nothing of the calls that came after it.
    assert guest.call("verify")["bad"] == 0
    with guest.migration():
        pass
    assert counters(guest)["requests"] > before["requests"]


def finish(guest: ModuleGuest, job: str) -> None:
    """Wait until a block job is over, and see that it went well."""
    while True:
        event = guest.next_event("JOB_STATUS_CHANGE")
        if event.data["id"] == job and event.data["status"] == "concluded":
            break
    jobs = guest.monitor.execute("query-jobs")
    assert isinstance(jobs, list)
    (found,) = [entry for entry in jobs if entry["id"] == job]
    assert "error" not in found, found
    guest.monitor.execute("job-dismiss", {"id": job})


def test_blocks_that_are_shared_are_none_of_ours(guest: ModuleGuest) -> None:
    """With x-ignore-shared the guest's memory has no bitmap in which a bit could be cleared."""
    before = counters(guest)
    capabilities(guest.monitor, "x-ignore-shared")
    with guest.migration():
        pass
    now = counters(guest)
    assert now["skipped"] == before["skipped"]
    assert guest.call("verify")["bad"] == 0
