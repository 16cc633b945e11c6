# SPDX-License-Identifier: GPL-2.0-or-later
"""A switch to postcopy, as far as it is a matter of values: pages, QEMUs' words, scripts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.errors import InputError, MachineryError
from harness.events import Deadline, EventStream
from harness.evidence.after_switch import UNDECIDED, WRITTEN, WorkloadSteps, last_step, since_switch
from harness.evidence.outcomes import account_of
from harness.memory import formula
from harness.memory.image import RamImage
from harness.memory.record import Block
from harness.migration.postcopy import PageCounters, await_paused
from harness.scenario.actions.postcopy import PostcopyBreak, PostcopyRecover, PostcopyStart, PostcopyTouch
from harness.scenario.load import load_scenario
from harness.scenario.resolve import MachineFacts, ResolvedScenario, resolve
from harness.units import PAGE_SIZE
from harness.verdict.judge import BlockState, JudgeInput, judge
from harness.verdict.outcome import MigrationOutcome, QemuAccount, outcome_findings
from tests.unit.fake_stage import FakeStage

SEED = 77
#: Of the workload below.
PAGES = 512
#: A step after all that the source has seen.
LATER = 12


def workload(kind: str = "rewrite") -> ResolvedScenario:
    scenario = load_scenario(
        "idle",
        overrides=[f"seed={SEED}", f"workload.kind={kind}", f"workload.noise={PAGES * 4}KiB"],
    )
    return resolve(scenario, MachineFacts(memory_available=64 << 30))


def page(number: int, step: int) -> bytes:
    return formula.page_words(SEED, number, step).tobytes()


def ram(pages: list[bytes]) -> RamImage:
    return RamImage.from_bytes(b"".join(pages), "pc.ram")


def written(step: int) -> int:
    """A page that this step writes."""
    pages, steps = workload().scenario.workload.writes(SEED, PAGES * PAGE_SIZE, step)
    return int(pages[steps == step].min())


def test_every_write_is_known_and_no_other() -> None:
    pages, steps = formula.churn_writes(SEED, PAGES, 400, frees=False)
    table = formula.churn_generations(SEED, PAGES, 400, frees=False)
    last = np.zeros(PAGES, np.int64)
    np.maximum.at(last, pages.astype(np.int64), steps.astype(np.int64))
    assert (last == table).all()
    frees = formula.churn_generations(SEED, PAGES, 400)
    kept = np.flatnonzero(frees != formula.FREED)
    pages, steps = formula.churn_writes(SEED, PAGES, 400)
    assert all(((pages == number) & (steps == frees[number])).any() for number in kept.tolist())


@pytest.fixture
def sides() -> Iterator[tuple[list[bytes], list[bytes]]]:
    """What both sides hold; the last step that the source has seen is 9."""
    same = [bytes(PAGE_SIZE), page(written(9), 9), b"k" * PAGE_SIZE]
    numbers = [written(LATER), written(9), written(7), *[written(LATER)] * 3, written(9)]
    its = [page(number, 0) for number in numbers]
    yield [*same, *its], [*same, *its]


def found(
    before: list[bytes], after: list[bytes], kind: str = "rewrite"
) -> tuple[Mapping[int, str], list[int]]:
    source, destination = ram(before), ram(after)
    differing = np.flatnonzero([a != b for a, b in zip(before, after, strict=True)])
    steps = WorkloadSteps(workload(kind))
    last = last_step({"pc.ram": source}, steps)
    assert last == (9 if kind == "rewrite" else -1)
    since = since_switch(source, destination, differing, steps, last)
    return since.named, np.flatnonzero(since.lost).tolist()


def test_a_workload_never_takes_a_step_back(sides: tuple[list[bytes], list[bytes]]) -> None:
    before, after = sides
    new, old = page(written(LATER), LATER), before[7]
    after[3] = new  # written since
    after[4] = page(written(9), 9)  # the step that the switch interrupted
    after[5] = page(written(7), 7)  # older than what the source has seen
    after[6] = bytes(PAGE_SIZE)  # never arrived
    after[7] = new[:800] + old[800:]  # interrupted by the stop
    after[8] = new[:800] + old[800:-8] + bytes(8)  # and a word lost
    after[9] = new  # another page of the workload's, and as new as can be
    after[2] = b"K" * PAGE_SIZE  # the kernel's
    named, lost = found(before, after)
    assert named == {3: WRITTEN, 4: WRITTEN, 7: WRITTEN, 2: UNDECIDED}
    assert lost == [5, 6, 8, 9]


def test_a_workload_without_steps_says_nothing(sides: tuple[list[bytes], list[bytes]]) -> None:
    before, after = sides
    after[3], after[6] = page(written(LATER), LATER), bytes(PAGE_SIZE)
    assert found(before, after, "freed") == ({3: UNDECIDED, 6: UNDECIDED}, [])


def state(**known: object) -> BlockState:
    """Page 1 differs, page 2 is a page of zeros."""
    zero = np.array([False, False, True])
    return replace(BlockState(Block("pc.ram", 3), np.array([1]), zero, zero), **known)  # type: ignore[arg-type]


def rules(block: BlockState) -> list[str]:
    return [finding.rule for finding in judge(JudgeInput("off", (block,))).findings]


def test_pages_of_a_guest_that_ran() -> None:
    one = np.array([False, True, False])
    assert rules(state()) == ["differs-not-skipped"]
    assert rules(state(lost=one)) == ["lost-since-switch"]
    named = judge(JudgeInput("off", (state(lost=~one, named={1: WRITTEN}),)))
    assert (named.verdict, named.pages.explained) == ("pass", {WRITTEN: 1})


def test_the_source_stands_from_the_switch_on() -> None:
    equal = state(differing=np.empty(0, np.int64), changed_since_switch=np.array([False, False, True]))
    assert rules(equal) == ["source-changed-since-switch"]
    with pytest.raises(MachineryError, match="does not cover its 3 pages"):
        rules(state(changed_since_switch=np.zeros(2, np.bool_)))


SOURCE = QemuAccount(
    "source", ("setup", "active", "postcopy-active", "completed"), ((0.0, 5.0),), completed=7.0, switched=5.5
)
DESTINATION = QemuAccount(
    "destination", ("active", "postcopy-active", "completed"), ((6.0, None),), completed=7.1, switched=5.4
)


def outcome_rules(outcome: MigrationOutcome) -> list[str]:
    return [finding.rule for finding in outcome_findings(outcome)]


def test_how_it_ends() -> None:
    clean = MigrationOutcome(SOURCE, DESTINATION, moved=True, switched=True)
    assert outcome_rules(clean) == []
    # It has said that the guest has left, and runs it before anybody else does.
    again = replace(SOURCE, running=((0.0, 5.0), (5.6, 5.8)))
    assert outcome_rules(replace(clean, source=again)) == ["two-run"]
    never = replace(DESTINATION, statuses=("active", "completed"), switched=None)
    assert outcome_rules(replace(clean, destination=never)) == ["status-disagrees"]
    statuses = ("setup", "active", "postcopy-active", "postcopy-paused", "postcopy-recover", "completed")
    broken = replace(clean, source=replace(SOURCE, statuses=statuses))
    assert outcome_rules(broken) == ["postcopy-broke"]
    assert outcome_rules(replace(broken, broken=True)) == []


def test_the_switch_is_the_first_one() -> None:
    events = EventStream()
    for number, status in enumerate(("active", "postcopy-active", "postcopy-paused", "postcopy-active")):
        events.emit("MIGRATION", source="source.qmp", data={"status": status}, at=float(number))
    account = account_of("source", events.history(), since=0)
    assert (account.switched, account.completed, account.status) == (1.0, None, "postcopy-active")


def test_what_qemu_counts() -> None:
    ram_says = {"normal": 5, "duplicate": 7, "postcopy-requests": 2, "postcopy-bytes": 9}
    assert PageCounters.of({"status": "completed", "ram": ram_says}) == PageCounters(5, 7, 2, 0, 0, 9)
    with pytest.raises(MachineryError, match="says nothing of memory"):
        PageCounters.of({"status": "setup"})


class SayingMonitor:
    """Says one status after the other."""

    side = "destination"

    def __init__(self, *statuses: str) -> None:
        self._statuses = list(statuses)

    def execute(self, command: str, *, seconds: float) -> object:
        assert (command, seconds > 0) == ("query-migrate", True)
        return {"status": self._statuses.pop(0)}


def test_waiting_for_a_pause() -> None:
    deadline = Deadline(10, "a pause")
    await_paused(SayingMonitor("postcopy-active", "postcopy-paused"), deadline)  # type: ignore[arg-type]
    with pytest.raises(MachineryError, match="destination's migration is at 'active': there is nothing"):
        await_paused(SayingMonitor("active"), deadline)  # type: ignore[arg-type]


def test_what_the_actions_do() -> None:
    stage, deadline = FakeStage(), Deadline(10, "an action")
    PostcopyStart().carry_out(stage, deadline)
    assert stage.did == ["will-switch", "start-postcopy"]
    stage.did.clear()
    PostcopyStart(guest="runs", bandwidth="1MiB/s").carry_out(stage, deadline)  # type: ignore[arg-type]
    start = ["migrate-set-parameters", "start-postcopy, guest runs"]
    assert stage.did == ["will-switch, guest runs", *start]
    stage.did.clear()
    for by in ("source", "destination", "wire"):
        PostcopyBreak(by=by).carry_out(stage, deadline)  # type: ignore[arg-type]
    begin, both = ["will-break", "query-status"], ["migrate-pause", "migrate-pause"]
    assert stage.did == [*begin, both[0], *begin, both[0], *begin, "cut", *both, "mend"]
    stage.did.clear()
    PostcopyBreak(early=True).carry_out(stage, deadline)
    assert stage.did == ["will-break", "migrate-pause"]
    stage.did.clear()
    PostcopyBreak(by="libvirt").carry_out(stage, deadline)
    assert stage.did == ["will-break", "query-status", "pause-postcopy"]
    stage.did.clear()
    PostcopyRecover().carry_out(stage, deadline)
    assert stage.did == ["migrate-set-parameters", "recover"]
    stage.did.clear()
    stage.destination.answers["query-memory-size-summary"] = {"base-memory": 4 << 30}
    PostcopyTouch(pages=3).carry_out(stage, deadline)
    assert stage.did == ["query-memory-size-summary", *["human-monitor-command"] * 3]
    stage.destination.late.add("human-monitor-command")
    PostcopyTouch(pages=3).carry_out(stage, deadline)
    assert stage.did[-2:] == ["human-monitor-command", "found postcopy-page-missing"]
    stage.destination.answers.clear()
    with pytest.raises(MachineryError, match="does not say how much memory"):
        PostcopyTouch().carry_out(stage, deadline)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "script: [{at: active, do: [{action: postcopy-start}]}]",
            "own.yaml:2:29: script[0].do[0].action: postcopy-start needs migration.postcopy: true",
        ),
        (
            "migration: {postcopy_preempt: true}",
            "own.yaml:2:13: migration.postcopy_preempt: expected only with postcopy: true",
        ),
        (
            "migration: {postcopy: true}\n"
            "script: [{at: postcopy-active, do: [{action: pages-alloc, pages: 1}]}]",
            "pages-alloc needs a running guest, which stands still here",
        ),
        (
            "migration: {postcopy: libvirt}",
            "own.yaml:2:13: migration.postcopy: libvirt lets the guest run at once: expected a",
        ),
        (
            "migration: {postcopy: libvirt}\nscript: [{at: active, do: [{action: postcopy-start}]}]",
            "does not go with postcopy: libvirt: libvirt lets the guest run; say guest: runs",
        ),
        (
            "migration: {postcopy: true}\n"
            "script: [{at: active, do: [{action: postcopy-start}, {action: postcopy-break, by: libvirt}]}]",
            "goes only with postcopy: libvirt: libvirt has no job that it could be asked to abort",
        ),
        (
            "migration: {postcopy: true}\nscript: [{at: active, do: [{action: postcopy-start, guest: run}]}]",
            "did you mean 'runs'?",
        ),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(f"name: own\n{text}\n", encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load_scenario(str(path))
    assert words in str(caught.value)


def test_those_that_ship() -> None:
    for name in (
        "postcopy",
        "postcopy-runs",
        "postcopy-recover",
        "postcopy-recover-libvirt",
        "postcopy-preempt",
    ):
        scenario = load_scenario(name)
        assert scenario.migration.postcopy
        assert any(action.needs_postcopy for entry in scenario.script for action in entry.do)
