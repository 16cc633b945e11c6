# SPDX-License-Identifier: GPL-2.0-or-later
"""An action of a script is one class: found in a file, checked, carried out, described, and nothing else."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, cast

import pytest
from pydantic import Field, ValidationError

from harness.errors import InputError
from harness.events import Deadline, EventStream
from harness.migration.inbox import Completion
from harness.migration.qmp import CommandError
from harness.scenario.actions.backend import BackendKill
from harness.scenario.actions.base import ACTIONS, Action, ControlAction, GuestAction
from harness.scenario.actions.module import MOST_SPANS, ModuleMisbehave, spans
from harness.scenario.actions.monitor import AwaitAnswer, Qmp
from harness.scenario.actions.stage import Stage
from harness.scenario.load import Scenario, load_scenario, scenario_schema
from harness.scenario.script import needs_controls, restarts
from harness.scenario.values import Size
from harness.script.runner import ScriptRunner
from tests.unit.fake_stage import FakeStage


@pytest.fixture(autouse=True)
def own_actions() -> Iterator[None]:
    """Two actions of this test's own, one done on the host and one in the guest; gone afterwards."""
    with ACTIONS.temporary():

        class BalloonBelow(Action):
            """Make the balloon's target smaller, and wait for nobody."""

            action: Literal["balloon-below"] = "balloon-below"
            size: Size
            """What the guest is to be left with."""

            def carry_out(self, stage: Stage, deadline: Deadline) -> None:
                assert not deadline.expired
                stage.source.execute("balloon", {"value": self.size})
                stage.find("too-small", f"a guest of {self.size} bytes")

        class DropCaches(GuestAction):
            """The guest gives up its page cache."""

            action: Literal["drop-caches"] = "drop-caches"
            level: Annotated[int, Field(ge=1, le=3)] = 3
            """What the kernel is told."""

            needs_controls = True
            seconds = 5.0

            def carry_out(self, stage: Stage, deadline: Deadline) -> None:
                assert deadline.seconds == self.seconds
                stage.guest.call("drop-caches", self.level, deadline=deadline)

        assert {"balloon-below", "drop-caches"} <= set(ACTIONS)
        yield
    assert not {"balloon-below", "drop-caches"} & set(ACTIONS)


def written(folder: Path, script: str) -> Scenario:
    path = folder / "own.yaml"
    path.write_text(f"name: own\nguest: {{module: test}}\nscript:\n{script}", encoding="utf-8")
    return load_scenario(str(path))


SCRIPT = """\
  - at: request
    do:
      - {action: balloon-below, size: 128MiB}
      - {action: cont}
      - {action: drop-caches}
"""


def test_they_are_carried_out(tmp_path: Path) -> None:
    stage, inbox = FakeStage(), queue.SimpleQueue[Completion]()
    runner = ScriptRunner(written(tmp_path, SCRIPT).script, stage, EventStream(), inbox.put)
    runner.begin()
    over: list[str] = []
    runner.happened("request", then=lambda: over.append("over"))
    # What is done on the host is done in the hold, without another thread's doing.
    assert stage.did == ["balloon", "found too-small"]
    assert over == ["over"]
    stage.guest.go.put(None)
    runner.settle(lambda _: inbox.get(timeout=10), Deadline(10, "the script"))
    assert stage.did == ["balloon", "found too-small", "drop-caches"]
    assert runner.unreached == ()


def test_they_survive_a_run_folder(tmp_path: Path) -> None:
    first = written(tmp_path, SCRIPT)
    again = tmp_path / "again.yaml"
    again.write_text(first.to_yaml(), encoding="utf-8")
    assert "size: 128MiB" in first.to_yaml()
    assert load_scenario(str(again)) == first


