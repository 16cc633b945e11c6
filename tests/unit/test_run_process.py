# SPDX-License-Identifier: GPL-2.0-or-later
"""Many runs, each a fork of one process that has loaded all: each is the command, as a user starts it."""

from __future__ import annotations

import json
import select
import signal
from pathlib import Path

import pytest

from harness import run_process
from harness.run_process import start_run


@pytest.fixture(params=["forked", "command"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "command":
        monkeypatch.setattr(run_process, "_Forked", run_process._Command)
    return str(request.param)


@pytest.mark.usefixtures("way")
def test_it_says_and_ends_with_what_the_command_does(tmp_path: Path) -> None:
    out, err = tmp_path / "out", tmp_path / "err"
    right = start_run(["suite", "schema"], stdout=out, stderr=err)
    wrong = start_run(["run", "no-such-scenario"], stdout=err, stderr=err)
    assert (right.wait(), wrong.wait()) == (0, 2)
    assert "properties" in json.loads(out.read_text())
    assert "no such scenario" in err.read_text()


@pytest.mark.usefixtures("way")
def test_options_that_stand_in_variables_are_not_taken_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the folder is the caller's, of the time of each start."""
    monkeypatch.setenv("FREEPAGE_SCENARIO_SHOW_NOTHING", "x")
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.yaml").write_text(f"name: {name}\nworkload: {{kind: idle}}\n")
        monkeypatch.chdir(tmp_path / name)
        said = tmp_path / f"{name}.out"
        assert start_run(["scenario", "show", "mine.yaml"], stdout=said, stderr=said).wait() == 0
        assert f"name: {name}" in said.read_text()


@pytest.mark.usefixtures("way")
def test_its_end_is_seen_by_whoever_waits_for_several(tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start_run(["suite", "schema"], stdout=out, stderr=out)
    process.kill()
    poll = select.poll()
    poll.register(process.sentinel, select.POLLIN)
    assert poll.poll()
    # It may have been quicker than the signal.
    assert process.wait() in (-signal.SIGKILL, 0)
