# SPDX-License-Identifier: GPL-2.0-or-later
"""Actions on the monitors: any QMP command, and to wait for any of QEMU's events."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal, Self, TypeAlias

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from harness.errors import DeadlineExceeded
from harness.events import Deadline
from harness.scenario.actions.answers import Wanted, unmet
from harness.scenario.actions.base import Action
from harness.scenario.actions.stage import MigrationSide, Qemu, Stage
from harness.scenario.values import Text


def _qemu(stage: Stage, side: MigrationSide) -> Qemu:
    return stage.source if side == "source" else stage.destination


_Command: TypeAlias = Annotated[Text, Field(pattern=r"^[a-zA-Z0-9_.-]{1,80}$")]
_ANSWER: Final[Mapping[str, str]] = {
    "qmp-answer": "QEMU refuses a script's command, takes one that it should refuse, or answers otherwise "
    "than the scenario says"
}
_EVENT: Final[Mapping[str, str]] = {
    "event-missing": "an event that a script waits for did not come, or the guest did not let go of a device"
}
#: Between two questions.
_TURN_SECONDS: Final = 0.2
#: What the scenario says of these does not hold any more once a script has changed them.
_LIMITS: Final = frozenset({"max-bandwidth", "downtime-limit", "avail-switchover-bandwidth"})


class Qmp(Action):
    """Have QEMU carry out any QMP command. Its answer is in the result's `qmp`.

    That it refuses what it should do, does what it should refuse, or answers otherwise than is said here, is
    a finding (qmp-answer).
    """

    action: Literal["qmp"] = "qmp"
    command: _Command
    """The command's name."""
    arguments: dict[str, Any] = Field(default={})
    """Its arguments, as QMP has them."""
    side: MigrationSide = "source"
    """Which QEMU: the one that the guest leaves, or the one that it goes to."""
    refused: Text | None = None
    """Words that must be in QEMU's error; null: it must do it."""
    answer: Wanted = Field(default={})
    """What its answer must hold: names of fields, with dots between them (`ram.remaining`, `0.status`; `.`
    is all of it, as of HMP's text), each with a value or with one or more of `{min: ..., max: ..., not: ...,
    has: TEXT, lacks: TEXT, matches: REGULAR EXPRESSION, absent: true}`."""

    seconds: ClassVar[float] = 60.0
    finds: ClassVar[Mapping[str, str]] = _ANSWER

    @property
    def sets_modes(self) -> bool:
        """Whether it changes what the migration has on."""
        return self.command.startswith("migrate-set-")

    @property
    def needs_destination(self) -> bool:
        """On that side."""
        return self.side == "destination"

    @property
    def changes_limit(self) -> bool:
        """If that is the command."""
        return self.command == "migrate-set-parameters" and not _LIMITS.isdisjoint(self.arguments)

    def carry_out(self, stage: Stage, deadline: Deadline) -> None:
        """QEMU answers at once, or that is a finding as well (qmp-frozen)."""
        answer = stage.ask(self.side, self.command, self.arguments, seconds=deadline.remaining())
        if answer is None:
            return
        if self.refused is None and answer.error is not None:
            text = f"the {self.side} QEMU refused {self.command}: {answer.error}"
            stage.find("qmp-answer", text)
        elif self.refused is not None and self.refused not in (answer.error or ""):
            said = "did it" if answer.error is None else f"said {answer.error!r}"
            text = f"the {self.side} QEMU should refuse {self.command} ({self.refused!r}), but {said}"
            stage.find("qmp-answer", text)
        elif answer.error is None and (wrong := unmet(answer.answer, self.answer)) is not None:
            stage.find("qmp-answer", f"the {self.side} QEMU's answer to {self.command}: {wrong}")

    @model_validator(mode="after")
    def _has_an_answer(self) -> Self:
        if self.refused is not None and self.answer:
            words = "expected only without refused: who refuses gives no answer"
            raise PydanticCustomError("in-entry", words, {"path": ("answer",)})
        return self


class AwaitAnswer(Action):
    """Ask QEMU until it answers as is said here: of what it sends no event about.

    That it does not in time is a finding (qmp-answer).
    """

    action: Literal["await-answer"] = "await-answer"
    command: _Command
    """The command's name, as `query-dirty-rate`."""
    arguments: dict[str, Any] = Field(default={})
    """Its arguments, as QMP has them."""
    side: MigrationSide = "source"
    """Which QEMU's."""
    answer: Annotated[Wanted, Field(min_length=1)]
    """What its answer must hold in the end, said as in `answer` of `qmp`."""
    within_s: Annotated[int, Field(ge=1, le=3600)] = 60
    """Seconds until it must."""

    waits: ClassVar[bool] = True
    finds: ClassVar[Mapping[str, str]] = _ANSWER

    @property
    def needs_destination(self) -> bool:
        """On that side."""
        return self.side == "destination"

    def carry_out(self, stage: Stage, deadline: Deadline) -> None:
        """In a thread: the migration, which may change the answer, goes on."""
        limit, turn = Deadline(self.within_s, f"an answer to {self.command}"), threading.Event()
        while True:
            last = limit.remaining() <= _TURN_SECONDS
            answer = stage.ask(self.side, self.command, self.arguments, seconds=Qmp.seconds, keep=False)
            if answer is None:
                return
            wrong = answer.error if answer.error is not None else unmet(answer.answer, self.answer)
            if wrong is None or last:
                stage.keep_answer(answer)
                if wrong is not None:
                    text = f"the {self.side} QEMU's answer to {self.command} after {self.within_s} s: {wrong}"
                    stage.find("qmp-answer", text)
                return
            # Nobody sets it: a turn of the clock.
            turn.wait(_TURN_SECONDS)


