# SPDX-License-Identifier: GPL-2.0-or-later
"""The examples of docs/testing.md, by a pytest of their own: they know nothing but the plugin."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

#: Four guests, one after the other.
LONGEST = 1100


@pytest.fixture
def example(repository: Path, folder: Path, freepage_qemu: str | None) -> Example:
    return Example(repository / "docs/examples", folder, freepage_qemu)


class Example:
    """Runs an example where nothing else is."""

    def __init__(self, examples: Path, folder: Path, qemu: str | None) -> None:
        self.folder = folder
        self._examples = examples
        self._qemu = [f"--freepage-qemu={qemu}"] if qemu else []

    def run(self, name: str) -> subprocess.CompletedProcess[str]:
        shutil.copytree(self._examples / name, self.folder / name)
        # By its name, for a checkout whose entry points are not installed.
        command = [sys.executable, "-m", "pytest", "-v", "-p", "harness.testing.plugin", *self._qemu]
        done = subprocess.run(
            [*command, "--rootdir=."],
            cwd=self.folder / name,
            capture_output=True,
            text=True,
            check=False,
            timeout=LONGEST,
        )
        print(done.stdout, done.stderr)
        return done


def test_the_example_project(example: Example) -> None:
    done = example.run("my-qemu")
    assert done.returncode == 0
    assert "4 passed" in done.stdout
    assert re.search(r"test_every_page_arrives\[machine=q35.*\] PASSED", done.stdout)
    # Each test has left a folder.
    assert len(list((example.folder / "my-qemu").glob("freepage-results/*/test_my_qemu/*"))) == 4


def test_what_goes_wrong_is_told_apart(example: Example) -> None:
    done = example.run("wrong")
    assert done.returncode == 1
    # A folder of results inside of a checkout has that one's settings, of which pytest warns.
    assert re.search(r"1 failed(, \d+ warnings?)?, 1 error in", done.stdout)
    assert re.search(r"^FAILED test_wrong.py::test_all_is_left_behind", done.stdout, re.MULTILINE)
    assert re.search(r"^ERROR test_wrong.py::test_a_guest_that_panics", done.stdout, re.MULTILINE)
    assert "the guest's kernel panicked" in done.stdout
    for folder in re.findall(r"^folder of this test: (.*)$", done.stdout, re.MULTILINE):
        assert list(Path(folder).glob("run-1-*/console.log"))
