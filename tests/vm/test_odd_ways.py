# SPDX-License-Identifier: GPL-2.0-or-later
"""A run folder of any name, and a verdict that nobody could be told."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from harness.invoke import child_environment, command_line
from harness.report.folder import INCOMPLETE_MARKER
from harness.report.result import Result


@pytest.mark.slow
def test_a_verdict_that_cannot_be_printed_is_kept_under_any_name(freepage_folder: Path) -> None:
    # libvirt cuts the names of its logs at such characters.
    out = freepage_folder / "a b:c,d 'e' \"f\" <g> ä"
    words = ["run", "idle", "--arm", "off", "--memory", "256MiB", "--json", "--out", out]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command_line(words),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=child_environment(),
            timeout=300,
            check=False,
        )
    assert done.returncode == 3, done.stderr
    assert "No space left on device" in done.stderr
    assert f"the verdict is kept: {out / 'result.json'}" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (out / INCOMPLETE_MARKER).exists()
    assert Result.from_json((out / "result.json").read_text()).verdict == "pass"