class Wait(Action):
    """Wait for one of QEMU's events, of those since the move began.

    That it does not come in time is a finding (event-missing).
    """

    action: Literal["wait"] = "wait"
    event: Annotated[Text, Field(pattern=r"^[A-Z0-9_]{1,80}$")]
    """Its name, as `DEVICE_DELETED`."""
    fields: Wanted = Field(default={})
    """What its data must hold, as `{device: net1}`, said as in `answer` of `qmp`; other fields may be
    anything."""
    side: MigrationSide = "source"
    """Which QEMU's."""
    since: Literal["move", "entry"] = "move"
    """entry: it must have come since this entry of the script began, as what the entry itself has done brings
    it; not before."""
    within_s: Annotated[int, Field(ge=1, le=3600)] = 60
    """Seconds until it must have come."""

    waits: ClassVar[bool] = True
    finds: ClassVar[Mapping[str, str]] = _EVENT

    def carry_out(self, stage: Stage, deadline: Deadline) -> None:
        """In a thread: the migration, which may bring it, goes on."""
        limit = Deadline(self.within_s, f"the event {self.event}")
        try:
            anew = self.since == "entry"
            stage.await_event(self.side, lambda name, data: self._is(name, data), limit, anew=anew)
        except DeadlineExceeded:
            fields = f" with {self.fields}" if self.fields else ""
            text = f"the {self.side} QEMU sent no event {self.event}{fields} in {self.within_s} s"
            stage.find("event-missing", text)

    def _is(self, name: str, data: Mapping[str, object]) -> bool:
        return name == self.event and unmet(data, self.fields) is None


class NicDown(Action):
    """One of the guest's NICs loses its link, on the QEMU that it leaves.

    A NIC of guest.nics must then have no link on the new host either, until nic-up.
    """

    action: Literal["nic-down"] = "nic-down"
    nic: Annotated[int, Field(ge=0, le=15)] = 0
    """Which NIC, counted from 0."""

    def carry_out(self, stage: Stage, deadline: Deadline) -> None:
        """QMP's ``set_link``: the guest sees the change as it would a cable's."""
        stage.set_link(self.nic, up=False)


class NicUp(Action):
    """The guest's NIC has its link again."""

    action: Literal["nic-up"] = "nic-up"
    nic: Annotated[int, Field(ge=0, le=15)] = 0
    """Which NIC, counted from 0."""

    def carry_out(self, stage: Stage, deadline: Deadline) -> None:
        """QMP's ``set_link``."""
        stage.set_link(self.nic, up=True)


_XmlText: TypeAlias = Annotated[Text, Field(min_length=1, max_length=16384)]


class _Plugs(Action):
    """What both of them say: an element, or one of the guest's own devices."""

    only_at: ClassVar[tuple[str, ...]] = ("start",)
    waits: ClassVar[bool] = True

    xml: _XmlText | None = None
    """The device's element in libvirt's language, as `<rng model='virtio'>...</rng>`; of one that is
    unplugged, as much as tells it from others. Nobody looks at such a device afterwards."""
    device: Literal["disk", "nic"] | None = None
    """In place of it: one of guest.disks or guest.nics, which says when it is there (plugged). From when
    it is plugged in on, the guest uses it on each host."""
    which: Annotated[int, Field(ge=0, le=15)] = 0
    """Which of that list, from 0."""

    @model_validator(mode="after")
    def _says_one(self) -> Self:
        if (self.xml is None) == (self.device is None):
            raise PydanticCustomError("in-entry", "expected xml or device", {"path": ("xml",)})
        return self


class DeviceAdd(_Plugs):
    """Plug a device in, by libvirt, so that the destination gets it as well.

    During a migration QEMU refuses; before the first one, or between two, it is in time.
    """

    action: Literal["device-add"] = "device-add"

    @property
    def plugs(self) -> tuple[str, int, bool] | None:
        """The guest's own device."""
        return None if self.device is None else (self.device, self.which, True)

    def carry_out(self, stage: Stage, deadline: Deadline) -> None:
        """What libvirt refuses is the scenario's mistake."""
        if self.device is not None:
            stage.plug(self.device, self.which)
        elif self.xml is not None:
            stage.domain.attach(self.xml)


class DeviceDel(_Plugs):
    """Unplug a device by libvirt, and wait until the guest has let go of it."""

    action: Literal["device-del"] = "device-del"

    finds: ClassVar[Mapping[str, str]] = _EVENT

    @property
    def plugs(self) -> tuple[str, int, bool] | None:
        """The guest's own device."""
        return None if self.device is None else (self.device, self.which, False)

    def carry_out(self, stage: Stage, deadline: Deadline) -> None:
        """QEMU says when the guest has let go (DEVICE_DELETED)."""
        if self.device is not None:
            gone = stage.unplug(self.device, self.which, deadline)
        else:
            assert self.xml is not None
            stage.domain.detach(self.xml)
            try:
                stage.await_event("source", lambda name, _: name == "DEVICE_DELETED", deadline)
                gone = True
            except DeadlineExceeded:
                gone = False
        if not gone:
            stage.find("event-missing", "the guest did not let go of the device that was unplugged")
