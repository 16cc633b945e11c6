# SPDX-License-Identifier: GPL-2.0-or-later
"""The scenario's devices, used by the guest: before it is migrated, and on its new host."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Final

from harness.errors import DeadlineExceeded, GuestRefused, MachineryError
from harness.events import Deadline, EventStream
from harness.guest.control import GuestControl
from harness.guest.devices import ScenarioDevice
from harness.hosts.interface import Host
from harness.migration.qmp import Monitor
from harness.scenario.devices import DeviceContext, DeviceError
from harness.verdict.finding import Finding

#: For each device of a guest, which may be emulated: more than the guest itself waits for one.
DEVICE_SECONDS: Final = 120.0
#: How long QEMU may take to announce a NIC: it does so five times within a second.
ANNOUNCEMENT_SECONDS: Final = 20.0
#: How long a QMP event of a device's may take to come.
EVENT_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class UsedDevice:
    """A guest that uses a device of its own; see :class:`harness.scenario.devices.DeviceUser`."""

    context: DeviceContext
    control: GuestControl
    notes: MutableMapping[str, str]
    did: list[str] = field(default_factory=list)

    def call(self, verb: str, *words: str | int) -> Mapping[str, object]:
        """Have the guest's agent do something; what it answers."""
        return self.control.call(verb, *words, deadline=Deadline(DEVICE_SECONDS, "a look at a device"))

    def use(self, name: str, action: str, *words: str | int) -> str:
        """Have the guest use the device; the value that it answers."""
        said = self.call("device", name, action, *words)
        if said["did"]:
            self.did.append(str(said["did"]))
        if said["wrong"]:
            raise DeviceError(str(said["wrong"]), silent=bool(said["silent"]))
        return str(said["value"])


@dataclass(frozen=True, slots=True)
class ArrivedDevice(UsedDevice):
    """The same on the guest's new host; see :class:`harness.scenario.devices.ArrivedGuest`.

    ``since``: the number of the last event before this device was looked at.
    """

    monitor: Monitor | None = None
    events: EventStream | None = None
    since: int = -1
    #: Where announcements are heard; None: there are to be none.
    host: Host | None = None

    def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> object:
        """Have the destination's QEMU do something; what it answers."""
        assert self.monitor is not None
        return self.monitor.execute(command, dict(arguments or {}), seconds=DEVICE_SECONDS)

    def wait_for(self, event: str) -> bool:
        """Whether QEMU says so, since the look at this device began."""
        assert self.events is not None
        try:
            self.events.wait(
                lambda one: one.kind == event, Deadline(EVENT_SECONDS, f"QEMU's {event}"), after=self.since
            )
        except DeadlineExceeded:
            return False
        return True

    def is_announced(self) -> bool:
        """Whether QEMU has announced this NIC on its network, or need not."""
        link = self.context.link
        if self.host is None or link is None:
            return True
        patience = Deadline(ANNOUNCEMENT_SECONDS, "the announcement of a NIC")
        return self.host.announced(self.host.nics[link.number], patience)

    def wait_until(self, holds: Callable[[], bool]) -> bool:
        """Ask again and again, as often as the guest answers; whether it came about."""
        deadline = Deadline(EVENT_SECONDS, "what a device is to do")
        while not holds():
            if deadline.expired:
                return False
            self.call("ping")
        return True


@dataclass(frozen=True, slots=True)
class DeviceLook:
    """How a device was on the guest's new host."""

    device: str
    did: tuple[str, ...]
    findings: tuple[Finding, ...]
    #: Of the scenario's devices; see :class:`harness.guest.devices.ScenarioDevice`.
    number: int = 0

    @property
    def answers(self) -> bool | None:
        """Whether it did what it was asked for; None: it was asked for nothing."""
        return not self.findings if self.did or self.findings else None

    @property
    def wrong(self) -> tuple[str, ...]:
        """What is wrong with it, in words."""
        return tuple(finding.text for finding in self.findings)


def board_devices(
    devices: Sequence[ScenarioDevice],
    control: GuestControl,
    events: EventStream,
    notes: MutableMapping[int, dict[str, str]],
) -> None:
    """Have the guest use each device before it is migrated for the first time.

    ``notes``: what each has to remember, by its number.  Raises
    :class:`harness.errors.MachineryError` for one that does not work.
    """
    if not devices:
        return
    with events.step("board devices", devices=[added.device.device for added in devices]):
        for added in devices:
            try:
                added.device.boarding(UsedDevice(added.context, control, notes.setdefault(added.number, {})))
            except DeviceError as trouble:
                raise MachineryError(
                    f"guest.devices: {added.device.title(added.context)}: before it was migrated: {trouble}"
                ) from trouble


def look_at_devices(
    devices: Sequence[ScenarioDevice],
    control: GuestControl,
    monitor: Monitor,
    events: EventStream,
    notes: MutableMapping[int, dict[str, str]],
    host: Host | None = None,
) -> list[DeviceLook]:
    """Have the guest use each device on its new host; ``host``: where its QEMU announces its NICs.

    Raises :class:`harness.errors.GuestLost` if the guest does not answer at all.
    """
    if not devices:
        return []
    looks: list[DeviceLook] = []
    with events.step("devices") as step:
        for added in devices:
            since = events.history()[-1].seq
            own = notes.setdefault(added.number, {})
            guest = ArrivedDevice(
                added.context, control, own, monitor=monitor, events=events, since=since, host=host
            )
            name = added.device.title(added.context)
            findings: list[Finding] = []
            with _noted(name, findings):
                texts = added.device.arrived(guest)
                findings.extend(Finding("device-wrong", "guest", f"{name}: {text}") for text in texts)
            looks.append(DeviceLook(added.device.device, tuple(guest.did), tuple(findings), added.number))
        found = sum(len(look.findings) for look in looks)
        step.note(devices=[look.device for look in looks], findings=found)
    return looks


def with_ends(looks: Sequence[DeviceLook], ended: Mapping[int, str]) -> list[DeviceLook]:
    """The same looks, with the programs that should serve their devices and have ended (by their number)."""
    found = []
    for look in looks:
        words = ended.get(look.number)
        if words is not None:
            end = Finding("device-wrong", "guest", f"{look.device}: {words}")
            look = replace(look, findings=(end, *look.findings))
        found.append(look)
    return found


@contextmanager
def _noted(name: str, findings: list[Finding]) -> Iterator[None]:
    try:
        yield
    except DeviceError as trouble:
        rule = "device-silent" if trouble.silent else "device-wrong"
        findings.append(Finding(rule, "guest", f"{name}: {trouble}"))
    except GuestRefused as refusal:
        # It could before it was migrated: else the run had ended there.
        findings.append(Finding("device-wrong", "guest", f"{name}: {refusal.message}"))
