# SPDX-License-Identifier: GPL-2.0-or-later
"""A program of the user's own as a workload: one that is right, and one that comes upon something wrong."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from harness.testing import Freepage, Run

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "user"
COUNTS = 'puts("work 1");'


@pytest.fixture
def freepage(freepage: Freepage) -> Freepage:
    """With the memory that the scenario says."""
    return freepage.with_defaults(memory=None)


def run_with(freepage: Freepage, folder: Path, wrong: str = "") -> Run:
    """The example's scenario, whose program does ``wrong`` after each step."""
    text = (EXAMPLE / "counter.c").read_text("utf-8")
    assert text.count(COUNTS) == 1
    (folder / "own.c").write_text(text.replace(COUNTS, COUNTS + wrong), encoding="utf-8")
    subprocess.run(["gcc", "-O2", "-static", "-o", folder / "own", folder / "own.c"], check=True)
    return freepage.run(str(EXAMPLE / "user.yaml"), set={"workload.program": str(folder / "own")})


@pytest.mark.slow
def test_a_program_that_is_right(freepage: Freepage, freepage_folder: Path) -> None:
    run = run_with(freepage, freepage_folder)
    assert run.verdict == "pass"


@pytest.mark.slow
def test_a_program_that_finds_its_data_wrong(freepage: Freepage, freepage_folder: Path) -> None:
    run = run_with(freepage, freepage_folder, "words[77] ^= 1;")
    assert run.verdict == "fail"
    assert "guest-verify" in {finding.rule for finding in run.result.findings}
    assert "wrong: word 77 is" in (run.folder / "console.log").read_text("utf-8", "replace")


@pytest.mark.slow
def test_a_program_that_ends(freepage: Freepage, freepage_folder: Path) -> None:
    run = run_with(freepage, freepage_folder, "if (argc > 1) return 3;")
    assert run.verdict == "fail"
    assert "guest-verify" in {finding.rule for finding in run.result.findings}
