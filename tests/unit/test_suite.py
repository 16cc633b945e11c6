# SPDX-License-Identifier: GPL-2.0-or-later
"""Suites: what is wrong in a file is said with its line, and each run is made once and told."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import psutil
import pytest

from harness import run_process
from harness.cli import app
from harness.errors import ExitCode, InputError, MachineryError
from harness.report.finished import (
    SUITE_RUNS,
    FinishedRun,
    RunSink,
    Sinks,
    SuiteReport,
    outcome_of,
    read_finished,
)
from harness.report.gravity import INTERRUPTED
from harness.scenario.load import load_scenario
from harness.suite import runner as runner_module
from harness.suite.build import Prepared
from harness.suite.command import SuiteFacts, make_runs, parse_shard
from harness.suite.engine import ThisMachine
from harness.suite.expand import Expansion, GivenQemu, SuiteRun, further_rounds, repeated, seed_of, shard_of
from harness.suite.folder import SuiteFolder, SuitePlan, last_folder, read_plan, right_in
from harness.suite.load import list_suites, load_suite
from harness.suite.matrix import Matrix
from harness.suite.needs import Resources, needs_of
from harness.suite.runner import SuiteRunner, is_wrong, never
from harness.suite.schedule import MOST_OVERTAKEN, Schedule
from harness.suite.show import sum_line, table_lines
from tests.unit.test_result import failing, passing, result

MIB = 1 << 20


def written(folder: Path, runs: str, head: str = "name: mine\n") -> str:
    path = folder / "mine.yaml"
    path.write_text(f"{head}runs:\n{runs}", encoding="utf-8")
    return str(path)


def names(suite: str) -> list[str]:
    return [run.name for run, _ in Expansion(load_suite(suite)).runs()]


def problems(suite: str) -> list[str]:
    with pytest.raises(InputError) as caught:
        Expansion(load_suite(suite)).runs()
    assert caught.value.exit_code == ExitCode.INPUT
    return [line.partition("mine.yaml:")[2] for line in caught.value.render().splitlines()]


# --- the file


def test_all_that_ship_expand() -> None:
    for loaded in list_suites():
        runs = Expansion(loaded).runs()
        assert runs and loaded.suite.summary
        assert len({run.name for run, _ in runs}) == len(runs)


def test_every_combination_once(tmp_path: Path) -> None:
    suite = written(
        tmp_path,
        "  - scenarios: [idle, freed]\n"
        '    matrix: {arm: ["off", info], machine: [pc, q35]}\n'
        '    exclude: [{scenario: idle, arm: "off"}]\n'
        "  - scenarios: [idle]\n"
        "    label: small\n"
        "    set: {guest.memory: 512MiB}\n",
    )
    assert names(suite) == [
        "idle[arm=info,machine=pc]",
        "idle[arm=info,machine=q35]",
        "freed[arm=off,machine=pc]",
        "freed[arm=off,machine=q35]",
        "freed[arm=info,machine=pc]",
        "freed[arm=info,machine=q35]",
        "idle[small]",
    ]
    runs = {run.name: run for run, _ in Expansion(load_suite(suite)).runs()}
    assert runs["freed[arm=off,machine=q35]"].scenario.arm == "off"
    assert runs["freed[arm=off,machine=q35]"].scenario.guest.machine == "q35"
    assert runs["idle[small]"].scenario.guest.memory == 512 * MIB


def test_a_qemu_that_is_given_takes_part_in_all_runs_and_leaves_out_what_it_cannot(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text("name: s\nruns: [{scenarios: [freed, race-w2, patterns]}]\n")
    for plain, arms in ((False, {"freed": "info", "race-w2": "info", "patterns": "off"}), (True, None)):
        expansion = Expansion(load_suite(str(file)), GivenQemu("/opt/qemu", plain=plain))
        runs = [run for run, _ in expansion.runs()]
        assert {run.scenario.name: run.scenario.arm for run in runs} == (
            arms or {"freed": "off", "patterns": "off"}
        )
        assert {run.tools.source_qemu for run in runs} == {run.tools.destination_qemu for run in runs}
        assert {run.tools.source_qemu for run in runs} == {"/opt/qemu"}
        assert all(run.optional for run in runs)
        assert expansion.left_out == ([] if arms else ["race-w2"])


def test_a_file_of_the_users_own_is_named_from_the_suite_on(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("name: own\n", encoding="utf-8")
    assert names(written(tmp_path, "  - scenarios: [./own.yaml]\n")) == ["own"]


@pytest.mark.parametrize(
    ("runs", "place", "words"),
    [
        ("  - scenarios: [idle, fred]\n", "3:23:", "no such scenario: 'fred'"),
        ("  - scenarios: [idle]\n    matrix: {colour: [red]}\n", "4:14:", "no such dimension"),
        ("  - scenarios: [idle]\n    matrix: {arms: [info]}\n", "4:14:", "did you mean 'arm'?"),
        ("  - scenarios: [idle]\n    matrix: {arm: [on]}\n", "4:20:", "expected 'off', 'hint' or 'info'"),
        ("  - scenarios: [idle]\n    matrix: {arm: info}\n", "4:14:", "expected a list"),
        ("  - scenarios: [idle]\n    matrix: {arm: []}\n", "4:14:", "expected at least one"),
        ("  - scenarios: [idle]\n    matrix: {guest.colour: [1]}\n", "4:29:", "unknown key"),
        ("  - scenarios: [idle]\n    matrix: {kernel: [6.10]}\n", "4:23:", "expected default"),
        ("  - scenarios: [idle]\n    matrix: {qemu: [no-such-qemu]}\n", "4:21:", "no such QEMU"),
        ("  - scenarios: [idle]\n    matrix: {nested: [perhaps]}\n", "4:23:", "expected true or false"),
        ("  - scenarios: [idle]\n    set: {guest.memory: 1MB}\n", "4:11:", "guest.memory"),
        ("  - scenarios: [idle]\n    exclude: [{arm: info}]\n", "4:16:", "no dimension 'arm'"),
        (
            '  - scenarios: [idle]\n    matrix: {arm: [info]}\n    exclude: [{arm: "off"}]\n',
            "5:15:",
            "nothing in this entry is so",
        ),
        ("  - scenarios: [all]\n    leave_out: [idel]\n", "4:17:", "did you mean 'idle'?"),
        ("  - scenarios: [idle]\n  - scenarios: [idle]\n", "4:5:", "give one of the two a label"),
        ("  - scenario: [idle]\n", "3:5:", "unknown key; did you mean"),
        ("  - scenarios: [idle]\n    repeat: 0\n", "4:5:", "expected at least 1"),
        ("  - scenarios: [idle]\n    set: [1]\n", "4:5:", "expected keys of its own"),
        ("  - scenarios: [../none.yaml]\n", "3:17:", "No such file"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, runs: str, place: str, words: str) -> None:
    found = problems(written(tmp_path, runs))
    assert any(line.startswith(place) and words in line for line in found), found


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    suite = written(tmp_path, '  - scenarios: [fred, frde]\n    matrix: {arm: ["off"], colour: [red]}\n')
    assert len([line for line in problems(suite) if line[:1].isdigit()]) == 3


def test_what_is_no_suite(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such suite: 'smoek'") as caught:
        load_suite("smoek")
    assert "did you mean 'smoke'?" in str(caught.value.hint)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe")
    for name, words in (("binary.yaml", "UTF-8"), (".", "is a folder"), ("none.yaml", "No such file")):
        with pytest.raises(InputError, match=words):
            load_suite(str(tmp_path / name))
    with pytest.raises(InputError, match="is a device"):
        load_suite("/dev/zero")


# --- which runs


def test_each_run_is_in_one_shard() -> None:
    runs = list(range(11))
    parts = [shard_of(runs, number, 4) for number in range(1, 5)]
    assert sorted(chain(*parts)) == runs
    assert {len(part) for part in parts} == {2, 3}


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2", "1/2/3", "²/3"])
def test_a_shard_that_is_none(text: str) -> None:
    with pytest.raises(InputError, match="--shard"):
        parse_shard(text)


def test_seeds_differ_by_scenario_and_repeat_and_not_by_what_is_chosen(tmp_path: Path) -> None:
    suite = written(
        tmp_path, '  - scenarios: [idle, freed]\n    repeat: 2\n    matrix: {arm: ["off", info]}\n'
    )
    runs = repeated(Expansion(load_suite(suite)).runs(), 7)
    assert [run.name for run in runs][:1] + [run.name for run in runs][4:5] == [
        "idle[arm=off]",
        "idle[arm=off]#2",
    ]
    seeds = {run.name: run.scenario.seed for run in runs}
    assert seeds["idle[arm=off]"] == seeds["idle[arm=info]"] == seed_of(7, "idle", 1)
    assert len(set(seeds.values())) == 4
    assert all(0 <= seed_of(base, "idle", 1) < 2**63 for base in range(100))
    assert len(repeated(Expansion(load_suite(suite)).runs(), 7, times=3)) == 12


# --- what fits


def test_runs_are_begun_as_they_fit() -> None:
    schedule: Schedule[str] = Schedule(Resources(10, 4, {2 * MIB: 8}))
    schedule.add([("big", Resources(8, 1)), ("big too", Resources(8, 1)), ("small", Resources(2, 1))])
    assert [schedule.take(), schedule.take(), schedule.take()] == ["big", "small", None]
    schedule.done("big")
    assert schedule.take() == "big too"
    assert schedule.waiting == []


def test_huge_pages_and_cpus_count() -> None:
    schedule: Schedule[str] = Schedule(Resources(100, 2, {2 * MIB: 8}))
    schedule.add(
        [("a", Resources(1, 1, {2 * MIB: 6})), ("b", Resources(1, 1, {2 * MIB: 6})), ("c", Resources(1, 9))]
    )
    # The last one has to get along with the two CPUs that there are, but wants both of them.
    assert [schedule.take(), schedule.take()] == ["a", None]
    schedule.done("a")
    assert [schedule.take(), schedule.take()] == ["b", None]
    schedule.done("b")
    assert schedule.take() == "c"


def test_no_more_than_jobs() -> None:
    schedule: Schedule[int] = Schedule(Resources(100, 100), jobs=2)
    schedule.add((number, Resources(1, 1)) for number in range(5))
    assert [schedule.take(), schedule.take(), schedule.take()] == [0, 1, None]


def test_what_is_larger_than_the_machine_is_begun_alone() -> None:
    schedule: Schedule[str] = Schedule(Resources(10, 1))
    schedule.add([("small", Resources(1, 1)), ("huge", Resources(99, 1))])
    assert [schedule.take(), schedule.take()] == ["small", None]
    schedule.done("small")
    assert schedule.take() == "huge"


def test_a_large_run_is_not_overtaken_for_ever() -> None:
    schedule: Schedule[str] = Schedule(Resources(10, 100))
    schedule.add([("first", Resources(2, 1)), ("large", Resources(10, 1))])
    schedule.add((f"small {number}", Resources(1, 1)) for number in range(100))
    assert schedule.take() == "first"
    overtaking = 0
    while (job := schedule.take()) is not None:
        overtaking += 1
        schedule.done(job)
    assert overtaking == MOST_OVERTAKEN
    schedule.done("first")
    assert schedule.take() == "large"


def test_what_a_run_needs() -> None:
    scenario = load_scenario("idle", ["guest.memory=1GiB"])
    plain, nested = needs_of(scenario, nested=False), needs_of(scenario, nested=True)
    assert 2048 * MIB < plain.memory < nested.memory
    backed = load_scenario(
        "idle", ["guest.memory=1GiB", "guest.memory_backend.type=memfd", "guest.memory_backend.page=2MiB"]
    )
    pages = needs_of(backed, nested=False)
    assert pages.huge_pages == {2 * MIB: 1024}
    assert pages.memory < 1024 * MIB


# --- the runs themselves


@pytest.mark.parametrize(
    ("status", "verdict", "outcome"),
    [
        (0, "pass", "pass"),
        (0, "fail", "expected"),
        (1, "fail", "fail"),
        (1, "pass", "fail"),
        (4, "inconclusive", "inconclusive"),
        (2, None, "refused"),
        (3, None, "error"),
        (3, "pass", "error"),
        (0, None, "error"),
        (130, None, "error"),
    ],
)
def test_how_a_run_ended(status: int, verdict: str | None, outcome: str) -> None:
    found = None if verdict is None else result(passing()).model_copy(update={"verdict": verdict})
    assert outcome_of(status, found) == outcome


class Heard(RunSink):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ends: list[FinishedRun] = []

    def started(self, name: str, folder: Path) -> None:  # noqa: ARG002
        self.begun.append(name)

    def finished(self, run: FinishedRun) -> None:
        self.ends.append(run)


#: In place of ``freepage run FILE --out FOLDER``: does what the scenario's name says.
STANDIN = """
import json, os, pathlib, re, signal, sys, time
out = pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
name = re.search("^name: (.*)$", pathlib.Path(sys.argv[2]).read_text(), re.M).group(1)
out.mkdir(parents=True)
kind, _, status = name.partition("-")
if kind == "waits":
    signal.pause()
