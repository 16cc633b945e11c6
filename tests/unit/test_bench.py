# SPDX-License-Identifier: GPL-2.0-or-later
"""The bench without a guest: its plan, its folder, what it makes of runs, and how it compares two."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from harness import accel, invoke
from harness.bench import command, runner
from harness.bench.compare import compare_benches
from harness.bench.compared import comparison_document, comparison_lines
from harness.bench.document import BenchDocument, BenchRun
from harness.bench.folder import BenchFolder, BenchRunEnd
from harness.bench.markdown import markdown_table, to_markdown
from harness.bench.measures import BY_NAME, MEASURES, values_of
from harness.bench.plan import PlannedRun, Point, make_plan, make_points
from harness.bench.runner import BenchRequest
from harness.bench.summarise import BenchSetting, CountedRun, summarise_bench
from harness.errors import ExitCode, InputError
from harness.events import Event, EventStream
from harness.evidence.cost_meter import CostMeter
from harness.evidence.work_meter import migration_marks, stood_still
from harness.hosts.process import Usage, usage_of
from harness.report.costs import Cost, ProcessCost, Walk, WindowRate, Work
from harness.report.result import Result
from tests.unit.test_result import passing, result

GIB = 1 << 30
ARMS = ("off", "hint", "info")


# --- plan


def test_every_repeat_visits_every_point_once() -> None:
    points = make_points(["idle", "freed"], [GIB, 2 * GIB], ARMS)
    plan = make_plan(points, 4, seed=9)
    assert [run.number for run in plan] == list(range(1, 49))
    for repeat in range(1, 5):
        assert sorted(run.point for run in plan if run.repeat == repeat) == sorted(points)


def test_arms_run_side_by_side_on_the_same_content() -> None:
    plan = make_plan(make_points(["idle", "freed"], [GIB], ARMS), 5, seed=1)
    seeds = set()
    for start in range(0, len(plan), 3):
        group = plan[start : start + 3]
        assert {run.point.arm for run in group} == set(ARMS)
        assert len({(run.point.scenario, run.seed, run.repeat) for run in group}) == 1
        seeds.add(group[0].seed)
    assert len(seeds) == len(plan) // 3


def test_the_order_is_of_the_seed_and_favours_no_arm() -> None:
    points = make_points(["freed"], [None], ARMS)
    assert make_plan(points, 5, seed=1) == make_plan(points, 5, seed=1)
    assert make_plan(points, 5, seed=1) != make_plan(points, 5, seed=2)
    first = Counter(run.point.arm for run in make_plan(points, 300, seed=1)[::3])
    assert all(70 < first[arm] < 130 for arm in ARMS)


def test_a_points_label_is_a_folders_name() -> None:
    assert Point("freed", 2 * GIB, "info").label == "freed-2GiB-info"
    assert Point("/somewhere/else/mine.yaml", None, "off").label == "mine-off"


# --- measures


def measured(arm: str = "info", **changes: object) -> Result:
    rate = WindowRate(seconds=2.0, work=8000, lowest_free_bytes=500, longest_gap_ms=12.0)
    slower = WindowRate(seconds=2.0, work=6000, lowest_free_bytes=100, longest_gap_ms=40.0)
    process = ProcessCost(
        cpu_seconds=3.0, vcpu_seconds=1.0, migration_seconds=0.5, peak_resident_bytes=1 << 20
    )
    fields: dict[str, object] = {
        "arm": arm,
        "cost": Cost(source=process, destination=process),
        "work": Work(unit="pages", before=rate, during=slower, after=rate),
        "walk": Walk(walks=1, longest_ms=2.5, answer_ms=4.0, longest_hold_us=90.0, pages_reported=7),
        "free_blocks": [4, 2, 1],
        **changes,
    }
    return result(passing(), **fields)


def test_every_measure_of_a_run() -> None:
    values = values_of(measured())
    assert values["total_ms"] == 1100  # without what was held
    assert values["sent_over_floor"] == pytest.approx((10_000 - 1_000) / 8_000)
    assert values["head_ms"] == pytest.approx(1_000 / (10_000 / 1100))
    assert (values["cpu_s"], values["host_cpu_s"]) == (6.0, 4.0)
    assert (values["work_before"], values["work_during"]) == (4000, 3000)
    assert values["slowdown_percent"] == pytest.approx(25)
    assert (values["memfree_lowest_bytes"], values["memfree_taken_bytes"]) == (100, 400)
    assert values["top_order_percent"] == pytest.approx(100 * 4 / 12)
    assert set(values) == set(BY_NAME)


def test_what_was_not_measured_is_none() -> None:
    values = values_of(result(passing()))
    for name in ("cpu_s", "host_cpu_s", "slowdown_percent", "work_during", "walk_ms", "top_order_percent"):
        assert values[name] is None
    assert values_of(measured(work=Work(unit="", before=None)))["slowdown_percent"] is None
    assert values_of(measured("off"))["head_ms"] is None


def test_the_docs_name_every_measure(repository: Path) -> None:
    text = (repository / "docs" / "bench.md").read_text(encoding="utf-8")
    for measure in MEASURES:
        assert f"`{measure.name}`" in text


# --- the folder and the runner


def planned(number: int = 1, arm: str = "info") -> PlannedRun:
    return PlannedRun(number, 1, Point("freed", GIB, arm), 7)


def test_a_bench_goes_on_only_with_the_same_request(tmp_path: Path) -> None:
    request = {"repeat": 3, "seed": 1}
    first = BenchFolder.open(tmp_path / "b", request)
    first.add(BenchRunEnd(1, 0, "", 2.5))
    again = BenchFolder.open(tmp_path / "b", request)
    assert again.outcomes() == {1: BenchRunEnd(1, 0, "", 2.5)}
    assert again.request["started"] == first.request["started"]
    with pytest.raises(InputError, match="repeat differ"):
        BenchFolder.open(tmp_path / "b", {"repeat": 4, "seed": 1})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(InputError, match="no bench's folder"):
        BenchFolder.open(tmp_path / "other", request)


def test_what_an_interrupted_run_left_is_kept(tmp_path: Path) -> None:
    folder = BenchFolder.open(tmp_path / "b", {})
    for attempt in (1, 2):
        place = folder.make_room(planned())
        assert not place.exists()
        place.mkdir()
        assert len(list(place.parent.iterdir())) == attempt
    assert sorted(path.name for path in (folder.path / "runs").iterdir()) == [
        "001-freed-1GiB-info-1",
        "001-freed-1GiB-info-1.interrupted-1",
    ]


def test_the_words_of_a_run(tmp_path: Path) -> None:
    request = BenchRequest(("--accel", "tcg", "--set", "workload.noise=64MiB"), strict=False, window_s=0.5)
    words = request.words(planned(arm="hint"), tmp_path)
    assert words[:8] == ["run", "freed", "--arm", "hint", "--memory", "1GiB", "--seed", "7"]
    wanted = {"--no-strict", "--json", "measure.before_s=0.5", "expect.skipping=false", "tap=false"}
    assert wanted <= set(words)
    assert words[-4:] == ["--accel", "tcg", "--set", "workload.noise=64MiB"]
    info = request.words(planned(arm="info"), tmp_path)
    assert "expect.skipping=false" not in info
    # A run in which little was skipped is measured like any other.
    assert {"expect.skipped_percent_min=null", "expect.sent_over_floor_max=null"} <= set(info)


#: In place of ``freepage run``: ends as its environment says, and counts how often it was called.
FAKE = """
import os, pathlib, sys
calls = pathlib.Path(os.environ["FAKE_CALLS"])
calls.write_text(calls.read_text() + "x" if calls.exists() else "x")
out = pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
out.mkdir()
number = int(out.name[:3])
status = int(os.environ.get(f"FAKE_STATUS_{number}", "0"))
if status in (0, 1, 4):
    text = pathlib.Path(os.environ["FAKE_RESULT"]).read_text()
    word = {0: "pass", 1: "fail", 4: "inconclusive"}[status]
    out.joinpath("result.json").write_text(text.replace('"verdict": "pass"', f'"verdict": "{word}"'))
