# SPDX-License-Identifier: GPL-2.0-or-later
"""A bench of real guests: small, and of two arms; what it says must follow from its runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.bench.document import BenchDocument
from harness.invoke import Output
from harness.report.result import Result
from harness.testing import Freepage

LONGEST = 900
#: Under emulation whatever the machine has; times mean nothing here.
SMALL = ("--memory", "256MiB", "--accel", "tcg", "--set", "workload.noise=96MiB", "--window", "0.3")
#: So slow that little is sent before even a busy machine's guest has answered.
CREEP = ("--set", "migration.bandwidth=32MiB/s")


def bench(freepage: Freepage, *words: str | Path) -> Output:
    qemu = freepage.defaults.get("qemu")
    more = ["--qemu", qemu] if qemu is not None and words[0] != "compare" else []
    return freepage.command("bench", *words, *more, timeout=LONGEST)


def test_a_bench_of_two_arms(freepage: Freepage, freepage_folder: Path) -> None:
    out = freepage_folder / "bench"
    words = ("freed", "--arms", "off,info", "--repeat", "1", *SMALL, *CREEP, "--json", "--out", out)
    done = bench(freepage, *words)
    assert done.exit_code == 0, done.stderr
    found = BenchDocument.from_json(done.stdout)
    assert (out / "bench.json").read_text() == done.stdout
    assert [point.arm for point in found.points] == ["off", "info"]
    off, info = found.points
    assert info.median["sent_bytes"] is not None
    assert off.median["sent_bytes"] is not None
    # 96 MiB of noise were free, and only one arm knows.
    assert off.median["sent_bytes"] - info.median["sent_bytes"] > 64 << 20
    assert info.median["skipped_pages"] > 10_000  # type: ignore[operator]
    for point in found.points:
        (run,) = point.runs
        assert (run.verdict, run.counted) == ("pass", True)
        result = Result.from_json((out / run.folder / "result.json").read_text())
        assert result.bytes.sent == run.values["sent_bytes"]
        # Measured, not made up: both QEMUs worked, and the guest was watched.
        assert run.values["cpu_s"] > 0  # type: ignore[operator]
        assert run.values["destination_rss_bytes"] > 32 << 20  # type: ignore[operator]
        assert run.values["memfree_lowest_bytes"] > 32 << 20  # type: ignore[operator]
        assert run.free_blocks is not None
    assert "<svg" in (out / "report.html").read_text()
    # Again: nothing is left to be made, and the same comes out.
    before = sorted(path.name for path in (out / "runs").iterdir())
    again = bench(freepage, *words)
    assert again.exit_code == 0, again.stderr
    assert BenchDocument.from_json(again.stdout).points == found.points
    assert sorted(path.name for path in (out / "runs").iterdir()) == before
    compared = bench(freepage, "compare", out / "bench.json", out / "bench.json", "--json")
    assert compared.exit_code == 0, compared.stderr
    assert json.loads(compared.stdout)["exit_code"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["compile", "pagecache", "database"])
def test_a_workload_that_works_on_is_right_after_it_moved(freepage: Freepage, kind: str) -> None:
    memory = "1GiB" if kind == "database" else "512MiB"
    settings = {"measure.before_s": 1}
    run = freepage.run(kind, memory=memory, accel="tcg", strict=False, set=settings)
    assert run.exit_code == 0, str(run)
    result = run.result
    assert result.pages.wrong == 0
    assert result.guest.checksum_matches
    assert (result.guest.verify_bad, result.guest.exercise_bad) == (0, 0)
    assert result.work is not None
    assert result.work.unit
    if kind != "compile":  # a file may take longer than a window
        assert result.work.after is not None
        assert result.work.after.work > 0
    assert not (run.folder / "disk.raw").exists()