if kind == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        signal.pause()
if kind == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if kind in ("pass", "fail"):
    (out / "result.json").write_text(pathlib.Path(sys.argv[0]).with_name(kind + ".json").read_text())
if kind == "garbled":
    (out / "result.json").write_text("{")
assert "GITHUB_ACTIONS" not in os.environ
print("freepage: last words of", name)
sys.exit(int(status or 0))
"""


@pytest.fixture
def standin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are programs that end as the scenario's name says."""
    place = tmp_path / "standin.py"
    place.write_text(STANDIN, encoding="utf-8")
    (tmp_path / "pass.json").write_text(result(passing()).to_json(), encoding="utf-8")
    (tmp_path / "fail.json").write_text(result(failing()).to_json(), encoding="utf-8")

    def line(words: Sequence[str | Path]) -> list[str]:
        return [sys.executable, str(place), *map(str, words)]

    monkeypatch.setattr(run_process, "command_line", line)
    # A fork is of ourselves, and runs no program.
    monkeypatch.setattr(run_process, "_Forked", run_process._Command)


def run_of(name: str, timeout: float = 60.0) -> SuiteRun:
    scenario = load_scenario("idle", [f"name={name}"])
    from harness.plan.plan import Tools

    return SuiteRun(name, scenario, Tools(), Resources(1, 1), timeout=timeout)


