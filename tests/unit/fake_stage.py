# SPDX-License-Identifier: GPL-2.0-or-later
"""A stage for the actions of a script on which nothing is migrated: it writes down what is done."""

# ruff: noqa: ARG002 - what stands in for something need not use all that it is given

from __future__ import annotations

import queue
from collections.abc import Callable, Mapping

from harness.errors import DeadlineExceeded, MachineryError
from harness.events import Deadline
from harness.migration.qmp import CommandError
from harness.scenario.actions.stage import QmpAnswer, RunFacts
from harness.script.pages import OwnedPages


class FakeQemu:
    """Writes down each command."""

    pid = 0

    def __init__(self, did: list[str]) -> None:
        self._did = did
        self.answers: dict[str, object] = {}
        self.late: set[str] = set()

    def execute(
        self,
        command: str,
        arguments: Mapping[str, object] | None = None,
        *,
        seconds: float = 30,
        at_once: bool = False,
    ) -> object:
        self._did.append(command)
        if command in self.late:
            raise DeadlineExceeded(f"{command}: not within {seconds:g} s")
        return self.answers.get(command, {})

    def expect_end(self) -> None:
        pass


class FakeGuest:
    """Writes down each call, which waits for ``go``; a walk is held when ``walks`` says so."""

    def __init__(self, did: list[str]) -> None:
        self._did = did
        self.go: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
        self.walks: queue.SimpleQueue[str] = queue.SimpleQueue()

    def call(self, verb: str, *words: str | int, deadline: Deadline) -> Mapping[str, object]:
        if verb == "held":
            assert self.walks.get(timeout=10) == words[0]
            return {}
        error = self.go.get(timeout=10)
        self._did.append(verb)
        if error is not None:
            raise error
        return {}

    def restart(self, begin: Callable[[Deadline], object]) -> None:
        begin(Deadline(10, "a boot"))


class FakeWire:
    def __init__(self, did: list[str]) -> None:
        self._did = did

    def cut(self) -> None:
        self._did.append("cut")

    def stop_reader(self) -> None:
        self._did.append("stop-reader")

    def mend(self) -> None:
        self._did.append("mend")

    def wait_until_blocked(self) -> None:
        self._did.append("blocked")


class FakeStage:
    """Writes down what is done to a migration that there is not."""

    def __init__(self) -> None:
        self.did: list[str] = []
        self.facts = RunFacts(seed=7, bandwidth=1 << 20, timeout_s=10)
        self.source = self.destination = FakeQemu(self.did)
        self.guest = FakeGuest(self.did)
        self.pages = OwnedPages(self.guest)
        self.wire = FakeWire(self.did)
        self.frozen = False
        self.guest_has_moved = False
        #: What a QEMU says to whatever it is asked.
        self.answers: object = {}
        self.answers_in_turn: list[object] = []

    def ask(
        self,
        side: str,
        command: str,
        arguments: Mapping[str, object],
        *,
        seconds: float,
        keep: bool = True,
    ) -> QmpAnswer | None:
        self.did.append(command)
        if self.answers_in_turn:
            return QmpAnswer(side, command, self.answers_in_turn.pop(0), None)
        if isinstance(self.answers, CommandError):
            return QmpAnswer(side, command, None, self.answers.description)
        return QmpAnswer(side, command, self.answers, None)

    def came_too_late(self, what: str, error: MachineryError, *, in_postcopy: bool) -> bool:
        return False

    def keep_answer(self, answer: QmpAnswer) -> None:
        self.did.append(f"kept {answer.answer}")

    def demand_answer(self, command: str) -> None:
        self.did.append(command)

    def find(self, rule: str, text: str) -> None:
        self.did.append(f"found {rule}")

    def will_cancel(self) -> None:
        pass

    def will_switch(self, *, guest_runs: bool) -> None:
        self.did.append("will-switch, guest runs" if guest_runs else "will-switch")

    def start_postcopy(self, *, guest_runs: bool) -> None:
        self.did.append("start-postcopy, guest runs" if guest_runs else "start-postcopy")

    def will_break(self) -> None:
        self.did.append("will-break")

    def pause_postcopy(self) -> None:
        self.did.append("pause-postcopy")

    def recover(self, deadline: Deadline) -> None:
        self.did.append("recover")

    def will_cut_wire(self) -> None:
        self.did.append("will-cut")

    def kill_backend(self, device: str, side: str) -> None:
        self.did.append(f"kill {device} on the {side}")

    def will_kill_destination(self) -> None:
        pass

    def will_end(self, side: str) -> None:
        self.did.append(f"will-end {side}")
