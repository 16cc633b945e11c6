# SPDX-License-Identifier: GPL-2.0-or-later
"""A matrix of QEMUs: which ways there are, what each run's end means, and how it is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.cli.matrix import run_matrix_command
from harness.errors import InputError
from harness.report.gravity import worst
from harness.report.result import MoveEnd
from harness.run import matrix
from harness.run.matrix import (
    MatrixCell,
    MatrixWay,
    document,
    gravest_status,
    judged,
    matrix_ways,
    said_last,
    table,
)
from tests.unit.test_result import passing, result

OLD, NEW = "debian:bookworm", "debian:trixie"


def end(source: str, destination: str, outcome: str, status: int, words: str = "") -> MatrixCell:
    versions = {OLD: "7.2.22", NEW: "10.0.13"}
    pair = (versions[source], versions[destination])
    return MatrixCell(source, destination, outcome, words, status, "/runs/1", pair)  # type: ignore[arg-type]


def test_each_way_and_each_with_itself() -> None:
    assert [str(way) for way in matrix_ways([OLD, NEW])] == [
        "debian:bookworm -> debian:bookworm",
        "debian:bookworm -> debian:trixie",
        "debian:trixie -> debian:bookworm",
        "debian:trixie -> debian:trixie",
    ]


def some_result(**changes: Any) -> Any:
    sides = {"source_qemu": {"version": "7.2"}, "destination_qemu": {"version": "10"}}
    moves = [MoveEnd(ended="completed", reason="")]
    return result(passing()).model_copy(update={"versions": sides, "moves": moves, **changes})


@pytest.mark.parametrize(
    ("status", "ended", "wrong", "outcome"),
    [
        (0, "completed", 0, "right"),
        (1, "completed", 3, "wrong"),
        (1, "completed", 0, "wrong"),
        # QEMU gave it up, and the guest is whole where it was.
        (1, "failed", 0, "refused"),
        (1, "failed", 1, "wrong"),
        (4, "completed", 0, "inconclusive"),
    ],
)
def test_what_a_runs_end_means(status: int, ended: str, wrong: int, outcome: str) -> None:
    found = some_result()
    move = found.moves[0].model_copy(update={"ended": ended})
    pages = found.pages.model_copy(update={"wrong": wrong})
    found = found.model_copy(update={"moves": [move], "pages": pages, "reason": "because"})
    way = judged(MatrixWay(OLD, NEW), status, found, "", Path("/runs/1"))
    assert (way.outcome, way.words, way.versions) == (outcome, "because", ("7.2", "10"))


def test_a_run_without_a_result() -> None:
    said = "ok   prepare\nfreepage: guest.machine: q35 has no version in common\nhint: another"
    for status, outcome in ((2, "refused"), (3, "error")):
        way = judged(MatrixWay(OLD, NEW), status, None, said_last(said), Path("/runs/1"))
        assert way.outcome == outcome
        assert way.words == "guest.machine: q35 has no version in common\nhint: another"


def test_the_table_says_what_is_not_right() -> None:
    ends = [end(*way, "right", 0) for way in ((OLD, OLD), (OLD, NEW), (NEW, NEW))]
    ends.insert(2, end(NEW, OLD, "refused", 1, "error while loading state for instance 0x0"))
    assert table(ends) == [
        "from \\ to                 debian:bookworm (7.2.22)  debian:trixie (10.0.13)",
        "debian:bookworm (7.2.22)  right                     right",
        "debian:trixie (10.0.13)   refused                   right",
        "",
        "debian:trixie -> debian:bookworm: refused: error while loading state for instance 0x0",
        "  /runs/1",
    ]
    assert gravest_status(ends) == 1
    found = json.loads(document("idle", ends))
    assert found["exit_status"] == 1
    assert [way["outcome"] for way in found["ways"]] == ["right", "right", "refused", "right"]


def test_the_gravest_status_counts() -> None:
    assert worst([0, 4]) == 4
    assert worst([4, 1, 0]) == 1
    # Bad input that shows only when a run begins must not pass among others that do.
    assert worst([0, 2]) == 2
    assert worst([1, 2, 0]) == 2
    assert worst([2, 3, 0]) == 3
    assert worst([3, 130]) == 130
    assert worst([0, 0]) == 0


def test_what_is_wrong_with_all_is_said_before_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matrix, "invoke", lambda *_: pytest.fail("a run was started"))

    def run(scenarios: list[str], names: str, out: Path = tmp_path / "out") -> None:
        run_matrix_command(scenarios, names, {}, None, None, out=out, as_json=False)

    with pytest.raises(InputError, match="no such QEMU: 'debian:bokworm'"):
        run(["idle"], "stock,debian:bokworm")
    with pytest.raises(InputError, match="no such scenario"):
        run(["idel"], "stock,patched")
    with pytest.raises(InputError, match="two or more QEMUs"):
        run(["idle"], "stock,stock")
    with pytest.raises(InputError, match="one scenario"):
        run(["idle", "freed"], "stock,patched")
    with pytest.raises(InputError, match="exists"):
        run(["idle"], "stock,patched", tmp_path)
