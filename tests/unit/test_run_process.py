# SPDX-License-Identifier: GPL-2.0-or-later
"""Many runs, each a fork of one process that has loaded all: each is the command, as a user starts it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

#: In a process of its own, which the server ends with.
STARTER = """
import os, pathlib, select, signal, sys
from harness import run_process
from harness.run_process import start_run

if __name__ == "__main__":
    if sys.argv[1] == "command":
        run_process._Forked = run_process._Command
    out, err = pathlib.Path("out"), pathlib.Path("err")
    right = start_run(["suite", "schema"], stdout=out, stderr=err)
    wrong = start_run(["run", "no-such-scenario"], stdout=err, stderr=err)
    assert (right.wait(), wrong.wait()) == (0, 2)
    # The folder is the caller's, of the time of each start; and no option comes from a variable.
    os.environ["FREEPAGE_RUN_MEMORY"] = "nonsense"
    for name in ("one", "other"):
        os.mkdir(name)
        os.chdir(name)
        pathlib.Path("mine.yaml").write_text(f"name: {name}\\nworkload: {{kind: idle}}\\n")
        assert start_run(["scenario", "show", "mine.yaml"], stdout=out, stderr=out).wait() == 0
        assert f"name: {name}" in out.read_text()
        os.chdir("..")
    process = start_run(["suite", "schema"], stdout=err, stderr=err)
    process.kill()
    poll = select.poll()
    poll.register(process.sentinel, select.POLLIN)
    assert poll.poll()
    # It may have been quicker than the signal.
    assert process.wait() in (-signal.SIGKILL, 0)
    assert process.wait(0.01) in (-signal.SIGKILL, 0)
    print("done")
"""


@pytest.mark.parametrize("way", ["forked", "command"])
def test_a_run_says_and_ends_with_what_the_command_does(tmp_path: Path, way: str) -> None:
    script = tmp_path / "starter.py"
    script.write_text(STARTER)
    done = subprocess.run(
        [sys.executable, script, way], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
    assert "properties" in json.loads((tmp_path / "out").read_text())
    assert "no such scenario" in (tmp_path / "err").read_text()