def test_what_they_need_is_known(tmp_path: Path) -> None:
    script = written(tmp_path, SCRIPT).script
    assert needs_controls(script)
    assert not restarts(script)
    with pytest.raises(InputError, match="drop-caches needs a running guest, which stands still here"):
        written(tmp_path, SCRIPT.replace("      - {action: cont}\n", ""))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("{action: drop-cache}", "own.yaml:5:11: script[0].do[0].action: expected 'stop', "),
        ("{action: drop-cache}", "did you mean 'drop-caches'?"),
        ("{}", "own.yaml:5:10: script[0].do[0].action: expected 'stop', "),
        ("{action: [drop-caches]}", "own.yaml:5:11: script[0].do[0].action: expected 'stop', "),
        (
            "{action: drop-caches, level: 4}",
            "own.yaml:5:32: script[0].do[0].level: expected at most 3, got 4",
        ),
        (
            "{action: drop-caches, levle: 3}",
            "own.yaml:5:32: script[0].do[0].levle: unknown key; did you mean 'level'? "
            "the keys of action 'drop-caches' here are action, level",
        ),
        ("{action: balloon-below}", "own.yaml:5:10: script[0].do[0].size: missing"),
        # A key that is called as an action is.
        ("{action: stop, cont: 1}", "own.yaml:5:25: script[0].do[0].cont: unknown key"),
    ],
)
def test_mistakes_are_found_where_they_are(tmp_path: Path, wrong: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        written(tmp_path, f"  - at: active\n    do: [{wrong}]\n")
    assert words in str(caught.value)


def test_the_schema_has_them() -> None:
    defined = scenario_schema()["$defs"]
    assert isinstance(defined, dict)
    do = defined["Entry"]["properties"]["do"]
    assert do["items"]["discriminator"]["mapping"]["drop-caches"] == "#/$defs/DropCaches"
    assert {"$ref": "#/$defs/BalloonBelow"} in do["items"]["oneOf"]
    assert defined["DropCaches"]["description"] == "The guest gives up its page cache."
    assert defined["DropCaches"]["properties"]["level"]["description"] == "What the kernel is told."
    assert defined["BalloonBelow"]["required"] == ["size"]


def test_each_says_what_it_is() -> None:
    for word, kind in ACTIONS.items():
        assert kind.__name__ == "".join(part.title() for part in word.split("-"))
        assert kind.__doc__, word
        assert ("It needs a running guest." in kind.doc_notes()) == kind.needs_guest
        for key, field in kind.model_fields.items():
            assert key == "action" or field.description, (word, key)
        assert kind.needs_guest or not (kind.needs_controls or kind.restarts), word


def test_what_several_have_in_common_is_no_action() -> None:
    assert not {Action, GuestAction, ControlAction} & set(ACTIONS.values())


def test_the_module_is_told_the_first_runs_of_the_scripts_own_frames() -> None:
    assert spans([5, 4, 9, 3]) == [3, 3, 9, 1]
    assert len(spans(range(0, 1000, 2))) == 2 * MOST_SPANS
    stage = FakeStage()
    said: list[object] = []

    def call(verb: str, *words: str | int, deadline: Deadline) -> dict[str, object]:
        said.append((verb, *words))
        return {"bad": 0, "frames": [8, 7]}

    stage.guest.call = call  # type: ignore[method-assign]
    stage.pages.call("alloc", 7, 2, deadline=Deadline(1, "a test"))
    ModuleMisbehave(how="report-owned").carry_out(stage, Deadline(1, "a test"))
    assert said == [("pages-alloc", 7, 2), ("misbehave", "report-owned", 7, 2)]


def test_a_backend_is_killed_on_the_side_that_is_named() -> None:
    stage = FakeStage()
    BackendKill(device="tpm", side="source").carry_out(cast(Stage, stage), Deadline(1, "it"))
    assert stage.did == ["will-cut", "kill tpm on the source"]


@pytest.mark.parametrize(
    ("said", "keys", "found"),
    [
        ({"status": "active"}, {}, False),
        ({"status": "active"}, {"answer": {"status": "active"}}, False),
        ({"status": "active"}, {"answer": {"status": {"not": "active"}}}, True),
        ({}, {"refused": "No such"}, True),
        (CommandError("refused", description="No such device"), {"refused": "No such"}, False),
        (CommandError("refused", description="No such device"), {"answer": {".": {"has": "x"}}}, True),
    ],
)
def test_what_a_qemu_answers_is_held_against_the_scenario(
    said: object, keys: dict[str, object], found: bool
) -> None:
    stage = FakeStage()
    stage.answers = said
    action = Qmp.model_validate({"command": "query-migrate", **keys})
    action.carry_out(cast(Stage, stage), Deadline(1, "it"))
    assert stage.did == ["query-migrate", *(["found qmp-answer"] if found else [])]


def test_a_qemu_is_asked_until_it_answers_as_expected() -> None:
    stage = FakeStage()
    stage.answers_in_turn = [{"status": "measuring"}, {"status": "measuring"}, {"status": "measured"}]
    keys = {"command": "query-dirty-rate", "answer": {"status": "measured"}}
    AwaitAnswer.model_validate(keys).carry_out(cast(Stage, stage), Deadline(60, "it"))
    assert stage.did == ["query-dirty-rate"] * 3 + ["kept {'status': 'measured'}"]
    stage.did.clear()
    AwaitAnswer.model_validate({**keys, "within_s": 1}).carry_out(cast(Stage, stage), Deadline(60, "it"))
    assert stage.did[0] == "query-dirty-rate"
    assert stage.did[-2:] == ["kept {}", "found qmp-answer"]


def test_who_refuses_gives_no_answer() -> None:
    with pytest.raises(ValidationError, match="who refuses gives no answer"):
        Qmp.model_validate({"command": "query-migrate", "refused": "x", "answer": {"status": "active"}})


@pytest.mark.parametrize(
    ("guest", "served"),
    [
        ("{}", "none"),
        ("{disks: [{}, {bus: vhost-user-blk}]}", "disk"),
        ("{devices: [{device: rng}]}", "none"),
    ],
)
def test_a_backend_that_is_not_there_cannot_be_killed(tmp_path: Path, guest: str, served: str) -> None:
    path = tmp_path / "kill.yaml"
    path.write_text(
        f"name: kill\nguest: {guest}\nscript: [{{at: setup, do: [{{action: backend-kill, device: tpm}}]}}]\n"
    )
    words = rf"kill\.yaml:3:.*no program beside QEMU serves a device tpm of this guest, but {served}"
    with pytest.raises(InputError, match=words):
        load_scenario(str(path))
