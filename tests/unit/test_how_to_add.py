# SPDX-License-Identifier: GPL-2.0-or-later
"""docs/how-to-add.md: its examples are whole, and register what they say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from harness.plan.machines import Machines
from harness.scenario.actions.base import ACTIONS
from harness.scenario.devices import DEVICES
from harness.scenario.mode import modes_of
from harness.scenario.workloads.base import WORKLOADS
from harness.verdict import registry

PAGE: Final = Path(__file__).parents[2] / "docs" / "how-to-add.md"
EXAMPLES: Final = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def names() -> Iterator[dict[str, Any]]:
    """What the examples define; what they register is forgotten afterwards."""
    kinds = list(Machines.kinds)
    names: dict[str, Any] = {"__name__": "examples"}
    with ACTIONS.temporary(), DEVICES.temporary(), WORKLOADS.temporary():
        try:
            for number, text in enumerate(EXAMPLES, 1):
                code = compile(text, f"{PAGE.name}, example {number}", "exec", dont_inherit=True)
                exec(code, names)
            yield names
        finally:
            Machines.kinds[:] = kinds
            registry.unregister(names.get("both_run", print))


def test_every_example_registers(names: dict[str, Any]) -> None:
    assert ACTIONS["downtime-limit"] is names["DowntimeLimit"]
    assert ACTIONS["drop-caches"] is names["DropCaches"]
    assert DEVICES["dice"] is names["Dice"]
    assert WORKLOADS["stripes"] is names["Stripes"]
    assert Machines.kinds[-1] is names["Rack"]
    assert {"zstd_level", "zero_copy"} <= set(modes_of(names["MoreOfMigration"]))
    assert "both-run" in {row.name for row in registry.rows()}
