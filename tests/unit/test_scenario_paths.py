# SPDX-License-Identifier: GPL-2.0-or-later
"""Files that a scenario names, when it is written into a run folder and read again from elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.plan.plan import Tools
from harness.plan.prepare import load_with_tools
from harness.scenario.devices.disk import ListedDisk
from harness.scenario.load import load_scenario


def test_paths_of_a_run_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "own.yaml"
    path.write_text(
        "name: own\nguest: {image: ./cloud.qcow2, firmware: fw/OVMF.fd,\n"
        "  disks: [{contents: data/one.raw}, {contents: formula}]}\n"
    )
    scenario, _ = load_with_tools(str(path), [], Tools())
    assert scenario.guest.image == str(tmp_path / "cloud.qcow2")
    assert scenario.guest.firmware == str(tmp_path / "fw/OVMF.fd")
    contents = [one.contents for one in scenario.guest.disks if isinstance(one, ListedDisk)]
    assert contents == [str(tmp_path / "data/one.raw"), "formula"]
    kept = tmp_path / "elsewhere" / "scenario.yaml"
    kept.parent.mkdir()
    kept.write_text(scenario.to_yaml())
    monkeypatch.chdir(kept.parent)
    assert load_with_tools("scenario.yaml", [], Tools())[0].guest == scenario.guest


def test_a_kernel_that_a_scenario_names_is_whole_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "own.yaml"
    path.write_text("name: own\nguest: {kernel: boot/vmlinuz}\n")
    scenario, tools = load_with_tools(str(path), [], Tools())
    assert tools.kernel == scenario.guest.kernel == str(tmp_path / "boot/vmlinuz")


def test_names_stay_names() -> None:
    scenario, _ = load_with_tools("idle", [], Tools())
    assert scenario == load_scenario("idle")
