# SPDX-License-Identifier: GPL-2.0-or-later
"""What ci/examples has to copy: by each CI's own schema, and with commands that are understood."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.test_docs import problem_with

EXAMPLES = Path(__file__).parents[2] / "ci" / "examples"
NIGHTLY = EXAMPLES.parent / "nightly"

#: The schemas that check-jsonschema carries.
SCHEMAS = {"github-actions.yml": "vendor.github-workflows", "gitlab-ci.yml": "vendor.gitlab-ci"}

#: What a CI puts there when it runs.
_VALUES = (
    (r"\$\{\{ matrix\.shard \}\}|\$SHARD|\$CI_NODE_INDEX", "1"),
    (r"\$\{\{ github\.run_number \}\}|\$BUILD_NUMBER|\$CI_PIPELINE_ID|\$CI_NODE_TOTAL", "4"),
)


def schema_problems(path: Path, schema: str) -> str:
    words = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_examples_are_what_their_ci_reads(name: str) -> None:
    assert schema_problems(EXAMPLES / name, SCHEMAS[name]) == ""


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("github-actions.yml", "    steps:", "    stepz:"),
        ("gitlab-ci.yml", "parallel: 4", "parallel: many"),
    ],
)
def test_what_is_wrong_in_one_is_seen(tmp_path: Path, name: str, right: str, wrong: str) -> None:
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    assert right in text
    (tmp_path / name).write_text(text.replace(right, wrong), encoding="utf-8")
    assert schema_problems(tmp_path / name, SCHEMAS[name]) != ""


@pytest.mark.skipif(shutil.which("actionlint") is None, reason="no actionlint")
def test_actionlint_has_nothing_to_say() -> None:
    words = ["actionlint", "-config-file", os.devnull, str(EXAMPLES / "github-actions.yml")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    # Labels of runners of one's own are not known to it.
    said = [line for line in done.stdout.splitlines() if "runner-label" not in line and ".yml:" in line]
    assert said == []


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    for place in EXAMPLES.glob("freepage-nightly.*"):
        # Its programs are on the machine that it is for.
        text = re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", place.read_text(encoding="utf-8"), flags=re.M)
        (tmp_path / place.name).write_text(text, encoding="utf-8")
    units = sorted(str(path) for path in tmp_path.iterdir())
    assert len(units) == 2
    words = ["systemd-analyze", "verify", "--man=no", *units]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    said = [line for line in done.stderr.splitlines() if "freepage-nightly" in line]
    assert said == []


def test_the_pipeline_for_jenkins_is_whole() -> None:
    text = re.sub(r"//.*", "", (EXAMPLES / "Jenkinsfile").read_text(encoding="utf-8"))
    depth = 0
    for sign in re.sub(r"'[^']*'|\"[^\"]*\"", "", text):
        depth += (sign in "{(") - (sign in "})")
        assert depth >= 0
    assert depth == 0
    for section in (
        "pipeline",
        "agent none",
        "stages",
        "matrix",
        "axes",
        "junit testResults",
        "archiveArtifacts",
    ):
        assert section in text


def commands(path: Path) -> list[list[str]]:
    """The words after ``freepage`` of every command in a file; ``ci/nightly suite`` is one, too."""
    text = path.read_text(encoding="utf-8")
    for pattern, value in _VALUES:
        text = re.sub(pattern, value, text)
    found = []
    for line in text.splitlines():
        if line.lstrip().startswith(("#", "//")):
            continue
        match = re.search(r"(?:^|[\s/'])(freepage|ci/nightly) ((?:suite|report) [^'\n]*)", line)
        if match is not None:
            words = [word for word in shlex.split(match.group(2)) if word != "$@"]
            found.append(["suite", "run", "nightly", *words[1:]] if match.group(1) == "ci/nightly" else words)
    return found


@pytest.mark.parametrize("path", sorted([*EXAMPLES.iterdir(), NIGHTLY]), ids=lambda path: path.name)
def test_every_command_of_the_examples_is_understood(path: Path) -> None:
    found = commands(path)
    assert found or path.suffix == ".timer"
    for words in found:
        assert problem_with(words) is None, words


def test_the_shards_are_as_many_as_they_say() -> None:
    github = (EXAMPLES / "github-actions.yml").read_text(encoding="utf-8")
    assert "shard: [1, 2, 3, 4]" in github and "matrix.shard }}/4" in github
    jenkins = (EXAMPLES / "Jenkinsfile").read_text(encoding="utf-8")
    assert "values '1', '2', '3', '4'" in jenkins and '"$SHARD/4"' in jenkins


def test_nightly_refuses_what_it_does_not_know() -> None:
    done = subprocess.run([str(NIGHTLY), "suites"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "expected suite, tests or nothing" in done.stderr
