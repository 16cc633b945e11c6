# SPDX-License-Identifier: GPL-2.0-or-later
"""vCPUs that come and go: what a scenario may say, what the actions do, and how it is judged."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pydantic import ValidationError

from harness.events import Deadline
from harness.scenario.actions.stage import Stage
from harness.scenario.actions.vcpus import VcpuAdd, VcpuRemove
from harness.scenario.model import Scenario
from harness.verdict.judge import JudgeInput, judge_memory
from harness.verdict.rules.vcpus import VcpuCount


class Machine:
    """A guest with vCPUs, of which it finds one at a time."""

    def __init__(self, stuck: int = 0) -> None:
        self.vcpus, self.online, self.found, self.stuck = 1, 1, list[str](), stuck

    def set_vcpus(self, count: int) -> None:
        self.vcpus = count

    def call(self, verb: str, count: int, *, deadline: Deadline) -> Mapping[str, object]:  # noqa: ARG002
        if verb == "cpus-online":
            changed = min(1, self.vcpus - self.online, count)
        else:
            changed = min(count, self.online - 1 - self.stuck)
        self.online += changed if verb == "cpus-online" else -changed
        return {"changed": changed, "online": self.online}

    def find(self, rule: str, text: str) -> None:
        self.found.append(f"{rule}: {text}")

    @property
    def stage(self) -> Stage:
        return cast("Stage", SimpleNamespace(domain=self, guest=self, find=self.find))


def deadline() -> Deadline:
    return Deadline(10, "a test")


def test_they_come_and_go() -> None:
    machine = Machine()
    VcpuAdd(count=3).carry_out(machine.stage, deadline())
    assert (machine.vcpus, machine.online) == (4, 4)
    VcpuRemove(count=2).carry_out(machine.stage, deadline())
    assert (machine.vcpus, machine.online) == (2, 2)
    assert machine.found == []


def test_a_guest_that_does_not_let_go() -> None:
    machine = Machine(stuck=1)
    VcpuAdd(count=2).carry_out(machine.stage, deadline())
    VcpuRemove(count=2).carry_out(machine.stage, deadline())
    assert machine.vcpus == 3
    assert machine.found == ["vcpu-remove: the guest took 1 of 2 vCPUs offline"]


ADD = {"action": "vcpu-add", "count": 2}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"guest": {"vcpus": 4, "topology": {"cores": 2}}}, "expected a product from 4"),
        ({"guest": {"topology": {"cores": 64, "threads": 2}}}, "to 64, got 128"),
        ({"script": [{"at": "start", "do": [ADD]}]}, "the script needs 3 vCPUs, and there can be 1"),
        (
            {"guest": {"topology": {"cores": 2}}, "script": [{"at": "start", "do": [ADD]}]},
            "the script needs 3 vCPUs, and there can be 2",
        ),
        (
            {"guest": {"topology": {"cores": 4}}, "script": [{"at": "active", "do": [ADD]}]},
            "QEMU refuses vcpu-add while it migrates; put it at start",
        ),
    ],
)
def test_what_cannot_be(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Scenario.model_validate({"name": "a", **changes})


def test_those_that_went_make_room_for_others() -> None:
    remove = {"action": "vcpu-remove", "count": 2}
    script = [{"at": "start", "do": [ADD, remove, ADD]}]
    Scenario.model_validate({"name": "a", "guest": {"topology": {"cores": 3}}, "script": script})


@pytest.mark.parametrize(
    ("count", "found"),
    [((3, 3, 3), []), ((3, 2, 2), ["vcpus-missing"]), ((3, 3, 2), ["vcpus-missing"])],
)
def test_the_verdict(count: tuple[int, int, int], found: list[str]) -> None:
    case = JudgeInput(arm="off", blocks=())
    judgement = judge_memory(case).complete(VcpuCount(*count))
    assert [one.rule for one in judgement.findings] == found
