# SPDX-License-Identifier: GPL-2.0-or-later
"""Following a migration: what each thing in the inbox leads to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import cast

import libvirt
import pytest

from harness.errors import DeadlineExceeded, GuestLost
from harness.events import Deadline
from harness.migration.confirm import ConfirmGate
from harness.migration.follow import Follower
from harness.migration.inbox import Completion, Inbox, JobEnd
from harness.migration.job import Job, MigrationJob
from harness.migration.modes import Modes
from harness.migration.qmp import CLOSED, QemuGone, QmpEvent
from harness.migration.request import MigrationRequest
from harness.migration.statistics import MigrationError, StuckError
from harness.scenario.load import Migration

MOVED = cast(libvirt.virDomain, object())


class FakeDomain:
    """Remembers that it was asked to give up; then the job ends."""

    def __init__(self, inbox: Inbox) -> None:
        self.inbox = inbox
        self.aborted = False

    def abortJob(self) -> None:  # noqa: N802 - libvirt's name
        self.aborted = True
        self.inbox.put(JobEnd(None, libvirt.libvirtError("operation aborted")))


class FakeGate:
    """Notes that it was released, among what else has happened."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene

    def release(self) -> None:
        if "released" not in self.scene.calls:
            self.scene.calls.append("released")


class FakeDirectJob:
    """Ends when it is told that a QEMU is gone."""

    def __init__(self, scene: Scene, *, refused: bool = False) -> None:
        self.scene = scene
        self.refused = refused

    def event(self, event: QmpEvent) -> None:
        del event

    def release(self) -> None:
        self.scene.calls.append("released")

    def gone(self) -> None:
        self.scene.calls.append("gone")
        self.scene.inbox.put(JobEnd(None, libvirt.libvirtError("a QEMU has ended")))

    def cancel(self, inbox: Inbox) -> None:
        del inbox
        self.scene.calls.append("cancelled")


class FakeHolds:
    def __init__(self, scene: Scene) -> None:
        self.scene = scene

    def handle(self, data: Mapping[str, object]) -> None:
        self.scene.calls.append(f"hold {data['id']}")
        self.scene.at_hold()


class FakeScript:
    def happened(
        self, moment: str, *, number: int | None = None, then: Callable[[], None] | None = None
    ) -> None:
        del moment, number, then

    def answered(self, item: Completion) -> None:
        del item


class FakeFollower(Follower):
    """Writes down what it is told."""

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene.inbox, FakeHolds(scene), FakeScript())
        self.scene = scene

    def begun(self) -> None:
        self.scene.calls.append("begun")

    def stopped(self) -> None:
        self.scene.calls.append("stopped")
        self.scene.at_stop()

    def completed(self) -> None:
        self.scene.calls.append("completed")

    def stuck(self) -> str | None:
        return self.scene.standing

    def lost(self, side: str) -> GuestLost:
        return GuestLost(f"the {side} is gone")


class Scene:
    def __init__(self) -> None:
        self.inbox = Inbox()
        self.gate = FakeGate(self)
        self.domain = FakeDomain(self.inbox)
        self.calls: list[str] = []
        self.job: Job = MigrationJob(cast(libvirt.virDomain, self.domain), cast(ConfirmGate, self.gate))
        self.at_hold: Callable[[], None] = lambda: None
        self.at_stop: Callable[[], None] = lambda: None
        self.standing: str | None = None

    def say(self, name: str, side: str = "source", **data: object) -> None:
        self.inbox.put(QmpEvent(side, name, data))

    def direct(self) -> None:
        """Nobody but ourselves says that it is over."""
        self.job = FakeDirectJob(self)

    def follow(self, seconds: float = 5) -> libvirt.virDomain:
        return FakeFollower(self).follow(self.job, Deadline(seconds, "the migration"))


def test_a_migration_that_stands_still_is_given_up() -> None:
    scene = Scene()
    scene.standing = "nothing moves"
    with pytest.raises(StuckError, match="nothing moves"):
        scene.follow(seconds=30)
    assert scene.domain.aborted


def test_a_migration_with_a_hold() -> None:
    scene = Scene()
    scene.say("MIGRATION", status="setup")
    scene.say("MIGRATION", status="active")
    scene.say("STOP")
    scene.say("FREE_PAGE_INFO_HOLD", id=1, point="request")
    scene.say("RESUME")
    scene.say("MIGRATION", status="pre-switchover")
    scene.say("MIGRATION", status="device")
    scene.say("MIGRATION", side="destination", status="completed")
    scene.say("MIGRATION", status="completed")
    scene.say(CLOSED)
    scene.inbox.put(JobEnd(MOVED, None))
    assert scene.follow() is MOVED
    assert scene.calls == ["begun", "hold 1", "stopped", "completed", "released"]


