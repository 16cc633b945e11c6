# SPDX-License-Identifier: GPL-2.0-or-later
"""A disk that the guest writes to while it is migrated: see docs/oracle.md, "What a guest would notice"."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.testing import Freepage
from harness.testing.outcome import WrongInput


def test_a_disk_holds_what_was_acknowledged(freepage: Freepage) -> None:
    run = freepage.run("disk-journal")
    assert run.verdict == "pass", run
    assert run.result.observed["disk-requests"] > 100
    assert not (run.folder / "disk.raw").exists()


def test_a_disk_with_one_request_at_a_time(freepage: Freepage) -> None:
    run = freepage.run("disk-journal", set={"workload.depth": 1, "workload.disk": "1MiB"})
    assert run.verdict == "pass", run


def disks(folder: Path, disks: str, rest: str = "") -> Path:
    path = folder / "disks.yaml"
    path.write_text(
        f"name: disks\nguest: {{memory: 256MiB, {rest} disks: {disks}}}\nworkload: {{kind: journal}}\n"
        "migration: {bandwidth: 128MiB/s}\n"
    )
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("listed", "rest"),
    [
        ("[{bus: virtio-scsi}]", ""),
        ("[{format: qcow2, iothread: true}]", ""),
        ("[{bus: vhost-user-blk}]", ""),
        ("[{bus: sata}]", "kernel: generic, machine: q35,"),
        ("[{bus: usb, cache: writethrough}]", "kernel: generic,"),
    ],
    ids=["virtio-scsi", "qcow2", "vhost-user-blk", "sata", "usb"],
)
def test_the_journal_on_each_bus(freepage: Freepage, folder: Path, listed: str, rest: str) -> None:
    run = freepage.run(disks(folder, listed, rest))
    assert run.verdict == "pass", run
    assert run.result.observed["disk-requests"] > 100


@pytest.mark.slow
def test_disks_beside_it_hold_what_they_held(freepage: Freepage, folder: Path) -> None:
    file = folder / "file.raw"
    file.write_bytes(bytes(1 << 20))
    listed = (
        "[{size: 16MiB}, {bus: virtio-scsi, contents: formula, format: qcow2}, "
        f"{{contents: {file}}}, {{bus: vhost-user-blk, contents: formula, cache: writeback}}]"
    )
    run = freepage.run(disks(folder, listed))
    assert run.verdict == "pass", run
    assert [one.answers for one in run.result.liveness] == [None, True, True, True]


def test_an_nvme_is_refused_with_qemus_words(freepage: Freepage, folder: Path) -> None:
    with pytest.raises(WrongInput, match=r"disks\.yaml:2:[0-9]+: .*State blocked by non-migratable device"):
        freepage.run(disks(folder, "[{bus: nvme}]"))
