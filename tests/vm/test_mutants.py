# SPDX-License-Identifier: GPL-2.0-or-later
"""``freepage faults mutate``: a line of QEMU is changed, built, run and caught; a second search knows it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from harness.testing import Freepage

SUITE = """\
name: one
runs:
  - scenarios: [churn]
    set: {guest.memory: 256MiB, workload.noise: 64MiB}
"""
FUNCTION = "migration/ram.c:ram_load_precopy"
LINE = "qemu_get_buffer(f, host, TARGET_PAGE_SIZE);"


def mutate(freepage: Freepage, *options: str) -> tuple[int, dict[str, Any]]:
    suite = freepage.folder / "one.yaml"
    suite.write_text(SUITE)
    words = ["--functions", FUNCTION, "--suite", str(suite), "--out", str(freepage.folder / "mutants")]
    output = freepage.command("faults", "mutate", *words, "--json", *options, timeout=1800)
    assert output.exit_code in (0, 1), str(output)
    report: dict[str, Any] = json.loads(output.stdout)
    return output.exit_code, report


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_line_of_qemu_that_is_wrong_is_caught(freepage: Freepage) -> None:
    _, drawn = mutate(freepage, "--draw-only", "--count", "1000")
    chosen = next(one for one in drawn["mutants"] if one["before"] == LINE and one["after"] == ";")
    status, report = mutate(freepage, "--only", chosen["id"])
    (found,) = report["mutants"]
    assert status == 0, report
    assert found["outcome"] == "caught"
    assert found["rule"]
    assert report["score_percent"] == 100
    _, again = mutate(freepage, "--only", chosen["id"])
    # No run was made for it.
    assert again["mutants"] == report["mutants"]