def made(
    folder: Path, runs: Sequence[SuiteRun], heard: Heard, *, jobs: int = 2, stop: bool = False
) -> list[FinishedRun]:
    place = SuiteFolder.create("mine", "", folder / "suite")
    schedule: Schedule[SuiteRun] = Schedule(Resources(100, 100), jobs)
    schedule.add((run, run.needs) for run in runs)
    return SuiteRunner(schedule, place.place, heard, stops=is_wrong if stop else never).run()


def test_until_a_failure_each_round_has_seeds_of_its_own() -> None:
    """A suite's are its own choice; one that the scenario names stays; a run alone draws its own."""
    drawn, named = run_of("drawn").again(1, 5), run_of("named")
    named = replace(named, scenario=named.scenario.model_copy(update={"seed": 3})).again(1, 5)
    more = further_rounds([drawn, named], 7)
    later = [next(more), next(more)]
    assert [run.name for round_ in later for run in round_] == ["drawn#2", "named#2", "drawn#3", "named#3"]
    seeds = [run.scenario.seed for run in (drawn, *(round_[0] for round_ in later))]
    assert len({*seeds}) == 3
    assert {round_[1].scenario.seed for round_ in later} == {3}
    alone = list(further_rounds([run_of("alone")], None, most=3))
    assert [run.scenario.seed for round_ in alone for run in round_] == [None, None]


