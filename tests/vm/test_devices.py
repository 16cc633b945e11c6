# SPDX-License-Identifier: GPL-2.0-or-later
"""The devices that a scenario gives its guest: what each is asked for after the guest has arrived."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.scenario.devices import DEVICES
from harness.scenario.load import load_scenario
from harness.testing import Freepage
from harness.testing.outcome import Run, WrongInput

#: Nothing in a guest asks it for anything; or it has a key and tests of its own.
ELSEWHERE = {"generation-id", "disk", "nic", "iommu", "pmem", "vsock"}


def scenario(
    folder: Path, devices: str, machine: str = "pc", kernel: str = "default", rest: str = ""
) -> Path:
    path = folder / "scenario.yaml"
    guest = f"memory: 256MiB, machine: {machine}, kernel: {kernel}, devices: {devices}"
    path.write_text(f"name: devices\nguest: {{{guest}}}\n{rest}\n")
    return path


def test_every_device_answers(freepage: Freepage) -> None:
    run = freepage.run("every-device")
    assert run.verdict == "pass", run
    answers = {one.device: one.answers for one in run.result.liveness}
    named = [device.device for device in load_scenario("every-device").guest.devices]
    assert answers == dict.fromkeys(named, True)
    assert set(named) == set(DEVICES) - ELSEWHERE
    assert all(one.did for one in run.result.liveness)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("machine", "kernel", "devices"),
    [
        ("pc", "default", "[{device: vga, model: cirrus}, {device: tpm, model: tis}]"),
        ("pc", "default", "[{device: vga, model: virtio}, {device: scsi, model: pvscsi}]"),
        ("q35", "generic", "[{device: vga, model: qxl}, {device: sound, model: ich9}]"),
        ("pc", "generic", "[{device: scsi, model: lsi53c895a}, {device: input, kind: tablet}]"),
        ("pc", "generic", "[{device: scsi, model: megasas}, {device: input, kind: mouse}]"),
        ("pc", "generic", "[{device: scsi, model: mptsas}, {device: usb, parts: [keyboard, tablet]}]"),
    ],
    ids=["cirrus", "virtio-vga", "qxl", "lsi", "megasas", "mptsas"],
)
def test_other_models_answer(
    freepage: Freepage, folder: Path, machine: str, kernel: str, devices: str
) -> None:
    run = freepage.run(scenario(folder, devices, machine, kernel))
    assert run.verdict == "pass", run
    assert [one.answers for one in run.result.liveness] == [True] * 2


@pytest.mark.slow
def test_devices_answer_after_each_move(freepage: Freepage, folder: Path) -> None:
    devices = "[{device: rng, load: true}, {device: scsi}, {device: serial}]"
    run = freepage.run(scenario(folder, devices, rest="moves: [{}, {}]"))
    assert run.verdict == "pass", run
    assert [one.answers for one in run.result.liveness] == [True] * 3


@pytest.mark.parametrize(
    ("devices", "words"),
    [
        ("[{device: usb}]", r"the guest's kernel .* has no module xhci_pci"),
        ("[{device: root-port}]", "the machine type pc has no PCI Express"),
        ("[{device: tpm}, {device: tpm, model: tis}]", "a guest can have one of it"),
    ],
)
def test_what_cannot_be_is_said_before_a_guest_boots(
    freepage: Freepage, folder: Path, devices: str, words: str
) -> None:
    with pytest.raises(WrongInput, match=words):
        freepage.run(scenario(folder, devices))


@pytest.mark.slow
def test_processes_of_others_serve_disk_and_nic(freepage: Freepage) -> None:
    run = freepage.run("vhost-user")
    assert run.verdict == "pass", run
    assert run.result.observed["disk-requests"] > 100
    assert {one.device: one.answers for one in run.result.liveness} == {"disk": None, "nic": True}


@pytest.mark.slow
def test_a_bridge_goes_on_where_the_guest_is_stopped(freepage: Freepage, folder: Path) -> None:
    """Frames come in all the time, also before the ring is told how to notify (docs/found.md)."""
    path = folder / "bridge.yaml"
    path.write_text(
        "name: bridge\nguest: {memory: 256MiB, nics: [{backend: vhost-user}]}\nworkload: {kind: stream}\n"
        "migration: {bandwidth: 48MiB/s}\n"
    )
    run = freepage.run(path)
    assert run.verdict == "pass", run


@pytest.mark.slow
def test_every_queue_of_a_nic_carries_datagrams(freepage: Freepage, folder: Path) -> None:
    path = folder / "queues.yaml"
    path.write_text("name: queues\nguest: {memory: 192MiB, vcpus: 2, nics: [{queues: 2}]}\n")
    run = freepage.run(path)
    assert run.verdict == "pass", run
    (nic,) = run.result.liveness
    assert nic.did == ["queue 0 carries datagrams, queue 1 carries datagrams"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "kernel"), [("e1000e", "generic"), ("rtl8139", "generic"), ("vmxnet3", "default")]
)
def test_other_nics_carry_a_stream(freepage: Freepage, folder: Path, model: str, kernel: str) -> None:
    path = folder / "nic.yaml"
    guest = f"memory: 256MiB, kernel: {kernel}, nics: [{{model: {model}}}]"
    path.write_text(f"name: nic\nguest: {{{guest}}}\nworkload: {{kind: stream}}\n")
    run = freepage.run(path)
    assert run.verdict == "pass", run
    assert run.result.liveness[0].answers


@pytest.mark.slow
def test_a_guest_whose_tpm_cannot_arrive_goes_on_and_takes_it_along_later(freepage: Freepage) -> None:
    run = freepage.run("backend-killed")
    assert run.verdict == "pass", run
    first, second = run.result.moves
    assert (first.ended, second.ended) == ("failed", "completed")
    assert "tpm-emulator" in first.reason
    assert [one.answers for one in run.result.liveness] == [True]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("guest", "device", "side", "rules"),
    [
        # Nobody holds the migration up for it, and the guest arrives with a disk that nobody serves.
        ("disks: [{bus: vhost-user-blk}]", "disk", "destination", ["device-silent"]),
        # The destination's has the image open as well.
        ("disks: [{bus: vhost-user-blk}]", "disk", "source", []),
        # QEMU takes the link down, and the state of the link is migrated.
        ("nics: [{backend: vhost-user}]", "nic", "source", ["device-silent"]),
        ("devices: [{device: virtiofs}]", "virtiofs", "destination", ["migration-ended"]),
        ("devices: [{device: tpm}]", "tpm", "source", ["migration-ended"]),
    ],
)
def test_what_is_served_by_nobody_is_told(
    freepage: Freepage, folder: Path, guest: str, device: str, side: str, rules: list[str]
) -> None:
    path = folder / "killed.yaml"
    kill = f"{{action: backend-kill, device: {device}, side: {side}}}"
    path.write_text(
        f"name: killed\nguest: {{memory: 256MiB, {guest}}}\nworkload: {{kind: churn, noise: 100MiB}}\n"
        f"migration: {{bandwidth: 64MiB/s}}\nscript: [{{at: answer, do: [{kill}]}}]\n"
    )
    run = freepage.run(path)
    assert [finding.rule for finding in run.result.findings] == rules, run


def links(folder: Path, moment: str) -> Path:
    """A NIC whose link goes and comes, which raises an interrupt."""
    path = folder / "links.yaml"
    path.write_text(
        "name: links\narm: off\nguest: {memory: 192MiB}\nworkload: {kind: idle}\n"
        f"script: [{{at: {moment}, do: [{{action: nic-down}}, {{action: nic-up}}]}}]\n"
    )
    return path


def judged_in_time(run: Run) -> None:
    """QEMU may be done before the command comes, which takes effect all the same."""
    assert run.verdict == "pass" or "had passed" in run.result.reason, run


def test_an_interrupt_while_the_devices_leave_is_no_loss(freepage: Freepage, folder: Path) -> None:
    """QEMU holds its lock until they are sent, and takes the command then; the stream tells whose it is."""
    run = freepage.run(links(folder, "device"), qemu="stock")
    judged_in_time(run)
    assert run.result.devices is not None
    late = {one.field: one for one in run.result.devices.differences if one.changed}
    assert "isr" in late
    assert {one.changed for one in late.values()} == {"source"}
    assert all("set_link came to the source's QEMU" in str(one.reason) for one in late.values())


@pytest.mark.slow
def test_without_a_tap_nobody_can_tell_whose_an_interrupt_is(freepage: Freepage, folder: Path) -> None:
    run = freepage.run(links(folder, "device"), set={"tap": False})
    assert run.verdict == "inconclusive", run
    assert run.result.devices is not None
    reasons = {one.field: str(one.reason) for one in run.result.devices.differences}
    assert "nobody heard what had been sent" in reasons["isr"]


@pytest.mark.slow
@pytest.mark.parametrize("tap", [True, False])
def test_an_interrupt_that_waits_when_the_devices_leave_arrives(
    freepage: Freepage, folder: Path, tap: bool
) -> None:
    """It is raised under a guest that was stopped before the migration began."""
    path = links(folder, "active")
    path.write_text(path.read_text() + "migration: {bandwidth: 48MiB/s}\nmoves: [{guest: paused}]\n")
    run = freepage.run(path, set={"tap": tap})
    assert run.verdict == "pass", run
    assert run.result.devices is not None
    assert not any(one.changed for one in run.result.devices.differences)


@pytest.mark.slow
def test_a_destination_that_is_told_to_change_is_no_loss(freepage: Freepage, folder: Path) -> None:
    path = folder / "resized.yaml"
    path.write_text(
        "name: resized\narm: off\nguest: {memory: 192MiB, virtio_mem: {size: 128MiB, plugged: 64MiB}}\n"
        "workload: {kind: idle}\n"
        "script: [{at: device, do: [{action: virtio-mem-resize, plugged: 128MiB, side: destination}]}]\n"
    )
    run = freepage.run(path, qemu="stock")
    judged_in_time(run)
    assert run.result.devices is not None
    # It may have been told before it had loaded: then it is as the source sent it.
    assert {one.changed for one in run.result.devices.differences if one.changed} <= {"destination"}


@pytest.mark.slow
@pytest.mark.parametrize(("model", "kernel"), [("intel", "default"), ("virtio", "trixie")])
def test_a_guest_behind_an_iommu_takes_it_along(
    freepage: Freepage, folder: Path, model: str, kernel: str
) -> None:
    """The disk, whose driver waits for the IOMMU's as the NIC's does, is written to all the time."""
    devices = f"[{{device: iommu, model: {model}}}, {{device: rng}}, {{device: disk}}]"
    rest = "workload: {kind: journal}\nmigration: {bandwidth: 64MiB/s}\n"
    run = freepage.run(scenario(folder, devices, machine="q35", kernel=kernel, rest=rest))
    assert run.verdict == "pass", run
    # The disk is the workload's, which reports of it.
    assert [one.answers for one in run.result.liveness] == [True, True, None]
    assert run.result.observed["disk-requests"] > 100
    iommu = next(one for one in run.result.liveness if one.device == "iommu")
    assert iommu.answers and any("the NIC is behind it (DMA" in did for did in iommu.did)


@pytest.mark.slow
def test_persistent_memory_is_compared_whole(freepage: Freepage) -> None:
    run = freepage.run("pmem")
    assert run.verdict == "pass", run
    assert run.result.pages.total > (256 + 128) * 256
    (pmem,) = run.result.liveness
    assert pmem.answers and "32768 pages hold what was written last" in " ".join(pmem.did)


def test_a_machine_without_vsock_says_so(freepage: Freepage, folder: Path) -> None:
    if Path("/dev/vhost-vsock").exists():
        pytest.skip("this machine has vhost-vsock")
    with pytest.raises(WrongInput, match=r"/dev/vhost-vsock cannot be opened[\s\S]*vhost_vsock"):
        freepage.run(scenario(folder, "[{device: vsock}]"))
