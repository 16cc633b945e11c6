# SPDX-License-Identifier: GPL-2.0-or-later
"""docs/scenario.md says what the classes say."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Literal, get_args

import pytest

from harness.errors import InputError
from harness.scenario.document import main, refreshed, tables
from harness.scenario.moments import MOMENTS, Moment
from harness.scenario.workloads.base import WORKLOADS, Workload


@pytest.fixture
def text(repository: Path) -> str:
    return (repository / "docs" / "scenario.md").read_text(encoding="utf-8")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the document has the machine types of x86")
def test_the_document_is_up_to_date(text: str) -> None:
    assert refreshed(text) == text, "run: python -m harness.scenario.document docs/scenario.md"


def test_every_moment_is_described() -> None:
    assert tuple(MOMENTS) == get_args(Moment)


def test_every_key_and_every_word_has_a_meaning() -> None:
    for name, table in tables().items():
        for line in table.splitlines()[2:]:
            meaning = line.split(" | ")[-1].removesuffix("|").strip()
            assert len(meaning) > 3, f"{name}: {line}"


def test_a_new_workload_is_in_the_table(text: str) -> None:
    with WORKLOADS.temporary():

        class Sleepy(Workload):
            """The guest is asleep."""

            kind: Literal["sleepy"] = "sleepy"
            """Which workload."""
            hours: int = 8
            """How long."""

        new = refreshed(text)
        assert new != text
        added = set(new.splitlines()) - set(text.splitlines())
        assert added == {
            "| `sleepy` |  |  |  | The guest is asleep. |",
            "|  | `hours` | a whole number | `8` | How long. |",
        }
    assert refreshed(new) == text


def test_the_command_writes_and_checks(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "scenario.md"
    file.write_text(text.replace("| `vcpus` |", "| `cpus` |"), encoding="utf-8")
    assert main([str(file), "--check"]) == 1
    assert main([str(file)]) == 0
    assert file.read_text(encoding="utf-8") == text
    assert main([str(file), "--check"]) == 0
    file.write_text("# Nothing\n", encoding="utf-8")
    assert main([str(file)]) == 2
    assert "has no place for: <!-- generated: top level -->" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("generated: guest -->", "generated: gest -->", "no table 'gest'"),
        ("<!-- generated: expect -->", "", "no place for: <!-- generated: expect -->"),
        ("<!-- end -->", "", "has no end"),
    ],
)
def test_a_table_without_a_place_is_named(text: str, old: str, new: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        refreshed(text.replace(old, new))