def test_a_destination_that_dies_is_a_lost_guest() -> None:
    scene = Scene()
    scene.say("MIGRATION", status="active")
    scene.say(CLOSED, side="destination")
    scene.inbox.put(JobEnd(None, libvirt.libvirtError("stream closed")))
    with pytest.raises(GuestLost, match="destination"):
        scene.follow()


def test_a_source_that_dies_before_completion_is_a_lost_guest() -> None:
    scene = Scene()
    scene.say(CLOSED)
    scene.inbox.put(JobEnd(None, libvirt.libvirtError("gone")))
    with pytest.raises(GuestLost, match="source"):
        scene.follow()


def test_a_failed_migration_carries_qemus_reason() -> None:
    scene = Scene()
    scene.say("MIGRATION", status="failed", **{"error-desc": "no route"})
    scene.inbox.put(JobEnd(None, libvirt.libvirtError("operation failed")))
    with pytest.raises(MigrationError, match="no route"):
        scene.follow()


def test_a_migration_that_takes_too_long_is_cancelled() -> None:
    scene = Scene()
    scene.say("MIGRATION", status="active")
    with pytest.raises(DeadlineExceeded, match="cancelled"):
        scene.follow(0.05)
    assert scene.domain.aborted


def test_ctrl_c_cancels_the_migration() -> None:
    scene = Scene()

    def interrupt() -> None:
        raise KeyboardInterrupt

    scene.at_stop = interrupt
    scene.say("MIGRATION", status="device")
    with pytest.raises(KeyboardInterrupt):
        scene.follow()
    assert scene.domain.aborted


@pytest.mark.parametrize(("bandwidth", "mib"), [(1, 1), (1 << 20, 1), ((1 << 20) + 1, 2), (32 << 20, 32)])
def test_bandwidth_is_rounded_up_to_what_libvirt_counts_in(bandwidth: int, mib: int) -> None:
    request = MigrationRequest("tcp://192.0.2.1", "<domain/>", bandwidth)
    assert request.parameters()[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH] == mib


def test_multifd_is_libvirts_parallel_migration() -> None:
    plain = MigrationRequest("tcp://192.0.2.1", "<domain/>")
    parallel = MigrationRequest("tcp://192.0.2.1", "<domain/>", modes=Modes.of(Migration(multifd=4)))
    assert not plain.flags() & libvirt.VIR_MIGRATE_PARALLEL
    assert parallel.flags() & libvirt.VIR_MIGRATE_PARALLEL
    assert parallel.parameters()[libvirt.VIR_MIGRATE_PARAM_PARALLEL_CONNECTIONS] == 4
    assert plain.flags() & libvirt.VIR_MIGRATE_PAUSED


def test_libvirt_copies_the_disks_that_are_named_and_no_others() -> None:
    """What both hosts see would be copied onto itself."""
    plain = MigrationRequest("tcp://127.0.0.1:7", "<domain/>", own_disk=True)
    copies = libvirt.VIR_MIGRATE_NON_SHARED_DISK | libvirt.VIR_MIGRATE_NON_SHARED_INC
    assert not plain.flags() & copies
    whole = MigrationRequest("tcp://127.0.0.1:7", "<domain/>", copied=("vdc",), copied_to="192.0.2.1")
    assert whole.flags() & copies == libvirt.VIR_MIGRATE_NON_SHARED_DISK
    assert whole.parameters()[libvirt.VIR_MIGRATE_PARAM_MIGRATE_DISKS] == ["vdc"]
    assert whole.parameters()[libvirt.VIR_MIGRATE_PARAM_DISKS_URI] == "tcp://192.0.2.1"
    assert replace(whole, only_top=True).flags() & copies == libvirt.VIR_MIGRATE_NON_SHARED_INC


@pytest.mark.parametrize("side", ["source", "destination"])
def test_past_libvirt_a_qemu_that_is_gone_ends_it_at_once(side: str) -> None:
    scene = Scene()
    scene.direct()
    scene.say(CLOSED, side)
    with pytest.raises(GuestLost, match=f"the {side} is gone"):
        scene.follow()
    assert scene.calls == ["gone"]


def test_what_a_qemu_refuses_is_told_in_its_words() -> None:
    """The destination, which waited for it, is ended then, and is heard of first."""
    scene = Scene()
    scene.job = FakeDirectJob(scene, refused=True)
    scene.say(CLOSED, "destination")
    scene.inbox.put(JobEnd(None, libvirt.libvirtError("State blocked by a device")))
    with pytest.raises(MigrationError, match="State blocked by a device"):
        scene.follow()
    assert scene.calls == []


def test_a_qemu_that_ends_while_it_is_asked_something_is_gone_all_the_same() -> None:
    """Which of the two is noticed first is chance; what the user is told must not be."""
    scene = Scene()

    def ask() -> None:
        raise QemuGone("source", "cont")

    scene.at_hold = ask
    scene.say("FREE_PAGE_INFO_HOLD", id=5, point="answer")
    with pytest.raises(GuestLost, match="the source is gone"):
        scene.follow()