else:
    print("freepage: the guest was lost\\nhint: look", file=sys.stderr)
sys.exit(status)
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    package = tmp_path / "fake"
    package.mkdir()
    (package / "fake.py").write_text(FAKE)
    (package / "result.json").write_text(measured().to_json())
    fake = [sys.executable, str(package / "fake.py")]
    monkeypatch.setattr(invoke, "command_line", lambda words: [*fake, *map(str, words)])
    monkeypatch.setenv("FAKE_RESULT", str(package / "result.json"))
    monkeypatch.setenv("FAKE_CALLS", str(package / "calls"))
    return package


def go(tmp_path: Path, repeat: int = 3) -> tuple[BenchFolder, list[PlannedRun]]:
    plan = make_plan([Point("freed", 2 * GIB, "info")], repeat, 1)
    folder = BenchFolder.open(tmp_path / "bench", {"repeat": repeat})
    runner.run_all(plan, BenchRequest(), folder, EventStream())
    return folder, plan


def test_only_a_pass_counts(fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_STATUS_2", "1")
    monkeypatch.setenv("FAKE_STATUS_3", "3")
    folder, plan = go(tmp_path)
    made = runner.read_all(plan, folder)
    assert [one.run.verdict for one in made] == ["pass", "fail", "error"]
    assert [one.run.counted for one in made] == [True, False, False]
    assert "the guest was lost" in made[2].run.reason
    # One without a result is shown at its point all the same.
    document = summarise_bench(SETTING, made)
    assert len(document.points) == 1
    assert document.points[0].interval["total_ms"] is None  # one value has none
    assert command.exit_code(document) == ExitCode.FAIL


def test_a_run_that_has_ended_is_not_made_again(
    fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_STATUS_2", "3")
    go(tmp_path)
    monkeypatch.delenv("FAKE_STATUS_2")
    folder, plan = go(tmp_path)
    assert (fake / "calls").read_text() == "xxx"
    assert [one.run.verdict for one in runner.read_all(plan, folder)] == ["pass", "error", "pass"]


def test_an_interrupted_bench_goes_on(fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_STATUS_2", "130")
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path)
    monkeypatch.delenv("FAKE_STATUS_2")
    folder, plan = go(tmp_path)
    assert [one.run.verdict for one in runner.read_all(plan, folder)] == ["pass"] * 3
    assert (fake / "calls").read_text() == "xxxx"
    assert (folder.path / "runs" / "002-freed-2GiB-info-2.interrupted-1").exists()


def test_wrong_input_ends_the_bench(fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_STATUS_1", "2")
    with pytest.raises(InputError, match="freed-2GiB-info"):
        go(tmp_path)
    assert (fake / "calls").read_text() == "x"


# --- documents

SETTING = BenchSetting("2026-01-01T00:00:00+00:00", "freepage bench freed", 1, False, {"cpus": 2}, {})


def made(
    arm: str,
    values: Sequence[Mapping[str, float] | None],
    *,
    scenario: str = "freed",
    memory: int = GIB,
    verdict: str = "pass",
) -> list[CountedRun]:
    """Runs with these measures; None stands for one that is no ``pass``."""
    found = []
    for index, some in enumerate(values, start=1):
        run = BenchRun(
            number=index,
            repeat=index,
            seed=1000 + index,
            verdict=verdict if some is not None else "inconclusive",
            reason="",
            counted=some is not None,
            values=dict(some or {"total_ms": 1e9, "sent_bytes": 1e15}),
            folder=f"runs/{index}",
        )
        found.append(CountedRun(scenario, arm, memory, "tcg", run))
    return found


def times(*values: float, **others: float) -> list[Mapping[str, float] | None]:
    return [{"total_ms": value, **others} for value in values]


def document(*groups: list[CountedRun]) -> BenchDocument:
    return summarise_bench(SETTING, [one for group in groups for one in group])


def goal(of: BenchDocument, text: str) -> str:
    (found,) = [goal for goal in of.goals if text in goal.text]
    return found.outcome


def test_medians_leave_out_what_is_no_pass() -> None:
    found = document(made("info", [*times(1, 2, 3), None]))
    (point,) = found.points
    assert point.median["total_ms"] == 2
    assert point.interval["total_ms"] is not None
    assert point.interval["total_ms"].high == 3
    assert [run.verdict for run in point.runs] == ["pass"] * 3 + ["inconclusive"]
    assert "3 of 4 (1 inconclusive)" in to_markdown(found)
    assert command.exit_code(found) == ExitCode.INCONCLUSIVE


def test_a_point_of_which_no_run_counts_has_no_number() -> None:
    found = document(made("info", [None, None]), made("off", times(5, 6)))
    point = next(p for p in found.points if p.arm == "info")
    assert point.median["total_ms"] is None
    assert found.contrasts == []
    assert "0 of 2 (2 inconclusive)" in to_markdown(found)


def test_arms_are_set_against_each_other() -> None:
    found = document(made("info", times(1, 1.1, 1.2, 1.3, 1.4)), made("off", times(10, 11, 12, 13, 14)))
    (contrast,) = [c for c in found.contrasts if c.measure == "total_ms"]
    assert (contrast.first, contrast.second) == ("info", "off")
    assert contrast.quotient == pytest.approx(0.1, abs=0.01)
    assert contrast.p == pytest.approx(2 / 252)


def test_a_document_comes_back_and_others_are_refused() -> None:
    found = document(made("info", times(1, 2)))
    assert BenchDocument.from_json(found.to_json()) == found
    with pytest.raises(InputError, match="is not a bench"):
        BenchDocument.from_json(json.dumps({"version": 2}))


def test_a_bench_is_repeated_from_outside_of_the_machine_it_ran_in(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = command.BenchOrder(
        ("freed",), ("info",), (GIB,), 3, 1, BenchRequest((), strict=False, window_s=2.0)
    )
    inside = wanted.with_options(command.INSIDE)
    asked = "freepage bench freed --arms info --memory 1GiB --repeat 3 --seed 1"
    monkeypatch.delenv(accel.CHAIN_VARIABLE, raising=False)
    assert wanted.command() == asked
    assert inside.command() == f"{asked} --accel kvm"
    monkeypatch.setenv(accel.CHAIN_VARIABLE, "kvm-in-tcg")
    assert inside.command() == f"{asked} --nested"


def test_a_table_lines_up() -> None:
    assert markdown_table(["a", "bb"], [["ccc", "d"]]) == "| a   | bb |\n|-----|----|\n| ccc | d  |"


# --- goals


def freed(arm: str, sent: float, total: float, floor: float = 100.0, head: float = 0.0) -> list[CountedRun]:
    values: list[Mapping[str, float] | None] = []
    for wobble in (0.99, 1.0, 1.0, 1.0, 1.01):
        some = {"sent_bytes": sent * wobble, "total_ms": total * wobble, "head_ms": head}
        some |= {"floor_bytes": floor, "sent_over_floor": sent * wobble / floor}
        values.append(some)
    return made(arm, values)


def test_goals_that_are_met() -> None:
    found = document(freed("off", 1000, 900), freed("hint", 140, 400), freed("info", 102, 100))
    assert {goal.outcome for goal in found.goals} == {"met"}
    assert len(found.goals) == 5


def test_goals_that_are_missed() -> None:
    found = document(freed("off", 500, 900), freed("hint", 140, 150), freed("info", 120, 100, head=200))
    assert {goal.outcome for goal in found.goals} == {"missed"}
    assert len(found.goals) == 5
    # Beside the share that was sent: the share that nobody can do without.
    (few,) = [one for one in found.goals if "off's bytes" in one.text]
    assert few.value.startswith("0.240")
    assert few.value.endswith("what has to be sent is 0.200")


def test_a_limit_inside_of_the_interval_decides_nothing() -> None:
    found = document(freed("info", 105, 100))
    assert goal(found, "(sent - head) / floor") == "undecided"


def test_slower_beyond_noise() -> None:
    def idle(*values: float) -> BenchDocument:
        return document(
            made("off", times(10, 11, 12, 13, 14), scenario="idle"),
            made("info", times(*values), scenario="idle"),
        )

    assert goal(idle(11, 12, 13, 14, 15), "not slower") == "met"
    assert goal(idle(20, 21, 22, 23, 24), "not slower") == "missed"
    # One run of each tells nothing from noise.
    once = document(
        made("off", times(10), scenario="idle"),
        made("info", times(11), scenario="idle"),
    )
    assert goal(once, "not slower") == "undecided"


def test_growth_is_held_against_its_goals() -> None:
    def sizes(large_ratio: float, large_ms: float) -> BenchDocument:
        groups = [
            made("info", [{"sent_over_floor": r, "total_ms": t, "floor_bytes": 100.0}] * 2, memory=size)
            for size, r, t in ((GIB, 1.0, 100.0), (2 * GIB, large_ratio, large_ms))
        ]
        return document(*groups)

    well, ill = sizes(1.01, 105), sizes(1.2, 150)
    assert goal(well, "sent / floor changes") == goal(well, "time per floor byte") == "met"
    assert goal(ill, "sent / floor changes") == goal(ill, "time per floor byte") == "missed"
    assert [fit.measure for fit in well.growth] == ["total_ms"]


# --- comparison


def test_nothing_moves_in_the_same_bench() -> None:
    found = document(made("info", times(1, 2, 3, 4, 5)), made("off", times(3, 4)))
    comparison = compare_benches(found, found)
    assert {one.kind for one in comparison.moved} == {"same"}
    assert comparison.exit_code == ExitCode.PASS


def test_a_regression_beyond_noise_is_one() -> None:
    before = document(made("info", times(10, 11, 12, 13, 14, walk_ms=3)))
    after = document(made("info", times(20, 21, 22, 23, 24, walk_ms=3)))
    comparison = compare_benches(before, after)
    assert [(one.measure, one.kind) for one in comparison.moved if one.kind != "same"] == [
        ("total_ms", "worse")
    ]
    assert comparison.exit_code == ExitCode.FAIL
    assert any("total_ms" in line for line in comparison_lines(comparison))
    assert comparison_document(comparison)["exit_code"] == 1
    assert compare_benches(after, before).exit_code == ExitCode.PASS  # better


def test_noise_is_no_regression() -> None:
    before = document(made("info", times(10, 30, 12, 13, 14)))
    after = document(made("info", times(16, 11, 13, 14, 33)))
    assert compare_benches(before, after).exit_code == ExitCode.PASS


def test_a_change_that_is_real_and_small_does_not_matter() -> None:
    before = document(made("info", times(100, 100.1, 100.2, 100.3, 100.4)))
    after = document(made("info", times(101, 101.1, 101.2, 101.3, 101.4)))
    assert compare_benches(before, after).exit_code == ExitCode.PASS
    assert compare_benches(before, after, threshold=0.001).exit_code == ExitCode.FAIL


def test_a_measure_that_gates_nothing_fails_nothing() -> None:
    before = document(made("info", times(*[5] * 5, walk_ms=3)))
    after = document(made("info", times(*[5] * 5, walk_ms=9)))
    comparison = compare_benches(before, after)
    assert [one.measure for one in comparison.moved if one.kind == "worse"] == ["walk_ms"]
    assert comparison.exit_code == ExitCode.PASS


def test_more_of_some_is_better() -> None:
    before = document(made("info", times(*[5] * 5, work_during=9)))
    after = document(made("info", times(*[5] * 5, work_during=3)))
    assert [one.kind for one in compare_benches(before, after).moved if one.measure == "work_during"] == [
        "worse"
    ]


def test_too_few_runs_are_inconclusive() -> None:
    before, after = document(made("info", times(10, 11, 12))), document(made("info", times(20, 21, 22)))
    comparison = compare_benches(before, after)
    assert comparison.exit_code == ExitCode.INCONCLUSIVE
    assert any("too few" in line for line in comparison_lines(comparison))
    assert compare_benches(before, before).exit_code == ExitCode.PASS


def test_runs_that_no_longer_pass_are_a_regression() -> None:
    before = document(made("info", times(10, 11, 12)))
    after = document(made("info", [*times(10, 11), None]))
    comparison = compare_benches(before, after)
    assert comparison.exit_code == ExitCode.FAIL
    assert "fewer runs pass" in next(iter(comparison_lines(comparison)))


def test_benches_of_different_things_are_not_compared() -> None:
    with pytest.raises(InputError, match="no point in common"):
        compare_benches(document(made("info", times(1))), document(made("off", times(1))))
    both = document(made("info", times(1)), made("off", times(1)))
    assert compare_benches(both, document(made("off", times(1)))).missing == ("freed 1GiB info tcg",)


# --- what the session measures


def test_usage_is_read_out_of_proc(tmp_path: Path) -> None:
    place = tmp_path / "42"
    names = {"42": "qemu-system-x86", "43": "CPU 0/TCG", "44": "mig/src/main", "45": "a) b (c"}
    for number, name in names.items():
        task = place / "task" / number
        task.mkdir(parents=True)
        rest = " ".join(["S", *["0"] * 10, "150", "50", "0"])
        (task / "stat").write_text(f"{number} ({name}) {rest}\n")
    (place / "stat").write_text((place / "task" / "45" / "stat").read_text())
    (place / "status").write_text("Name:\tx\nVmHWM:\t   2048 kB\nVmRSS:\t 1 kB\n")
    tick = os.sysconf("SC_CLK_TCK")
    assert usage_of(42, tmp_path) == Usage(200 / tick, 200 / tick, 200 / tick, 2048 * 1024)
    assert usage_of(43, tmp_path) is None


def test_what_threads_used_before_they_ended_counts() -> None:
    seen = iter([Usage(1, 0, 0, 10), Usage(5, 2, 3, 20), Usage(6, 3, 0, 30)])
    meter = CostMeter(lambda _: next(seen))
    assert meter.cost() is None
    meter.begin("source", 1)
    meter.look()
    meter.look()
    cost = meter.cost()
    assert cost is not None
    assert cost.destination is None
    assert cost.source == ProcessCost(
        cpu_seconds=5, vcpu_seconds=3, migration_seconds=3, peak_resident_bytes=30
    )


def test_the_marks_of_a_migration() -> None:
    events = EventStream()
    assert migration_marks(events.history()) == (None, None)
    times = {}
    for status in ("setup", "active", "pre-switchover", "device", "completed"):
        times[status] = events.emit("MIGRATION", source="source.qmp", data={"status": status}).t
    events.emit("MIGRATION", source="destination.qmp", data={"status": "active"})
    assert migration_marks(events.history()) == (times["active"], times["pre-switchover"])


def test_how_long_the_guest_stood_still(monkeypatch: pytest.MonkeyPatch) -> None:
    def event(at: float, kind: str, source: str = "source.qmp") -> Event:
        return Event(0, at, source, kind, {})

    history = [
        event(1.0, "STOP"),
        event(1.5, "RESUME"),
        event(2.0, "STOP", "destination.qmp"),
        event(3.0, "STOP"),
    ]
    assert stood_still(history, 0.0, 2.5) == pytest.approx(0.5)
    assert stood_still(history, 0.0, 4.0) == pytest.approx(1.5)
    assert stood_still(history, 2.0, 2.9) == 0.0
