# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine of a bug report: its type and CPU, migrated and judged; and what QEMU refuses of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.testing import Freepage, Run
from harness.toolchain import Toolchain

#: Small, for a machine that is looked at and does little.
MEMORY = "256MiB"


@pytest.fixture
def freepage(freepage: Freepage) -> Freepage:
    return freepage.with_defaults(memory=MEMORY)


def command_of(run: Run, side: str) -> str:
    return (run.folder / f"{side}.command").read_text()


@pytest.mark.parametrize(
    ("machine", "cpu"),
    [
        ("pc-q35-7.2", "Skylake-Client"),
        pytest.param("pc-i440fx-8.0", "EPYC,+svm,-xsave", marks=pytest.mark.slow),
        pytest.param("pc-i440fx-2.7", "qemu64,+avx2", marks=pytest.mark.slow),
        pytest.param("pc-q35-4.0.1", "max", marks=pytest.mark.slow),
    ],
)
def test_a_machine_with_a_cpu(freepage: Freepage, machine: str, cpu: str) -> None:
    run = freepage.run("idle", accel="tcg", set={"guest.machine": machine, "guest.cpu": cpu})
    assert run.verdict == "pass", str(run)
    assert run.result.pages.skipped > 0
    assert run.result.machine is not None
    assert (run.result.machine.type, run.result.machine.cpu) == (machine, cpu)
    assert ("pcid" in run.result.machine.cpu_lacks) == (cpu == "Skylake-Client")
    for side in ("source", "destination"):
        words = command_of(run, side)
        assert f"-machine {machine}," in words
        # The last one counts.
        assert words.rpartition(" -cpu ")[2].split()[0] == cpu


@pytest.mark.slow
def test_a_machine_from_before_virtio_1_0(freepage: Freepage) -> None:
    """Its firmware and option ROMs are older ones, and its virtio devices know half as many features."""
    keys = {"guest.machine": "pc-i440fx-2.4", "walk": False}
    run = freepage.run("idle", arm="hint", accel="tcg", set=keys)
    assert run.verdict == "pass", str(run)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (
            {"machine": "malta"},
            "has no machine 'malta'; for guests of x86_64 there are pc, q35 and their versions",
        ),
        ({"machine": "pc-q35-7.3"}, "has no machine 'pc-q35-7.3'; the nearest are pc-q35-7.2"),
        ({"machine": "microvm"}, "microvm is none of pc, q35 and their versions"),
        ({"machine": "pc-i440fx-2.6"}, "know nothing of virtio 1.0"),
        (
            {"machine": "pc-i440fx-8.0", "vcpus": 64, "cpu": "Skylake-Clien"},
            "the nearest are Skylake-Client,",
        ),
        ({"cpu": "host"}, "only KVM can give to a guest"),
        ({"cpu": "qemu64,+pcid"}, "TCG cannot give a guest pcid"),
        ({"cpu": "qemu64,+avxx2"}, "avxx2' not found; the nearest are avx2"),
        ({"cpu": "Skylake-Client,enforce"}, "TCG doesn't support requested features"),
    ],
    ids=str,
)
def test_what_qemu_does_not_make_is_refused(
    freepage: Freepage, folder: Path, keys: dict[str, object], words: str
) -> None:
    scenario = folder / "machine.yaml"
    lines = [f"  {key}: {json.dumps(value)}" for key, value in keys.items()]
    scenario.write_text("\n".join(["name: machine", "accelerator: tcg", "guest:", *lines, ""]))
    ending = freepage.start(scenario).end()
    assert ending.exit_code == 2, str(ending)
    assert words in ending.stderr
    # The line and column of the key.
    line = 3 + len(keys)
    assert f"freepage: {scenario}:{line}:3: guest." in ending.stderr
    assert not ending.folder.exists()


