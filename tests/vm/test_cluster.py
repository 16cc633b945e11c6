# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs on workers of a cluster: three processes of this machine stand for three machines."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from harness.errors import ExitCode
from harness.events import Deadline
from harness.invoke import invoke, start
from harness.report.finished import SuiteReport
from harness.testing import Freepage
from tests.vm.conftest import assert_all_gone, processes_below
from tests.vm.support.processes import name_of

pytest.importorskip("distributed")

LONGEST = 900
SMALL = ("--memory", "192MiB")


class Members:
    """A scheduler and its workers, which end with the test."""

    def __init__(self, folder: Path, tls: Path | None = None) -> None:
        self._stack = ExitStack()
        self._tls = ["--tls", str(tls)] if tls is not None else []
        self.address_file = folder / "scheduler.json"
        self.processes: dict[str, psutil.Process] = {}
        self.address = self._begin("scheduler", "--address-file", str(self.address_file))

    def _begin(self, *words: str, env: dict[str, str] | None = None) -> str:
        process = self._stack.enter_context(start(["cluster", *words, *self._tls], env=env))
        self._stack.callback(process.terminate)
        assert process.stdout is not None
        said = process.stdout.readline().strip()
        assert said, process.communicate()
        self.processes[said] = psutil.Process(process.pid)
        return said

    def worker(self, name: str, *words: str, env: dict[str, str] | None = None) -> None:
        found = self._begin("worker", self.address, "--name", name, *words, env=env)
        assert found == name

    def runs_of(self, name: str) -> list[psutil.Process]:
        return processes_below(self.processes[name].pid)

    def close(self) -> None:
        self._stack.close()


@pytest.fixture
def members(tmp_path: Path) -> Iterator[Members]:
    found = Members(tmp_path)
    try:
        yield found
    finally:
        found.close()


def test_a_run_whose_worker_is_killed_is_made_elsewhere_and_counts_once(
    freepage: Freepage, members: Members
) -> None:
    for name in ("one", "two", "three"):
        members.worker(name, "--cpus", "1", "--memory", "2GiB")
    out = freepage.folder / "out"
    words = ["run", "idle", "idle", "idle", *SMALL, "--workers", str(members.address_file)]
    with start([*words, "--json", "--out", str(out)]) as process:
        deadline = Deadline(300, "a QEMU of the first worker's")
        while not any(name_of(one).startswith("qemu-system") for one in members.runs_of("one")):
            deadline.check()
        theirs = members.runs_of("one")
        members.processes["one"].kill()
        # Its run does not outlive it.
        assert_all_gone(theirs)
        stdout, stderr = process.communicate(timeout=LONGEST)
    assert process.returncode == ExitCode.PASS, stderr
    report = SuiteReport.model_validate_json(stdout)
    assert Counter(run.name for run in report.runs) == {"idle": 1, "idle#2": 1, "idle#3": 1}
    assert {run.worker for run in report.runs} <= {"two", "three"}
    for run in report.runs:
        assert run.folder is not None and run.result is not None
        assert json.loads(Path(run.folder, "result.json").read_text())["seed"] == run.seed
        assert run.replay.split()[2] == f"{run.folder}/scenario.yaml"


@pytest.mark.slow
def test_what_is_built_here_is_handed_out_and_the_certificates_are_asked_for(
    freepage: Freepage, tmp_path: Path
) -> None:
    tls = tmp_path / "tls"
    assert invoke(["cluster", "certificates", tls]).exit_code == 0
    members = Members(tmp_path, tls)
    try:
        empty = tmp_path / "empty-cache"
        # No mirror: what is not handed out cannot be fetched.
        env = dict(os.environ, FREEPAGE_CACHE=str(empty), FREEPAGE_DEBIAN_MIRROR="http://127.0.0.1:9/none")
        members.worker("far", env=env)
        without = invoke(["run", "idle", "--workers", members.address])
        assert without.exit_code == ExitCode.INPUT or without.exit_code == ExitCode.ERROR, str(without)
        words = ["run", "idle", *SMALL, "--workers", members.address, "--tls", tls, "--artefacts", "1KiB"]
        done = invoke([*words, "--json", "--out", freepage.folder / "far"], timeout=LONGEST)
        assert done.exit_code == ExitCode.PASS, str(done)
        assert json.loads(done.stdout)["verdict"] == "pass"
        assert "hand-out" in done.stderr
        assert "pages.npz" in (freepage.folder / "far" / "LEFT-OUT").read_text()
        again = invoke([*words, "--json", "--out", freepage.folder / "again"], timeout=LONGEST)
        assert again.exit_code == ExitCode.PASS and "hand-out" not in again.stderr, str(again)
    finally:
        members.close()


@pytest.mark.slow
def test_an_interrupted_command_leaves_no_run_on_its_workers(freepage: Freepage, members: Members) -> None:
    members.worker("one", "--cpus", "2")
    out = freepage.folder / "out"
    with start(
        ["run", "churn", "idle", "--workers", members.address, "--json", "--out", str(out)]
    ) as process:
        deadline = Deadline(300, "a QEMU of the worker's")
        while not any(name_of(one).startswith("qemu-system") for one in members.runs_of("one")):
            deadline.check()
        theirs = members.runs_of("one")
        process.terminate()
        stdout, stderr = process.communicate(timeout=LONGEST)
    assert process.returncode == 130, stderr
    assert json.loads(stdout)["interrupted"]
    assert_all_gone(theirs)


@pytest.mark.slow
def test_a_campaign_runs_on_workers(freepage: Freepage, members: Members) -> None:
    members.worker("one")
    members.worker("two")
    out = freepage.folder / "campaign"
    words = ["faults", "run", "--only", "sync-drops-bit", "-j", "2", "--workers", members.address]
    done = invoke([*words, "--json", "--out", out], timeout=LONGEST)
    assert done.exit_code == ExitCode.PASS, str(done)
    assert json.loads(done.stdout)["caught"] == 1
