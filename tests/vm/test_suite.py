# SPDX-License-Identifier: GPL-2.0-or-later
"""Suites whose runs are real: one table, one document, the gravest status, and nothing left behind."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from xml.etree import ElementTree

import pytest

from harness.errors import ExitCode
from harness.events import Deadline
from harness.invoke import start
from harness.report.finished import SuiteReport
from harness.testing import Freepage
from tests.vm.conftest import assert_all_gone, processes_below
from tests.vm.support.processes import name_of

LONGEST = 900


def suite_file(folder: Path, runs: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(f"name: mine\nruns:\n{runs}", encoding="utf-8")
    return path


def test_a_suite_is_one_document_and_its_reports(freepage: Freepage) -> None:
    folder = freepage.folder
    suite = suite_file(
        folder,
        "  - scenarios: [idle]\n"
        '    matrix: {arm: ["off", info]}\n'
        "    set: {guest.memory: 192MiB}\n"
        "  - scenarios: [race-w5]\n"
        "  - scenarios: [idle]\n"
        "    label: no-such-pages\n"
        "    optional: true\n"
        "    set:\n"
        "      guest.memory_backend: {type: memfd, page: 16MiB}\n",
    )
    names = {option: folder / file for option, file in (("--junit", "j.xml"), ("--html", "s.html"))}
    words: list[str | Path] = [word for item in names.items() for word in item]
    done = freepage.command(
        "suite",
        "run",
        suite,
        "-j",
        "2",
        "--seed",
        "7",
        "--json",
        "--out",
        folder / "out",
        *words,
        timeout=LONGEST,
    )
    assert done.exit_code == ExitCode.PASS, str(done)
    report = SuiteReport.model_validate_json(done.stdout)
    assert report == SuiteReport.read(folder / "out" / "suite.json")
    ends = {run.name: run for run in report.runs}
    # Written to fail by a rule, and fails by it; and a run for which the machine has not what it takes.
    assert {name: run.outcome for name, run in ends.items()} == {
        "idle[arm=off]": "pass",
        "idle[arm=info]": "pass",
        "race-w5": "expected",
        "idle[no-such-pages]": "skipped",
    }
    assert ends["idle[arm=off]"].seed == ends["idle[arm=info]"].seed
    assert "huge pages" in ends["idle[no-such-pages]"].reason
    for run in report.runs:
        if run.folder is not None:
            assert (Path(run.folder) / "report.html").is_file()
            # No run's time has a build in it, and each is its own.
            assert run.result is not None and run.result.phases["until_migrated"] < run.seconds
    assert len(list(ElementTree.parse(names["--junit"]).iter("testcase"))) == 4
    assert "report.html" in names["--html"].read_text(encoding="utf-8")


def test_several_scenarios_are_one_document(freepage: Freepage) -> None:
    never = freepage.folder / "never.yaml"
    # Right, and not what the scenario wants.
    never.write_text(
        "name: never\nguest: {memory: 192MiB}\nexpect: {skipped_percent_min: 100}\n", encoding="utf-8"
    )
    ended = freepage.start(str(never), "idle", "-j", "2", "--memory", "192MiB", timeout=LONGEST).end()
    assert ended.exit_code == ExitCode.FAIL, str(ended)
    document = json.loads(ended.stdout)
    assert {run["name"]: run["outcome"] for run in document["runs"]} == {"never": "fail", "idle": "pass"}
    assert document["exit_status"] == 1
    for run in document["runs"]:
        assert Path(run["folder"]).parent == ended.folder
        assert run["result"]["phases"]["until_migrated"] < run["seconds"] <= document["seconds"]


@pytest.mark.slow
def test_what_failed_is_made_again_and_nothing_else(freepage: Freepage) -> None:
    folder = freepage.folder
    (folder / "never.yaml").write_text(
        "name: never\nguest: {memory: 192MiB}\nexpect: {skipped_percent_min: 100}\n", encoding="utf-8"
    )
    suite = suite_file(folder, "  - scenarios: [./never.yaml, idle]\n    set: {guest.memory: 192MiB}\n")
    words = ("suite", "run", suite, "--json", "--out")
    first = freepage.command(*words, folder / "first", "-x", "-j", "1", timeout=LONGEST)
    assert first.exit_code == ExitCode.FAIL, str(first)
    report = SuiteReport.model_validate_json(first.stdout)
    assert ([run.name for run in report.runs], report.not_run) == (["never"], ["idle"])
    again = freepage.command(
        *words, folder / "second", "--rerun-failed", "--last", folder / "first", timeout=LONGEST
    )
    second = SuiteReport.model_validate_json(again.stdout)
    assert {run.name: run.outcome for run in second.runs} == {"never": "fail", "idle": "pass"}
    (never,) = (run for run in second.runs if run.name == "never")
    assert never.seed == report.runs[0].seed
    third = freepage.command(
        *words, folder / "third", "--rerun-failed", "--last", folder / "second", timeout=LONGEST
    )
    assert [run.name for run in SuiteReport.model_validate_json(third.stdout).runs] == ["never"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_run_outlives_its_suite(freepage: Freepage, number: signal.Signals) -> None:
    suite = suite_file(freepage.folder, "  - scenarios: [churn, idle]\n")
    out = freepage.folder / "out"
    with start(["suite", "run", suite, "-j", "2", "--out", out]) as process:
        deadline = Deadline(300, "both runs' QEMUs")
        while sum(name_of(one).startswith("qemu-system") for one in processes_below(process.pid)) < 2:
            deadline.check()
        processes = processes_below(process.pid)
        process.send_signal(number)
        stdout, _ = process.communicate(timeout=LONGEST)
    assert_all_gone(processes)
    if number != signal.SIGKILL:
        assert process.returncode == 130
        report = SuiteReport.read(out / "suite.json")
        assert report.interrupted and {run.exit_status for run in report.runs} == {130}
        assert "interrupted" in stdout
