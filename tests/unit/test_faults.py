# SPDX-License-Identifier: GPL-2.0-or-later
"""The catalogue against the builds that have its faults, and what a campaign makes of a run."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path

import pytest

from harness.errors import InputError
from harness.faults import campaign as campaign_module
from harness.faults.campaign import (
    OUTCOMES,
    Campaign,
    CampaignRow,
    CampaignRun,
    clean_jobs_for,
    jobs_for,
    summarise_campaign,
)
from harness.faults.catalogue import Catalogue, Fault, catalogue
from harness.faults.conduct import choose
from harness.faults.injection import NO_INJECTION, injection_of
from harness.faults.outcome import RunEnd, judge_control, judge_fault
from harness.scenario.load import load_scenario

FAULTS = catalogue().faults


def a_fault(**changes: object) -> Fault:
    values: dict[str, object] = {
        "id": "one",
        "what": "something",
        "where": "qemu",
        "kind": "bitmap",
        "scenario": "idle",
        "rules": ["differs-though-sent", "write-missed"],
    }
    return Fault.model_validate({**values, **changes})


# ------------------------------------------------------------- the catalogue


def test_every_fault_of_qemu_is_in_the_patches_and_the_other_way_round(repository: Path) -> None:
    patches = "".join(path.read_text() for path in (repository / "qemu-patches/faults/10.0").glob("*.patch"))
    there = set(re.findall(r'^\+ +FAULT\([A-Z_0-9]+, "([a-z0-9-]+)"\)', patches, re.MULTILINE)) - {"none"}
    asked = set(re.findall(r"fault_(?:is|here)\((?:DEVICE_)?FAULT_([A-Z_0-9]+)\)", patches))
    declared = set(re.findall(r"^\+ +FAULT\(([A-Z_0-9]+),", patches, re.MULTILINE)) - {"NONE"}
    assert asked == declared, "a fault that nothing asks for does nothing"
    assert there == {fault.id for fault in FAULTS if fault.where == "qemu"}


def test_every_fault_of_the_module_is_one_of_its_misbehaviours(repository: Path) -> None:
    names = set(
        re.findall(r'\[FPB_[A-Z_]+\] = "([a-z-]+)"', (repository / "guest-module/misbehave.c").read_text())
    )
    assert {fault.id for fault in FAULTS if fault.where == "module"} <= names


@pytest.mark.parametrize("scenario", catalogue().scenarios)
def test_scenarios_of_the_catalogue_are_right(scenario: str) -> None:
    file = next(fault.scenario_file for fault in FAULTS if fault.scenario == scenario)
    assert load_scenario(file).name == scenario


def test_no_scenario_of_the_campaign_is_unused() -> None:
    from harness.faults.catalogue import SCENARIOS

    assert {path.stem for path in SCENARIOS.glob("*.yaml")} <= set(catalogue().scenarios)


def test_who_judges_is_not_told(repository: Path) -> None:
    harness = repository / "harness"
    judges = [
        *(harness / "verdict").rglob("*.py"),
        *(harness / "memory").rglob("*.py"),
        *(harness / "evidence").rglob("*.py"),
    ]
    assert len(judges) > 10
    for path in judges:
        assert not re.search(r"injection|\.fault\b|harness\.faults", path.read_text()), path


def test_a_catalogue_names_each_fault_once() -> None:
    with pytest.raises(ValueError, match="twice: one"):
        Catalogue(faults=(a_fault(), a_fault()))


@pytest.mark.parametrize(
    "changes", [{"rules": []}, {"verdict": "lost"}, {"says": "x"}, {"id": "No"}, {"scenario": ""}]
)
def test_a_fault_that_says_too_little_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        a_fault(**changes)


def test_an_unknown_fault_is_an_error_with_a_suggestion() -> None:
    with pytest.raises(InputError) as found:
        injection_of("sent-skiped")
    assert "'sent-skipped'" in (found.value.hint or "")


def test_a_fault_goes_into_what_is_under_test() -> None:
    assert injection_of(None) is NO_INJECTION
    qemu = injection_of("sent-skipped")
    assert (qemu.qemu_flavour, qemu.faulty_module) == ("faults", False)
    assert qemu.qemu_arguments == ("-global", "virtio-balloon-device.x-fault=sent-skipped")
    module = injection_of("report-all")
    assert (module.qemu_flavour, module.faulty_module) == ("patched", True)
    assert module.cmdline == "freepage.params=misbehave=report-all"


# ----------------------------------------------------------- what a run says


@pytest.mark.parametrize(
    ("fault", "ended", "word", "rule"),
    [
        (a_fault(), RunEnd(1, "fail", ("differs-though-sent", "x")), "caught", "differs-though-sent"),
        (a_fault(), RunEnd(1, "fail", ("x", "write-missed")), "caught", "write-missed"),
        # Failed, but not by what it breaks: that may be chance.
        (a_fault(), RunEnd(1, "fail", ("guest-kernel-log",)), "missed", ""),
        (a_fault(), RunEnd(0, "pass"), "missed", ""),
        (a_fault(), RunEnd(4, "inconclusive"), "missed", ""),
        # No verdict is no catch, whatever the error says.
        (a_fault(), RunEnd(3, error="freepage: the guest was lost"), "error", ""),
        (a_fault(), RunEnd(-9), "error", ""),
        (a_fault(verdict="inconclusive", rules=[]), RunEnd(4, "inconclusive"), "caught", "inconclusive"),
        (a_fault(verdict="inconclusive", rules=[]), RunEnd(0, "pass"), "missed", ""),
        (
            a_fault(verdict="lost", says="source QEMU"),
            RunEnd(3, error="freepage: the source QEMU died"),
            "caught",
            "lost",
        ),
        (a_fault(verdict="lost", says="source QEMU"), RunEnd(3, error="no disk space"), "error", ""),
        (a_fault(verdict="lost", says="source QEMU"), RunEnd(2, error="source QEMU"), "error", ""),
        (a_fault(verdict="lost", says="source QEMU"), RunEnd(0, "pass"), "missed", ""),
    ],
)
def test_what_a_run_says_of_a_fault(fault: Fault, ended: RunEnd, word: str, rule: str) -> None:
    judged = judge_fault(fault, ended)
    assert (judged.word, judged.rule) == (word, rule)
    assert bool(judged.why) == (word != "caught")


def test_a_control_has_to_show_what_its_scenario_is_written_for() -> None:
    assert judge_control(RunEnd(0, "pass")).word == "caught"
    assert judge_control(RunEnd(1, "fail", ("x",), expected="fail")).word == "caught"
    assert judge_control(RunEnd(1, "fail", ("x",))).word == "missed"
    assert judge_control(RunEnd(3, error="freepage: no")).why == "no"


# ------------------------------------------------------------- the campaign


class Runs(Campaign):
    """A campaign whose runs end as they are told to, with a folder each."""

    def __init__(self, folder: Path, ends: dict[str, RunEnd], key: str = "k") -> None:
        super().__init__(folder, key, "tcg", lambda _: None)
        self.ends = ends
        self.ran: list[str] = []
        self._ran_lock = threading.Lock()

    def _freepage(self, job: CampaignRun, folder: Path) -> tuple[RunEnd, float]:
        with self._ran_lock:
            self.ran.append(job.name)
        folder.mkdir()
        return self.ends[job.name], 1.0


CAUGHT = RunEnd(1, "fail", ("differs-though-sent",), accelerator="tcg")
PASSED = RunEnd(0, "pass", accelerator="tcg")


def test_a_campaign_counts_and_keeps_what_was_missed(tmp_path: Path) -> None:
    faults = [a_fault(), a_fault(id="two"), a_fault(id="three", scenario="freed")]
    ends = {
        "control:idle": PASSED,
        "control:freed": PASSED,
        "one": CAUGHT,
        "two": PASSED,
        "three": RunEnd(3, error="freepage: the guest was lost"),
    }
    runs = Runs(tmp_path, ends)
    report = runs.run(jobs_for(faults), jobs=2, not_run=["kvm-only"])
    assert (report.caught, report.total) == (1, 3)
    document = json.loads(json.dumps(report.document()))
    assert [fault["outcome"] for fault in document["faults"]] == ["caught", "missed", "error"]
    assert document["faults"][0]["rule"] == "differs-though-sent"
    assert document["not_run"] == ["kvm-only"]
    kept = {path.name for path in tmp_path.iterdir()} - {OUTCOMES}
    assert kept == {"two-1", "three-1"}
    assert document["faults"][1]["run"] == str(tmp_path / "two-1")
    lines = summarise_campaign(report)
    assert lines[-1] == "caught 1 of 3"
    assert any(line.startswith("one ") and "X." in line for line in lines)


def test_a_campaign_goes_on_where_it_was(tmp_path: Path) -> None:
    ends = {"control:idle": PASSED, "one": CAUGHT, "two": RunEnd(3)}
    faults = [a_fault(), a_fault(id="two")]
    Runs(tmp_path, ends).run(jobs_for(faults), jobs=1)
    again = Runs(tmp_path, {**ends, "two": CAUGHT})
    assert again.run(jobs_for(faults), jobs=1).caught == 2
    assert again.ran == ["two"], "what ended without a verdict is tried again, and nothing else"
    changed = Runs(tmp_path, ends, key="another build")
    changed.run(jobs_for(faults), jobs=1)
    assert sorted(changed.ran) == ["control:idle", "one", "two"]


def test_who_fails_without_a_fault_has_caught_nothing(tmp_path: Path) -> None:
    report = Runs(tmp_path, {"control:idle": CAUGHT, "one": CAUGHT}).run(jobs_for([a_fault()]), jobs=1)
    assert report.caught == 0
    assert report.faults[0].word == "error"
    assert "its control went wrong" in report.faults[0].why
    assert (tmp_path / "control-idle-1").exists()


def test_each_scenario_runs_once_without_a_fault() -> None:
    names = [job.name for job in jobs_for([a_fault(), a_fault(id="two"), a_fault(id="x", scenario="freed")])]
    assert names == ["control:idle", "control:freed", "one", "two", "x"]


def test_a_clean_campaign_runs_each_scenario_as_often_as_it_has_faults(tmp_path: Path) -> None:
    wanted = clean_jobs_for([a_fault(), a_fault(id="two")])
    runs = Runs(tmp_path, {"control:idle/one": PASSED, "control:idle/two": CAUGHT})
    report = runs.run(wanted, jobs=1)
    assert [row.word for row in report.controls] == ["caught", "missed"]
    assert summarise_campaign(report)[-1] == "without a fault as expected: 1 of 2"
    assert (tmp_path / "control-idle-two-1").exists()


def test_a_damaged_state_is_said_and_not_guessed(tmp_path: Path) -> None:
    (tmp_path / OUTCOMES).write_text('{"key": "k"\n')
    with pytest.raises(campaign_module.MachineryError, match=r"outcomes\.jsonl:1"):
        Runs(tmp_path, {}).run(jobs_for([a_fault()]), jobs=1)


def test_choosing() -> None:
    found = catalogue()
    assert choose(found, [], sample=False) == list(found.faults)
    assert [fault.id for fault in choose(found, ["sent-skipped"], sample=False)] == ["sent-skipped"]
    assert all(fault.sample for fault in choose(found, [], sample=True))
    with pytest.raises(InputError):
        choose(found, ["nothing"], sample=False)


def test_the_sample_is_of_every_place() -> None:
    sample = [fault for fault in FAULTS if fault.sample]
    assert len(sample) >= 8
    assert {fault.where for fault in sample} == {"qemu", "module"}
    assert {fault.ours for fault in sample} == {True, False}


def test_row_is_what_the_state_holds() -> None:
    assert set(CampaignRow.__dataclass_fields__) >= {
        "job",
        "scenario",
        "word",
        "rule",
        "why",
        "accelerator",
        "run",
    }