@pytest.mark.usefixtures("standin")
def test_each_end_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")  # the runs must not report to it, too
    heard = Heard()
    wanted = {
        "pass-0": ("pass", 0, ""),
        "fail-1": ("fail", 1, ""),
        "refused-2": ("refused", 2, "last words of refused-2"),
        "lost-3": ("error", 3, "last words of lost-3"),
        "killed": ("error", 3, "SIGKILL"),
        "garbled-0": ("error", 3, "not a result"),
        "silent-0": ("error", 3, "left no result"),
    }
    done = {run.name: run for run in made(tmp_path, [run_of(name) for name in wanted], heard)}
    for name, (outcome, status, words) in wanted.items():
        run = done[name]
        assert (run.outcome, run.exit_status) == (outcome, status), run
        assert words in run.reason
        assert run.folder is not None and Path(run.folder).is_dir()
        assert run.replay.startswith("freepage run")
    assert sorted(heard.begun) == sorted(wanted)
    assert {run.name for run in heard.ends} == set(wanted)
    assert done["fail-1"].rule == failing().findings[0].rule


@pytest.mark.usefixtures("standin")
def test_a_run_that_takes_too_long_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "ENDING_SECONDS", 0.1)
    done = made(tmp_path, [run_of("waits", 0.5), run_of("stubborn", 0.5), run_of("pass-0")], Heard())
    ends = {run.name: run for run in done}
    for name in ("waits", "stubborn"):
        assert (ends[name].outcome, ends[name].exit_status) == ("error", ExitCode.ERROR)
        assert "it took over" in ends[name].reason
    assert ends["pass-0"].outcome == "pass"