AS_WRITTEN = """\
name: as-written
accelerator: tcg
guest:
  memory: 256MiB
  xml:
  - at: devices
    add: <rng model="virtio"><backend model="random">/dev/urandom</backend></rng>
  - at: clock
    set: {offset: localtime}
  qemu_args: [-device, pvpanic, -msg, guest-name=on]
  globals: [virtio-rng-pci.ats=on]
"""


def test_what_no_key_says_is_written_out(freepage: Freepage, folder: Path) -> None:
    scenario = folder / "as-written.yaml"
    scenario.write_text(AS_WRITTEN)
    run = freepage.run(scenario)
    assert run.verdict == "pass", str(run)
    for side in ("source", "destination"):
        words = command_of(run, side)
        assert '"driver":"virtio-rng-pci"' in words
        assert "-rtc base=localtime" in words
        assert "-device pvpanic" in words
        assert "-global virtio-rng-pci.ats=on" in words


@pytest.mark.parametrize(
    ("line", "key", "words"),
    [
        ("qemu_args: [-device, virtio-nothing]", "qemu_args[1]", "'virtio-nothing' is not a valid device"),
        ("qemu_args: [-chardev, 'null,id=x@HOST@', -nothing]", "qemu_args[2]", "-nothing: invalid option"),
        ("globals: [virtio-blonn-pci.ats=on]", "globals[0]", "no driver 'virtio-blonn-pci'; the nearest are"),
        (
            "globals: [virtio-rng-pci.atts=on]",
            "globals[0]",
            "no property 'atts' of virtio-rng-pci; ",
        ),
        (
            "xml: [{at: devices/tmp, remove: true}]",
            "xml[0]",
            "has nothing at 'devices/tmp'",
        ),
        ("xml: [{at: clock, set: {offset: nowhere}}]", "xml[0]", "unknown clock offset 'nowhere'"),
    ],
    ids=lambda value: value.split(":")[0] if ":" in str(value) else "",
)
def test_what_is_written_out_and_refused(
    freepage: Freepage, folder: Path, line: str, key: str, words: str
) -> None:
    scenario = folder / "refused.yaml"
    scenario.write_text(f"name: refused\naccelerator: tcg\nguest:\n  {line}\n")
    ending = freepage.start(scenario).end()
    assert ending.exit_code == 2, str(ending)
    assert f"freepage: {scenario}:4:" in ending.stderr
    assert f"guest.{key}: " in ending.stderr
    assert words in ending.stderr
    if line.startswith("qemu_args"):
        assert "  | source QEMU: " in ending.stderr
        assert "command line: " in ending.stderr


@pytest.mark.slow
def test_vcpus_that_are_plugged_in_migrate(freepage: Freepage) -> None:
    run = freepage.run("vcpus-plugged", accel="tcg")
    assert run.verdict == "pass", str(run)
    # Libvirt plugs them in once it has started a QEMU with one.
    there = (run.folder / "move-2" / "destination.command").read_text()
    assert "-smp 1,maxcpus=4," in there
    # Four vCPUs, each with a local APIC, and what every guest has.
    assert run.result.devices is not None
    assert run.result.devices.differences == []


def test_vcpus_that_are_not_to_be_had(freepage: Freepage, folder: Path) -> None:
    scenario = folder / "remove.yaml"
    scenario.write_text(
        "name: remove\naccelerator: tcg\nguest: {topology: {cores: 2}}\n"
        "script: [{at: start, do: [{action: vcpu-add}, {action: vcpu-remove}]}]\n"
    )
    ending = freepage.start(scenario).end()
    assert ending.exit_code == 2, str(ending)
    assert "script: vcpu-remove: without KVM a QEMU never says that a vCPU is gone" in ending.stderr


