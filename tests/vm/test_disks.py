# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks that are copied with the guest, plugged in and out, and full."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.testing import Freepage

pytestmark = pytest.mark.slow

_DISK = "{storage: copied, contents: formula, format: qcow2}"
#: A guest whose disk has an image of its own on each host.
COPIED = f"name: copied\nguest: {{memory: 256MiB, disks: [{_DISK}]}}\n"


def test_disks_are_copied_with_the_guest(freepage: Freepage) -> None:
    run = freepage.run("disk-copied")
    assert run.verdict == "pass", run
    assert run.result.observed["disk-pages-copied"] == 2 * 4096
    assert run.result.observed["disk-requests"] > 100


@pytest.mark.parametrize("words", ["write -P 0xee 1M 4k", "write -z 1M 4k"], ids=["other", "lost"])
def test_a_copy_that_holds_something_else_is_told(freepage: Freepage, folder: Path, words: str) -> None:
    """Once the copy is complete, the destination's QEMU changes one block of it, or has it lost."""
    path = folder / "copied.yaml"
    write = f'{{command-line: "qemu-io libvirt-1-format \\"{words}\\""}}'
    path.write_text(
        COPIED + "script:\n- at: pre-switchover\n  do:\n"
        f"  - {{action: qmp, side: destination, command: human-monitor-command, arguments: {write}}}\n"
    )
    run = freepage.run(path)
    assert run.verdict == "fail", run
    assert [finding.rule for finding in run.result.findings] == ["disk-copy-differs"], run
    assert "the first is page 256" in run.result.findings[0].text


@pytest.mark.parametrize("tap", ["true", "false"])
def test_a_tap_does_not_carry_the_disk(freepage: Freepage, folder: Path, tap: str) -> None:
    path = folder / "copied.yaml"
    path.write_text(COPIED + f"tap: {tap}\n")
    run = freepage.run(path)
    assert run.verdict == "pass", run


def test_no_room_on_the_destination_fails_the_migration_and_nothing_else(freepage: Freepage) -> None:
    run = freepage.run("disk-full")
    assert run.verdict == "pass", run
    assert [move.ended for move in run.result.moves] == ["failed", "completed"]


def test_disks_and_nic_are_plugged_in_and_out(freepage: Freepage) -> None:
    run = freepage.run("hot-plugged")
    assert run.verdict == "pass", run
    assert [(one.device, one.answers) for one in run.result.liveness] == [("disk", True), ("nic", True)]


def test_a_dirty_bitmap_goes_along(freepage: Freepage, folder: Path) -> None:
    """Libvirt has QEMU migrate it: what the guest has written since is in it on either side."""
    path = folder / "bitmap.yaml"
    sha = "command: x-debug-block-dirty-bitmap-sha256"
    bitmap = "arguments: {node: libvirt-1-format, name: b0}"
    made = "arguments: {node: libvirt-1-format, name: b0, persistent: true}"
    path.write_text(
        COPIED + "script:\n"
        f"- {{at: start, do: [{{action: qmp, command: block-dirty-bitmap-add, {made}}}]}}\n"
        "- at: active\n  do:\n"
        f"  - {{action: qmp, {sha}, {bitmap}}}\n"
        "  - {action: guest-run, run: [dd, if=/dev/zero, of=/dev/vda, bs=64k, seek=200, count=3]}\n"
        f"  - {{action: qmp, {sha}, {bitmap}}}\n"
        f"- {{at: resumed, do: [{{action: qmp, side: destination, {sha}, {bitmap}}}]}}\n"
    )
    run = freepage.run(path)
    assert run.verdict == "pass", run
    empty, left, arrived = (one.answer for one in run.result.qmp[1:])
    assert empty != left == arrived


def test_a_guest_whose_disk_is_full_goes_on_where_there_is_room_again(freepage: Freepage) -> None:
    run = freepage.run("disk-filled")
    assert run.verdict == "pass", run
    assert run.result.observed["disk-requests"] > 100


def test_a_guest_whose_disk_stays_full_runs_nowhere(freepage: Freepage, folder: Path) -> None:
    path = folder / "full.yaml"
    path.write_text(
        "name: full\narm: off\nguest: {memory: 256MiB, disks: [{room: 24MiB, cache: writeback}]}\n"
        "workload: {kind: journal}\nmigration: {bandwidth: 32MiB/s}\n"
        "script: [{at: active, do: [{action: disk-fill}]}]\n"
    )
    run = freepage.run(path)
    assert [finding.rule for finding in run.result.findings] == ["none-runs"], run