@pytest.mark.usefixtures("standin")
def test_nothing_is_begun_after_the_first_failure(tmp_path: Path) -> None:
    heard = Heard()
    done = made(tmp_path, [run_of("pass-0"), run_of("fail-1"), run_of("lost-3")], heard, jobs=1, stop=True)
    assert [run.name for run in done] == heard.begun == ["pass-0", "fail-1"]


@pytest.mark.usefixtures("standin")
def test_an_interruption_ends_all_and_leaves_nothing(tmp_path: Path) -> None:
    class Interrupting(Heard):
        def finished(self, run: FinishedRun) -> None:
            super().finished(run)
            if run.name == "pass-0":
                raise KeyboardInterrupt

    place = SuiteFolder.create("mine", "", tmp_path / "suite")
    schedule: Schedule[SuiteRun] = Schedule(Resources(100, 100), 2)
    heard = Interrupting()
    for run in (run_of("waits"), run_of("pass-0"), run_of("pass-never")):
        schedule.add([(run, run.needs)])
    runner = SuiteRunner(schedule, place.place, heard)
    done = runner.run()
    assert runner.interrupted
    assert [(run.name, run.exit_status) for run in done] == [("pass-0", 0), ("waits", INTERRUPTED)]
    assert [run.name for run in schedule.waiting] == ["pass-never"]


@pytest.mark.usefixtures("standin")
def test_a_sink_that_fails_leaves_nothing_running(tmp_path: Path) -> None:
    class Failing(Heard):
        def finished(self, run: FinishedRun) -> None:
            super().finished(run)
            raise MachineryError("no space left on device")

    heard = Failing()
    # Another test's, and of no run.
    before = psutil.Process().children()
    with pytest.raises(MachineryError, match="no space"):
        made(tmp_path, [run_of("waits"), run_of("waits-too"), run_of("pass-0")], heard, jobs=3)
    # The others were ended for it, which is told to whom it can be told.
    assert heard.ends[0].name == "pass-0"
    assert {run.name for run in heard.ends} == {"pass-0", "waits", "waits-too"}
    assert psutil.Process().children() == before


@pytest.mark.usefixtures("standin")
def test_the_report_is_written_where_another_sink_fails(tmp_path: Path) -> None:
    """What has run has run: the suite's folder says all of it, and that it was no good end."""

    class Failing(RunSink):
        def finished(self, run: FinishedRun) -> None:  # noqa: ARG002 - of any
            raise MachineryError("the database is gone")

    folder = SuiteFolder.create("mine", "", tmp_path / "suite")
    sink = Sinks([Failing(), folder])
    runs = Prepared((run_of("pass-0"), run_of("waits")))
    with pytest.raises(MachineryError, match="database"):
        make_runs(
            runs, folder.place, sink, SuiteFacts("mine", "freepage suite run mine"), ThisMachine(), jobs=2
        )
    report = SuiteReport.read(folder.path / "suite.json")
    assert {run.name: run.outcome for run in report.runs} == {"pass-0": "pass", "waits": "error"}
    assert report.exit_status == 3
    assert len(read_finished(folder.path / SUITE_RUNS)) == 2


def test_runs_are_counted_as_they_are_made() -> None:
    """Of each suite that ships, without reading one scenario."""
    for one in list_suites():
        assert Matrix(one).count() == len(repeated(Expansion(one).runs(), 1))


# --- what is kept, and shown


def finished(name: str, outcome: str, status: int, **changes: object) -> FinishedRun:
    values: dict[str, object] = {
        "name": name,
        "scenario": name,
        "outcome": outcome,
        "exit_status": status,
        "reason": f"because of {name}",
        "seed": 1,
        "began": "2026-01-01T00:00:00Z",
        "seconds": 1.5,
        "folder": f"/runs/{name}",
        "replay": f"freepage run /runs/{name}/scenario.yaml",
    }
    return FinishedRun.model_validate(values | changes)


