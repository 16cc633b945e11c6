# SPDX-License-Identifier: GPL-2.0-or-later
"""What the history answers: since when, how often, what has moved; and its pages."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.errors import InputError
from harness.history.ask import Selection, current, past_batches
from harness.history.changes import change_points
from harness.history.rates import failure_rate
from harness.history.record import Batch, KeptRun, record_batch
from harness.history.site import page_name, write_site
from harness.history.store import open_for_writing

BEGAN = datetime(2026, 5, 1, tzinfo=UTC)


def night(number: int) -> datetime:
    return BEGAN + timedelta(days=number)


def kept(number: int, outcome: str, *, build: str = "b1", total: float = 100.0, **more: object) -> KeptRun:
    values: dict[str, object] = {
        "name": "freed arm=info",
        "scenario": "freed",
        "outcome": outcome,
        "exit_status": 0,
        "reason": "<b>why</b>",
        "began": night(number),
        "seconds": 8.0,
        "rule": "lost" if outcome == "fail" else None,
        "qemu": "10.0.13 patched",
        "build": build,
        "accelerator": "tcg",
        "replay": "freepage run freed",
        "measures": {"total_ms": total},
    }
    return KeptRun(**{**values, **more})  # type: ignore[arg-type]


def store_of(path: Path, runs: list[KeptRun]) -> str:
    with open_for_writing(str(path)) as store:
        assert store is not None
        for number, run in enumerate(runs):
            record_batch(store, Batch("suite", f"s{number}", "again", run.began), [run])
    return str(path)


def state(path: Path, outcomes: list[str], builds: str = "b1") -> tuple[object, ...]:
    place = store_of(path, [kept(n, word, build=builds) for n, word in enumerate(outcomes)])
    with open_for_writing(place) as store:
        assert store is not None
        (found,) = current(store, Selection())
    return found.failing_since, found.good_until, found.flaky, found.rate.wrong, found.rate.runs, found.errors


def test_what_fails_and_since_when(tmp_path: Path) -> None:
    found = state(tmp_path / "a", ["pass", "pass", "fail", "fail"])
    assert found == (night(2), night(1), False, 2, 4, 0)


def test_what_was_never_right_has_failed_since_its_first_run(tmp_path: Path) -> None:
    assert state(tmp_path / "a", ["fail", "fail"])[:3] == (night(0), None, False)


def test_a_run_without_a_verdict_says_nothing_of_the_scenario(tmp_path: Path) -> None:
    assert state(tmp_path / "a", ["pass", "error", "refused"]) == (None, None, False, 0, 1, 2)


def test_right_after_wrong_with_the_same_build_is_flaky(tmp_path: Path) -> None:
    assert state(tmp_path / "a", ["fail", "pass"])[2] is True
    place = store_of(tmp_path / "b", [kept(0, "fail", build="old"), kept(1, "pass", build="new")])
    with open_for_writing(place) as store:
        assert store is not None
        assert not current(store, Selection())[0].flaky


def test_a_fault_that_is_shown_is_right(tmp_path: Path) -> None:
    assert state(tmp_path / "a", ["expected", "expected"])[0] is None


@pytest.mark.parametrize(
    ("wrong", "runs", "low", "high"), [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0)]
)
def test_wilsons_interval(wrong: int, runs: int, low: float, high: float) -> None:
    # Values of the literature, as in R's binom::binom.wilson().
    found = failure_rate(wrong, runs)
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))
    with pytest.raises(ValueError, match="failed"):
        failure_rate(2, 1)


def test_a_change_is_found_where_it_is() -> None:
    noise = random.Random(3)
    values = [noise.gauss(100, 4) for _ in range(40)] + [noise.gauss(120, 4) for _ in range(30)]
    values += [noise.gauss(90, 4) for _ in range(30)]
    found = change_points(values)
    assert [change.at for change in found] == [pytest.approx(40, abs=1), pytest.approx(70, abs=1)]
    assert found[0].share == pytest.approx(0.2, abs=0.05)


def test_outliers_and_noise_are_no_change() -> None:
    alarms = 0
    for seed in range(300):
        noise = random.Random(seed)
        values = [noise.lognormvariate(3, 0.3) * (5 if noise.random() < 0.05 else 1) for _ in range(80)]
        alarms += bool(change_points(values))
    assert alarms <= 2
    assert change_points([5.0] * 50) == []
    # As sure as can be, and too small to matter.
    assert change_points([100.0] * 30 + [101.0] * 30) == []


def test_pages_show_all_and_escape_what_runs_say(tmp_path: Path) -> None:
    runs = [kept(n, "pass", total=100 + n % 3) for n in range(20)]
    runs += [kept(20 + n, "pass", total=200 + n % 3, build="b2") for n in range(20)]
    runs.append(kept(41, "fail", build="b2", reason="<script>alert(1)</script>"))
    place = store_of(tmp_path / "h", runs)
    with open_for_writing(place) as store:
        assert store is not None
        count = write_site(store, tmp_path / "site", Selection())
        assert count == len(list((tmp_path / "site").rglob("*.html"))) == 1 + 1 + 1 + 41
        # A site is written again in place; anything else is left alone.
        write_site(store, tmp_path / "site", Selection())
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "x").touch()
        with pytest.raises(InputError, match="not empty"):
            write_site(store, tmp_path / "mine", Selection())
    index = (tmp_path / "site" / "index.html").read_text()
    scenario = (tmp_path / "site" / "scenario" / f"{page_name('freed')}.html").read_text()
    assert "+99 %" in index
    assert 'class="change"' in scenario
    assert "<script" not in scenario
    assert "&lt;script&gt;" in scenario
    # Every link leads to a page.
    for page in (tmp_path / "site").rglob("*.html"):
        for link in page.read_text().split('href="')[1:]:
            assert (page.parent / link.split('"')[0]).is_file(), link


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--history", "{there}"], 0, "failing:"),
        (["runs", "--history", "{there}", "--rule", "lost"], 0, "fail"),
        (["nights", "--history", "{there}"], 0, "1 fail"),
        (["moved", "--history", "{there}"], 0, "0 changes beyond noise"),
        (["--history", "{nowhere}"], 2, "no store of results"),
        (["--history", "off"], 2, "no store"),
        (["--since", "yesterday", "--history", "{there}"], 2, "expected a date"),
        (["--kind", "x", "--history", "{there}"], 2, "expected suite"),
        (["moved", "--measure", "total", "--history", "{there}"], 2, "total_ms"),
        (["import", "{nowhere}", "--history", "{there}"], 2, "folder of no suite"),
    ],
)
def test_the_command(words: list[str], status: int, said: str, tmp_path: Path) -> None:
    there = store_of(tmp_path / "h", [kept(0, "pass"), kept(1, "fail")])
    filled = [word.format(there=there, nowhere=tmp_path / "nowhere") for word in words]
    result = CliRunner().invoke(app, ["history", *filled])
    error = result.exception
    if isinstance(error, InputError):
        assert (status, said in error.render()) == (2, True)
    else:
        assert (result.exit_code, True) == (status, said in result.output)


def test_the_document(tmp_path: Path) -> None:
    there = store_of(tmp_path / "h", [kept(0, "pass"), kept(1, "fail")])
    result = CliRunner().invoke(app, ["history", "--history", there, "--json"])
    document = json.loads(result.output)
    assert (document["runs"], document["failing"]) == (2, 1)
    assert document["states"][0]["rules"] == ["lost"]


def test_of_a_hunt_what_was_found_is_kept_and_a_hunt_without_a_find_too(tmp_path: Path) -> None:
    from harness.history.hunt import hunt_batch
    from harness.hunt.coverage import CoverageReport
    from harness.hunt.hunter import FoundFailure, HuntReport

    found = FoundFailure("lost", "a page is lost", "hunt/found/1.yaml", True, "3 of 3", 40)
    fields = dict.fromkeys(CoverageReport.__dataclass_fields__, 0)
    report = HuntReport(
        seed=1,
        qemu="qemu 10.0.13",
        runs=50,
        words={"pass": 49, "fail": 1},
        found=(found,),
        once=(),
        known={},
        refused={},
        errors={},
        coverage=CoverageReport(**fields),
        ended="time",
    )
    quiet = HuntReport(**{**{name: getattr(report, name) for name in report.__slots__}, "found": ()})
    with open_for_writing(str(tmp_path / "h")) as store:
        assert store is not None
        for one, number in ((report, 0), (quiet, 1)):
            batch = hunt_batch(one, night(number), 60.0, 1 - number, "freepage hunt")
            record_batch(store, batch.batch, batch.runs)
        (state,) = current(store, Selection(kind="hunt"))
        with store.reading() as connection:
            batches = past_batches(connection)
    assert (state.label, state.rules, state.replay) == (
        "hunt lost",
        ("lost",),
        "freepage run hunt/found/1.yaml",
    )
    assert [(one.kind, one.exit_status, one.host["runs"]) for one in batches] == [
        ("hunt", 0, "50"),
        ("hunt", 1, "50"),
    ]
