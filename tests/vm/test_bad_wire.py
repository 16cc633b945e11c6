# SPDX-License-Identifier: GPL-2.0-or-later
"""Migrations over a bad network: slow, lossy, and one that ends in the middle of the stream."""

from __future__ import annotations

import json
from typing import Any

import pytest

from harness.testing import Ending, Freepage

SMALL = {"guest.memory": "256MiB"}


def events(ending: Ending, kind: str) -> list[dict[str, Any]]:
    lines = (ending.folder / "events.jsonl").read_text().splitlines()
    return [event["data"] for event in map(json.loads, lines) if event["kind"] == kind]


def test_a_stream_that_ends_at_a_byte_and_another_try(freepage: Freepage) -> None:
    cut = {"at": "active", "do": [{"action": "wire-cut-after", "size": "5000001B"}]}
    again = {
        "at": "start",
        "move": 2,
        "do": [{"action": "unstall"}, {"action": "wire-change", "delay_ms": 2, "loss_percent": 0.1}],
    }
    settings = {
        **SMALL,
        "wire": {"delay_ms": 5, "reorder_percent": 0.1},
        "moves": [{"ends": "failed"}, {}],
        "script": [cut, again],
    }
    ending = freepage.start("idle", set=settings).end()
    result = ending.result
    assert result.verdict == "pass", result.reason
    assert [move.ended for move in result.moves] == ["failed", "completed"]
    assert events(ending, "wire-cut") == [{"bytes": 5000001}]


@pytest.mark.slow
@pytest.mark.parametrize("multifd", [0, 4])
def test_a_cut_that_nobody_tells_of(freepage: Freepage, multifd: int) -> None:
    """Silence: neither side hears anything; that the migration makes no progress is the finding."""
    script = [{"at": "active", "do": [{"action": "wire-cut-after", "size": "1MiB", "then": "silence"}]}]
    settings = {
        **SMALL,
        "migration.multifd": multifd,
        "migration.stuck_s": 5,
        "script": script,
        "expect": {"verdict": "fail", "rule": "stuck"},
    }
    ending = freepage.start("idle", set=settings).end()
    assert ending.exit_code == 0, str(ending)
    assert events(ending, "wire-cut") == [{"bytes": 1 << 20}]


@pytest.mark.slow
def test_a_wire_between_machines_of_ones_own_is_refused(freepage: Freepage) -> None:
    remote = {
        "remote.source.uri": "qemu+ssh://a.invalid/system",
        "remote.destination.uri": "qemu+ssh://b.invalid/system",
    }
    ending = freepage.start("idle", set={**remote, "wire": {"delay_ms": 1}}).end()
    assert ending.exit_code == 2, str(ending)
    assert "wire: the network between machines of yours" in ending.stderr
