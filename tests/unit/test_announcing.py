# SPDX-License-Identifier: GPL-2.0-or-later
"""Of which guests that move an announcement is expected."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.run.announcing import is_announced
from harness.scenario.load import load_scenario


def announced(folder: Path, text: str) -> bool:
    path = folder / "one.yaml"
    path.write_text(f"name: one\n{text}", encoding="utf-8")
    scenario = load_scenario(str(path))
    return is_announced(scenario, scenario.migration_of(1))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("migration: {}\n", True),
        ("migration: {postcopy: true}\n", True),
        ("arm: 'off'\nmigration: {to: file}\n", True),
        ("arm: 'off'\nmigration: {to: savevm}\n", False),
        ("migration: {parameters: {announce-rounds: 0}}\n", False),
        ("guest: {nics: [{}]}\n", False),
        ("script: [{at: active, do: [{action: nic-down}]}]\n", False),
        ("script: [{at: active, do: [{action: nic-down}, {action: nic-up}]}]\n", False),
        ("script: [{at: active, do: [{action: stop}, {action: cont}]}]\n", True),
        ("guest: {xml: [{at: devices/interface/mac, set: {address: '52:54:00:00:00:09'}}]}\n", False),
        ("guest: {xml: [{at: devices/rng, remove: true}]}\n", True),
        (
            "script: [{at: start, do: [{action: qmp, command: set_link, arguments: {up: false}}]}]\n",
            False,
        ),
    ],
)
def test_who_is_announced(tmp_path: Path, text: str, *, expected: bool) -> None:
    assert announced(tmp_path, text) is expected
