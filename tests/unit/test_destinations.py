# SPDX-License-Identifier: GPL-2.0-or-later
"""What a scenario can do to the destination's QEMU before the guest leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import InputError
from harness.migration.modes import modes_of_move
from harness.scenario.load import Scenario, load_scenario

_QMP = "{action: qmp, side: destination, command: query-status}"


def scenario(folder: Path, text: str) -> Scenario:
    """The scenario of a file."""
    file = folder / "x.yaml"
    file.write_text(f"name: x\narm: 'off'\n{text}\n", encoding="utf-8")
    return load_scenario(str(file))


def refusal(tmp_path: Path, text: str) -> str:
    with pytest.raises(InputError) as caught:
        scenario(tmp_path, text)
    return str(caught.value)


@pytest.mark.parametrize("moment", ["destination-ready", "listening"])
def test_who_waits_can_be_told_something(tmp_path: Path, moment: str) -> None:
    both = scenario(tmp_path, f"moves: [{{}}, {{}}]\nscript: [{{at: {moment}, move: 2, do: [{_QMP}]}}]")
    assert modes_of_move(both, 1).direct == ()
    assert modes_of_move(both, 2).direct == (f"at: {moment}",)


def test_words_of_its_own_go_past_libvirt(tmp_path: Path) -> None:
    args = "[-global, virtio-net-pci.mrg_rxbuf=off]"
    both = scenario(tmp_path, f"moves: [{{}}, {{destination_args: {args}}}]")
    assert [modes_of_move(both, number).direct for number in (1, 2)] == [(), ("moves[1].destination_args",)]
    assert both.moves[1].destination_args == ("-global", "virtio-net-pci.mrg_rxbuf=off")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            f"script: [{{at: start, do: [{_QMP}]}}]",
            "there is no QEMU on the destination yet at start; put qmp at destination-ready or later",
        ),
        (
            f"migration: {{to: file}}\nscript: [{{at: listening, do: [{_QMP}]}}]",
            "script[0].at: does not go together with migration.to: file",
        ),
        (
            "guest: {memory_backend: {type: memfd}}\n"
            "migration: {parameters: {mode: cpr-transfer}}\nmoves: [{destination_args: [-S]}]",
            "moves[0].destination_args: does not go together with mode: cpr-transfer",
        ),
        (
            "guest: {disks: [{storage: copied}]}\nmoves: [{destination_args: [-S]}]",
            "moves[0].destination_args: libvirt copies disks, and it goes past libvirt",
        ),
        ("migration: {parameters: {tls-hostname: x}}", "tls-hostname: expected only with migration.tls"),
        (
            "moves: [{migration: {parameters: {block-bitmap-mapping: []}}}]",
            "no QEMU can be told to forget it",
        ),
    ],
)
def test_what_has_no_such_destination_is_refused(tmp_path: Path, text: str, words: str) -> None:
    assert words in refusal(tmp_path, text)


def test_a_list_is_a_parameter(tmp_path: Path) -> None:
    mapping = "[{node-name: disk, alias: a, bitmaps: [{name: b, alias: c}]}]"
    one = scenario(tmp_path, f"migration: {{parameters: {{block-bitmap-mapping: {mapping}}}}}")
    told = modes_of_move(one, 1).all_parameters()["block-bitmap-mapping"]
    assert told == [{"node-name": "disk", "alias": "a", "bitmaps": [{"name": "b", "alias": "c"}]}]


def test_what_qemu_has_to_refuse_may_be_asked_for(tmp_path: Path) -> None:
    both = scenario(tmp_path, "migration: {over: fd, multifd: 2}\nmoves: [{ends: failed}]")
    assert both.migration.over == "fd"


_QUIT = "script: [{at: active, do: [{action: quit}]}]"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (_QUIT, "quit ends the guest: it is for the last of the moves, and that has to fail"),
        (f"moves: [{{ends: failed}}, {{ends: failed}}]\n{_QUIT}", "quit ends the guest"),
        (
            "moves: [{ends: failed}]\nscript: [{at: start, do: [{action: quit}]}]",
            "quit is of a migration that goes on: put it at setup or later",
        ),
        (
            "moves: [{ends: failed}]\nscript: [{at: resumed, do: [{action: quit, side: destination}]}]",
            "quit does not go together with at: resumed, where the guest has left",
        ),
        (
            f"migration: {{to: file}}\nmoves: [{{ends: failed}}]\n{_QUIT}",
            "script[0].do[0].action: quit does not go together with migration.to: file",
        ),
    ],
)
def test_a_qemu_of_which_more_is_wanted_is_not_told_to_end(tmp_path: Path, text: str, words: str) -> None:
    assert words in refusal(tmp_path, text)


def test_a_destination_may_be_told_to_end(tmp_path: Path) -> None:
    quits = "script: [{at: active, do: [{action: quit, side: destination}]}]"
    both = scenario(tmp_path, f"moves: [{{ends: failed}}, {{}}]\n{quits}")
    assert [action.ends_guest for action in both.script[0].do] == [False]