def report(*runs: FinishedRun, **changes: object) -> SuiteReport:
    values: dict[str, object] = {
        "suite": "mine",
        "command": "freepage suite run mine --seed 3",
        "seed": 3,
        "began": "2026-01-01T00:00:00Z",
        "seconds": 10.0,
        "exit_status": max((run.exit_status for run in runs), default=0),
        "runs": [run.model_dump() for run in runs],
    }
    return SuiteReport.model_validate(values | changes)


def test_what_was_not_right_is_known_again(tmp_path: Path) -> None:
    folder = SuiteFolder.create("mine", "name: mine\n", tmp_path / "runs" / "20260101-000000-suite-mine")
    folder.write_plan(SuitePlan(suite="mine", seed=3, runs=["a", "b", "c", "d"]))
    for run in (finished("a", "pass", 0), finished("b", "fail", 1), finished("c", "expected", 0)):
        folder.finished(run)
    with (folder.path / "runs.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"name": "d", "outc')  # killed in the middle of a line
    assert last_folder("mine", tmp_path / "runs") == folder.path
    assert set(read_plan(folder.path).runs) - right_in(folder.path) == {"b", "d"}
    with pytest.raises(InputError, match="has not been run here"):
        last_folder("other", tmp_path / "runs")
    with pytest.raises(InputError, match="not the folder of a suite"):
        read_plan(tmp_path)


def test_a_report_is_one_document(tmp_path: Path) -> None:
    folder = SuiteFolder.create("mine", "", tmp_path / "suite")
    whole = report(finished("a", "pass", 0, result=result(passing()).model_dump()), finished("b", "fail", 1))
    folder.ended(whole)
    assert SuiteReport.read(folder.path / "suite.json") == whole
    assert json.loads(whole.to_json())["runs"][0]["result"]["verdict"] == "pass"
    with pytest.raises(InputError, match="not the report of a suite"):
        (tmp_path / "other.json").write_text("{}", encoding="utf-8")
        SuiteReport.read(tmp_path / "other.json")


def test_the_table_tells_what_to_look_at() -> None:
    whole = report(finished("a", "pass", 0), finished("b", "fail", 1, rule="stale-skip"), not_run=["c"])
    text = "\n".join(table_lines(whole))
    assert "because of b" in text and "because of a" not in text
    assert "replay: freepage run /runs/b/scenario.yaml" in text
    assert "stale-skip" in text
    assert "not run: c" in text
    assert sum_line(whole) == "2 runs: 1 fail, 1 pass, 1 not run; 10 s; seed 3; exit status 1"


# --- the command


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["suite", "run", "smoek"], "no such suite"),
        (["suite", "run", "smoke", "--shard", "3/2"], "--shard 3/2"),
        (["suite", "run", "smoke", "--shard", "99/99"], "fewer runs than shards"),
        (["suite", "run", "smoke", "--last", "."], "--rerun-failed"),
        (["suite", "run", "smoke", "--rerun-failed", "--last", "."], "not the folder of a suite"),
        (["suite", "run", "smoke", "--rerun-failed"], "has not been run here"),
        (["suite", "run", "smoke", "--until-failure", "--repeat", "2"], "--until-failure goes together"),
        (["suite", "run", "smoke", "--timeout", "inf"], "--timeout inf"),
        (["suite", "run", "smoke", "--junit", "none/j.xml"], "there is no folder"),
        (["suite", "run", "smoke", "--html", "."], "this is a folder"),
        (["suite", "show", "nothing.yaml"], "No such file"),
        (["run", "idle", "fred"], "no such scenario: 'fred'"),
        (["run", "idle", "freed", "--nested", "-j", "2"], "--jobs has nothing to say beside --nested"),
        (["run", "idle", "--html", "none/r.html"], "there is no folder"),
        (["run", "idle", "--qemu-matrix", "stock,patched", "-j", "2"], "--jobs has nothing to say"),
        (["report", "."], "neither a run folder"),
    ],
    ids=" ".join,
)
def test_bad_input_is_said_before_anything_runs(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "harness.suite.command.build_all_for", lambda *_, **__: pytest.fail("something was built")
    )
    with pytest.raises(InputError) as caught:
        app(words, standalone_mode=False)
    assert caught.value.exit_code == ExitCode.INPUT
    assert said in caught.value.render()
    assert list(tmp_path.iterdir()) == []
