# SPDX-License-Identifier: GPL-2.0-or-later
"""docs/report.md: each of its blocks is a scenario that loads."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.scenario.load import load_scenario

PAGE = Path(__file__).parents[2] / "docs" / "report.md"
BLOCKS = re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("text", BLOCKS, ids=[block.split("\n")[0] for block in BLOCKS])
def test_a_block_is_a_scenario(tmp_path: Path, text: str) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(text, encoding="utf-8")
    assert load_scenario(str(file)).arm == "off"


def test_there_are_some() -> None:
    assert len(BLOCKS) > 10
