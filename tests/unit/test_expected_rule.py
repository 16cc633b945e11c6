# SPDX-License-Identifier: GPL-2.0-or-later
"""``expect.rule``: only what something can be found by, and every name is in the table of rules."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import harness
from harness import cli
from harness.errors import ExitCode, InputError, MachineryError
from harness.scenario.actions.base import ACTIONS
from harness.scenario.load import load_scenario
from harness.verdict.expected_rule import demand_known_rule
from harness.verdict.facts import CourseOfRun
from harness.verdict.finding import Finding
from harness.verdict.judge import JudgeInput, judge
from harness.verdict.registry import known_names

SOURCES = sorted(Path(harness.__file__).parent.rglob("*.py"))


def _scenario(folder: Path, rule: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(f"name: mine\narm: off\nexpect:\n  verdict: fail\n  rule: {rule}\n")
    return path


@pytest.mark.parametrize("words", ["scenario check", "run", "run --print-command", "run --qemu-matrix stock"])
def test_a_misspelt_rule_is_refused_when_the_file_is_read(
    tmp_path: Path, words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _scenario(tmp_path, "qmp-anser")
    monkeypatch.setattr(sys, "argv", ["freepage", *words.split(" "), str(path)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == ExitCode.INPUT
    said = capsys.readouterr()
    assert f"{path}:5:3: expect.rule: there is no rule 'qmp-anser'; the nearest are qmp-answer" in said.err
    assert not said.out


def test_a_rule_like_no_other_is_answered_with_where_they_are(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no rule 'xyz'; docs/oracle.md has the table"):
        demand_known_rule(load_scenario(str(_scenario(tmp_path, "xyz"))))


@pytest.mark.parametrize("rule", ["differs-not-skipped", "stuck", "event-missing", "command-status"])
def test_rules_of_pages_of_the_run_and_of_actions_are_known(tmp_path: Path, rule: str) -> None:
    demand_known_rule(load_scenario(str(_scenario(tmp_path, rule))))


def _called(node: ast.Call) -> str:
    return node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")


def _named_in(path: Path) -> Iterator[tuple[str, str]]:
    """Names that a finding is given in words: where, and which."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        first = node.args[0]
        of_stage = _called(node) == "find" and ast.unparse(node.func) in ("stage.find", "self._stage.find")
        if (of_stage or _called(node) == "Finding") and isinstance(first, ast.Constant):
            yield f"{path.name}:{node.lineno}", str(first.value)


def test_every_name_in_the_code_is_in_the_table() -> None:
    found = [named for path in SOURCES for named in _named_in(path)]
    assert len(found) > 50
    assert [(where, name) for where, name in found if name not in known_names()] == []


def test_an_action_finds_what_it_says_that_it_finds() -> None:
    """The same name has the same words wherever it stands."""
    words: dict[str, str] = {}
    for action in ACTIONS.values():
        for name, text in action.finds.items():
            assert words.setdefault(name, text) == text


def test_what_a_script_finds_under_no_name_of_the_table_is_a_fault_of_the_action() -> None:
    with pytest.raises(MachineryError, match="unheard-of"):
        judge(JudgeInput("off", ()), CourseOfRun((Finding("unheard-of", "expectation", "words"),)))