@pytest.mark.parametrize(
    "backend",
    [
        {"type": "ram"},
        pytest.param({"offset": "2MiB"}, marks=pytest.mark.slow),
        pytest.param({"share": False}, marks=pytest.mark.slow),
        pytest.param({"offset": "12KiB", "share": False}, marks=pytest.mark.slow),
        pytest.param({"type": "memfd", "prealloc": True}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_what_memory_is_made_of(freepage: Freepage, backend: dict[str, object]) -> None:
    keys = {"guest.memory_backend": json.dumps(backend), "workload.noise": "100MiB"}
    run = freepage.run("churn", accel="tcg", set=keys)
    assert run.verdict == "pass", str(run)
    assert run.result.pages.skipped > 0
    # All of it was compared, wherever it is.
    assert run.result.pages.total >= (256 << 20) // 4096
    assert not [one for one in run.result.not_compared if one.bytes is None]


@pytest.mark.slow
def test_memory_in_no_file_goes_there_and_back(freepage: Freepage) -> None:
    run = freepage.run("there-and-back", accel="tcg", set={"guest.memory_backend": "{type: ram}"})
    assert run.verdict == "pass", str(run)


def test_virtio_mem(freepage: Freepage) -> None:
    run = freepage.run("virtio-mem", accel="tcg")
    assert run.verdict == "pass", str(run)
    # Half of the device was plugged in as the guest left: what it was asked for meanwhile came after.
    assert run.result.observed["not-plugged-in"] == (256 << 20) // 4096
    qmp = [json.loads(line) for line in (run.folder / "qmp.jsonl").read_text().splitlines()]
    sizes = [
        line["event"]["data"]["size"]
        for line in qmp
        if line.get("side") == "destination"
        and line.get("event", {}).get("event") == "MEMORY_DEVICE_SIZE_CHANGE"
    ]
    assert sizes[-1] == 320 << 20


def test_huge_pages_that_are_not_reserved(freepage: Freepage) -> None:
    ending = freepage.start("idle", set={"guest.memory_backend": "{type: memfd, page: 64MiB}"}).end()
    assert ending.exit_code == 2, str(ending)
    assert "guest.memory_backend.page: this machine has no huge pages of that size" in ending.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("machine", "firmware"), [("pc", "ovmf"), ("q35", "ovmf-smm")])
def test_uefi(freepage: Freepage, machine: str, firmware: str) -> None:
    keys = {"guest.machine": machine, "guest.firmware": firmware}
    run = freepage.run("idle", accel="tcg", memory="512MiB", set=keys)
    assert run.verdict == "pass", str(run)
    compared = (run.folder / "events.jsonl").read_text()
    # The flash with the firmware, and the one with the variables.
    assert '"block": "system.flash0"' in compared
    assert '"block": "system.flash1"' in compared
    assert ("smm=on" in command_of(run, "destination")) == (firmware == "ovmf-smm")
    # UEFI's tables are where the kernel found them.
    assert "efi: EFI v2" in (run.folder / "console.log").read_text()


@pytest.mark.slow
def test_firmware_of_ones_own(freepage: Freepage, toolchain: Toolchain) -> None:
    (folder,) = toolchain.qemu().firmware
    run = freepage.run("idle", accel="tcg", set={"guest.firmware": str(folder / "bios-256k.bin")})
    assert run.verdict == "pass", str(run)
    assert f"-bios {folder}" in command_of(run, "source")


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"guest.firmware": "ovmf-smm"}, "guest.firmware: a pc has no SMM for it"),
        ({"guest.firmware": "/nowhere.fd"}, "guest.firmware: there is no file /nowhere.fd"),
        ({"guest.firmware": "uefi"}, "expected seabios, ovmf, ovmf-smm, or a path"),
    ],
)
def test_firmware_that_is_not_to_be_had(freepage: Freepage, keys: dict[str, str], words: str) -> None:
    ending = freepage.start("idle", set=keys).end()
    assert ending.exit_code == 2, str(ending)
    assert words in ending.stderr


@pytest.mark.slow
def test_a_balloon_in_ram_that_begins_somewhere_in_a_file(freepage: Freepage) -> None:
    run = freepage.run("ballooned-offset", accel="tcg")
    assert run.verdict == "pass", str(run)
