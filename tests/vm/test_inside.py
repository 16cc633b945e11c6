# SPDX-License-Identifier: GPL-2.0-or-later
"""What needs the pieces of a run in another order; see :mod:`tests.vm.programs.inside`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.vm.conftest import LONGEST

QEMU = os.environ.get("FREEPAGE_TEST_QEMU")


def inside(what: str, folder: Path, repository: Path) -> Any:
    """What the program printed."""
    command = [
        sys.executable,
        "-m",
        "tests.vm.programs.inside",
        what,
        str(folder / "run"),
        *([QEMU] if QEMU else []),
    ]
    done = subprocess.run(
        command, cwd=repository, capture_output=True, text=True, timeout=LONGEST, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_an_ssh_session_survives_the_migration(folder: Path, repository: Path) -> None:
    seen = inside("ssh", folder, repository)
    assert seen["before"] == seen["after"]
    assert seen["mark"] == "kept\n"
    assert seen["where"] == {"source": 0, "destination": 1}


def test_a_changed_bit_is_found(folder: Path, repository: Path) -> None:
    """A checker that nobody has seen fail is not a checker."""
    seen = inside("corrupt", folder, repository)
    assert seen["verdict"] == "fail"
    assert [page for page, _ in seen["wrong"]] == seen["changed"]
    assert {rule for _, rule in seen["wrong"]} == {
        "differs-though-sent",
        "skipped-but-not-zero-on-destination",
    }


def test_the_balloon_works_before_and_after_a_migration(folder: Path, repository: Path) -> None:
    """Inflated on the source, deflated on the destination, and statistics on both."""
    seen = inside("balloon", folder, repository)
    before, after = seen["before"], seen["after"]
    assert before["actual"] == 384 << 10
    assert after["actual"] == 512 << 10
    # What was given back can be used again; the statistics are the guest's own.
    assert after["unused"] - before["unused"] > 100 << 10


def test_a_guest_that_clears_what_it_frees_gets_zeros(folder: Path, repository: Path) -> None:
    """With init_on_free nobody clears a page when it is taken: one that was skipped must be zeros."""
    seen = inside("init-on-free", folder, repository)
    assert seen["skipped"] > 50_000
    assert seen["exercise"]["pages"] > 50_000
    assert (seen["exercise"]["bad"], seen["exercise"]["nonzero"]) == (0, 0)


def test_such_a_guest_would_notice(folder: Path, repository: Path) -> None:
    """The test above can fail: of 2000 pages that are not zeros, most are found, or somebody dies of them."""
    seen = inside("init-on-free-planted", folder, repository)
    assert seen["trouble"] or seen["exercise"]["nonzero"] > 1000


@pytest.mark.slow
def test_others_do_not_care(folder: Path, repository: Path) -> None:
    """Without it the same pages are cleared when they are taken."""
    seen = inside("init-on-alloc-planted", folder, repository)
    assert seen["exercise"]["nonzero"] == 0
