# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks that are copied, plugged in by a script, or in a small file system: what may be said."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import InputError
from harness.evidence.copied_disks import compare_disk
from harness.scenario.actions.backend import FILLER, fill_up
from harness.scenario.load import load_scenario
from harness.units import PAGE_SIZE

START = "script: [{at: start, do: [%s]}]"
ADD = "{action: device-add, device: disk}"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "guest: {disks: [{storage: copied}]}\nmigration: {to: file}",
            r":2:.*migration\.to: file, which leaves",
        ),
        (
            "guest: {disks: [{storage: copied}]}\nmigration: {postcopy: true}\n",
            r":2:.*storage: does not go together with postcopy: libvirt copies disks",
        ),
        (START % ADD, r":2:.*there is no guest\.disks\[0\]"),
        (f"guest: {{disks: [{{}}]}}\n{START % ADD}", r"guest\.disks\[0\] is there always"),
        (
            f"guest: {{disks: [{{plugged: at-boot}}]}}\n{START % ADD}",
            r":3:.*guest\.disks\[0\] is plugged in already",
        ),
        ("guest: {disks: [{plugged: later}]}", r":2:.*no device-add of the script is about it"),
        ("guest: {nics: [{plugged: at-boot}]}", r":2:.*no device-del of the script is about it"),
        ("guest: {devices: [{device: disk, plugged: later}]}", r":2:.*expected in guest\.disks"),
        (START % "{action: device-add}", "expected xml or device"),
        (START % "{action: device-add, device: disk, xml: <disk/>}", "expected xml or device"),
        (START % "{action: disk-fill}", "disk-fill needs a disk of guest.disks with a room"),
        (
            f"guest: {{disks: [{{plugged: later}}]}}\nscript: [{{at: active, do: [{ADD}]}}]",
            "QEMU refuses device-add while it migrates; put it at start",
        ),
    ],
)
def test_what_cannot_be_is_refused_at_its_place(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "disks.yaml"
    path.write_text(f"name: disks\n{text}\n")
    with pytest.raises(InputError, match=words):
        load_scenario(str(path))


def test_a_script_may_plug_in_and_out_and_in_again(tmp_path: Path) -> None:
    path = tmp_path / "disks.yaml"
    del_ = ADD.replace("add", "del")
    path.write_text(
        f"name: disks\nguest: {{disks: [{{plugged: later}}]}}\n{START % ', '.join((ADD, del_, ADD))}\n"
    )
    assert len(load_scenario(str(path)).script[0].do) == 3


def test_images_are_compared_page_by_page(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    content = bytearray(5000 * PAGE_SIZE)
    here.write_bytes(content)
    content[3 * PAGE_SIZE] = content[4999 * PAGE_SIZE] = 1
    there.write_bytes(content)
    found = compare_disk("a disk", here, there)
    assert (found.pages, found.differing, found.first) == (5000, 2, 3)
    assert compare_disk("a disk", there, there).differing == 0


def test_an_image_that_is_too_short_differs_in_what_it_lacks(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.write_bytes(bytes(8 * PAGE_SIZE))
    there.write_bytes(bytes(6 * PAGE_SIZE))
    found = compare_disk("a disk", here, there)
    assert (found.pages, found.differing, found.first) == (8, 2, 6)


def test_a_file_system_is_filled_up_by_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = 0

    def allocate(_: int, at: int, size: int) -> None:
        nonlocal taken
        if at + size > 5 << 12:
            raise OSError(28, "No space left on device")
        (tmp_path / FILLER).write_bytes(bytes(at + size))
        taken = at + size

    monkeypatch.setattr("os.posix_fallocate", allocate)
    fill_up(tmp_path)
    assert taken == 5 << 12


@pytest.mark.parametrize(
    "moves",
    ["[{guest: stays-paused}]", "[{guest: stays-paused}, {}]", "[{guest: stays-paused, ends: failed}, {}]"],
)
def test_a_guest_that_stays_paused_is_moved_on_as_it_is(tmp_path: Path, moves: str) -> None:
    path = tmp_path / "moves.yaml"
    path.write_text(f"name: moves\nmoves: {moves}\n")
    with pytest.raises(
        InputError, match=r"moves.0..guest: expected only before a move of a guest that is paused"
    ):
        load_scenario(str(path))
