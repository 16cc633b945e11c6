# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMUs of other versions, as a distribution ships them: alone, with each other, and behind a wrapper."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import psutil
import pytest

from harness.testing import Freepage, Run
from tests.vm.support.processes import words_of

MEMORY = "256MiB"
OLDEST, OLDER, NEWEST = "debian:bookworm", "debian:trixie", "debian:trixie-backports"


@pytest.fixture
def freepage(freepage: Freepage) -> Freepage:
    return freepage.with_defaults(memory=MEMORY, accel="tcg", arm="off")


def versions_of(run: Run) -> list[str]:
    return [str(run.result.versions[f"{side}_qemu"]["version"]) for side in ("source", "destination")]


def reasons(run: Run) -> list[str]:
    """Why devices differ, where they do."""
    assert run.result.devices is not None
    return [one.reason or "" for one in run.result.devices.differences]


def compared(run: Run) -> None:
    """All of memory and all devices were compared, and the devices are right."""
    assert run.exit_code in (0, 1), str(run)
    assert run.result.not_compared == []
    assert run.result.devices is not None
    assert run.result.devices.not_compared == ""
    assert run.result.devices.compared > 20
    assert all(reasons(run))


def judged(run: Run) -> None:
    """And memory is right, too."""
    compared(run)
    assert run.verdict == "pass", str(run)


def test_the_oldest(freepage: Freepage) -> None:
    """7.2 does not tell where its RAMBlocks are; its loader and libraries are not this machine's.

    Memory may be wrong: before 9.0 QEMU loses writes where it emulates (docs/found.md).
    """
    run = freepage.run("idle", qemu=OLDEST)
    compared(run)
    assert "loses writes" in run.stderr
    assert versions_of(run)[0].startswith("7.2.")
    assert "--library-path" in (run.folder / "source.command").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("qemu", [OLDER, NEWEST, "debian:bookworm-backports"])
def test_newer_ones(freepage: Freepage, qemu: str) -> None:
    run = freepage.run("idle", qemu=qemu)
    judged(run)
    # Of one version nothing is set aside.
    assert not [reason for reason in reasons(run) if "set aside" in reason]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "destination"), [(OLDEST, NEWEST), (NEWEST, OLDEST), (OLDER, OLDEST), ("patched", OLDEST)]
)
def test_between_versions(freepage: Freepage, source: str, destination: str) -> None:
    run = freepage.run("idle", source_qemu=source, destination_qemu=destination)
    compared(run) if source == OLDEST else judged(run)
    # The machine of the older one, whichever way the guest goes.
    assert run.result.machine is not None
    assert run.result.machine.type == "pc-i440fx-7.2"
    assert any("no such field" in reason for reason in reasons(run))


@pytest.mark.slow
def test_a_matrix(freepage: Freepage, folder: Path) -> None:
    out = folder / "matrix"
    names = f"{OLDER},patched"
    small = ("--memory", MEMORY, "--accel", "tcg")
    ending = freepage.command("run", "idle", *small, "--qemu-matrix", names, "--out", out, "--json")
    assert ending.exit_code == 0, str(ending)
    found = json.loads(ending.stdout)
    assert [way["outcome"] for way in found["ways"]] == ["right"] * 4
    assert json.loads((out / "matrix.json").read_text()) == found


@pytest.mark.slow
def test_a_wrapper_with_arguments_of_its_own(freepage: Freepage, folder: Path) -> None:
    wrapper = folder / "my-qemu"
    wrapper.write_text('#!/bin/sh\nexec qemu-system-x86_64 -global virtio-balloon-pci.any_layout=on "$@"\n')
    wrapper.chmod(0o755)
    first = freepage.run("idle", qemu=wrapper)
    judged(first)
    assert "virtio-balloon-pci.any_layout=on" in (first.folder / "source.command").read_text()
    with wrapper.open("a") as file:
        file.write("# another byte\n")
    again = freepage.start("idle", qemu=wrapper, accel="auto").end()
    # What KVM does with this QEMU is known from the time before.
    with wrapper.open("a") as file:
        file.write("# and another\n")
    last = freepage.start("idle", qemu=wrapper, accel="auto").end()
    assert again.exit_code == last.exit_code == 0, str(last)
    assert "probe-kvm" not in last.stderr


@pytest.mark.slow
def test_a_qemu_that_dies_at_its_start(freepage: Freepage, folder: Path) -> None:
    """libvirt may ask it about itself; with a guest it ends."""
    wrapper = folder / "dying"
    wrapper.write_text(
        '#!/bin/sh\ncase "$*" in *charmonitor*) echo "boom: no guest here" >&2; exit 3;; esac\n'
        'exec qemu-system-x86_64 "$@"\n'
    )
    wrapper.chmod(0o755)
    ending = freepage.start("idle", qemu=wrapper).end()
    assert ending.exit_code == 3, str(ending)
    assert "boom: no guest here" in ending.stderr
    assert re.search(rf"^command line: {re.escape(str(wrapper))} -name guest=", ending.stderr, re.MULTILINE)
    assert not [one for one in psutil.process_iter() if str(wrapper) in words_of(one)]


@pytest.mark.slow
def test_a_property_that_one_version_of_a_machine_has_otherwise(freepage: Freepage, folder: Path) -> None:
    """A compatibility property in the wrong machine version: what the guest has negotiated is not there.

    VIRTIO_F_RING_RESET came with QEMU 7.2, and older machines are to be without it (hw_compat_7_1).
    """
    wrapper = folder / "other-compat"
    binary = shutil.which("qemu-system-x86_64")
    wrapper.write_text(f'#!/bin/sh\nexec {binary} -global virtio-net-device.queue_reset=off "$@"\n')
    wrapper.chmod(0o755)
    run = freepage.run("idle", source_qemu="qemu-system-x86_64", destination_qemu=wrapper)
    assert {finding.rule for finding in run.result.findings} == {"migration-ended", "destination-refused"}, (
        run
    )
    assert "Failed to load virtio-net" in run.result.moves[0].reason
