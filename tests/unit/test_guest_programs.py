# SPDX-License-Identifier: GPL-2.0-or-later
"""The unit tests of the guest's own programs, which are in C."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.unit.guest_programs import SOURCES, made, run_make


def test_make_check(tmp_path: Path) -> None:
    """Formula, regions, answers, the agent's channel, the first process: under ASan and UBSan."""
    run_make("check", f"CHECK={tmp_path}")
    passed = {path.stem for path in (tmp_path / "tests").glob("*.passed")}
    assert passed == {path.stem for path in (SOURCES / "tests").glob("*.c")} >= {"agent", "formula"}


@pytest.mark.parametrize("wrong", ['answer("%s");', 'die("%d", "x");', "int unused;"])
def test_a_warning_ends_the_build(tmp_path: Path, wrong: str) -> None:
    source = tmp_path / "wrong.c"
    source.write_text(f'#include "serve.h"\nvoid wrong(void);\nvoid wrong(void)\n{{\n\t{wrong}\n}}\n')
    with pytest.raises(subprocess.CalledProcessError):
        made(tmp_path / "made", "workload", more=[source])


def test_every_program_is_made(tmp_path: Path) -> None:
    """As for a guest, but with this machine's shared libraries."""
    run_make(f"O={tmp_path}", "LDFLAGS=", "CFLAGS=-O0")
    made_here = {path.name for path in tmp_path.iterdir() if path.is_file() and not path.suffix}
    assert made_here == {"init", "stage", "agent", "workload", "device", "exercise", "pages"}
