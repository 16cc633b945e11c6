# SPDX-License-Identifier: GPL-2.0-or-later
# ruff: noqa: ARG002, ARG003 - stand-ins take what they are given
"""Kinds of hosts: which serves a scenario, and that a further one takes one class and nothing else."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness import accel
from harness.errors import InputError
from harness.events import EventStream
from harness.hosts.interface import Pair
from harness.plan.here import LabMachines
from harness.plan.kinds import kind_of
from harness.plan.machines import Binaries, Machines
from harness.plan.plan import RunPlan, Tools
from harness.plan.prepare import prepare
from harness.plan.remote import RemoteMachines
from harness.run import supervise
from harness.scenario.load import Scenario, load_scenario
from harness.toolchain import GuestImage, Kernel, QemuBinary
from harness.toolchain.cache import Cache

SIDES = [
    "remote.source.uri=qemu+ssh://root@one/system",
    "remote.destination.uri=qemu+ssh://root@two/system",
]
THERE = QemuBinary(Path("/there/qemu"), (), "10.0", "00", "external", True, True, True, True)
BUILT = QemuBinary(Path("/built/qemu"), (), "10.0", "01", "patched", True, True, True, True)


@pytest.fixture
def rack() -> Iterator[Any]:
    """A kind of hosts that the package does not have: for scenarios whose name says so."""

    class Rack(Machines):
        step = "rack"
        calls: list[str] = []  # noqa: RUF012 - made anew for each test

        @classmethod
        def serves(cls, scenario: Scenario) -> bool:
            return scenario.name == "on-a-rack"

        @classmethod
        @contextlib.contextmanager
        def reach(cls, scenario: Scenario, events: EventStream) -> Iterator[Machines]:
            cls.calls.append("reach")
            yield cls()
            cls.calls.append("leave")

        @classmethod
        def demand_network(cls, user: str) -> None:
            raise InputError(f"{user} has no network on a rack")

        def demand(self, scenario: Scenario) -> None:
            self.calls.append("demand")

        def memory_available(self, scenario: Scenario) -> int:
            self.calls.append("memory")
            return 64 << 30

        def own_qemus(self, toolchain: object) -> tuple[QemuBinary | None, QemuBinary | None]:
            self.calls.append("own")
            return None, THERE

        def probe(self, binaries: Binaries, cache: Cache, events: EventStream) -> accel.KvmProbe:
            assert binaries.qemus == (BUILT, THERE)
            return accel.KvmProbe(True, "racks have KVM")

        def run(self, work: Callable[[], int], keep: Iterable[Path]) -> int:
            self.calls.append("run")
            return work()

        @contextlib.contextmanager
        def hosts(
            self, scenario: Scenario, binaries: Binaries, logs: Path, events: EventStream
        ) -> Iterator[Pair]:
            raise AssertionError("nothing boots in a unit test")

    yield Rack
    Machines.kinds.remove(Rack)


class Toolchain:
    """Everything is built already."""

    cache = SimpleNamespace()

    def __init__(self, **options: object) -> None:
        pass

    def qemu_for(self, arm: str, flavour: str) -> QemuBinary:
        return BUILT

    def guest_firmware(self, name: str) -> None:
        assert name == "seabios"

    def kernel(self, name: str, config: str | None = None) -> Kernel:
        return Kernel(Path("/built/vmlinuz"), "6.1", None, None, "03")

    def image(self, kernel: Kernel, variant: str) -> GuestImage:
        return GuestImage(Path("/built/initrd"), "02", 1 << 20)


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.plan.prepare.Toolchain", Toolchain)


def test_a_scenario_has_the_hosts_that_it_names() -> None:
    assert kind_of(load_scenario("idle")) is LabMachines
    assert kind_of(load_scenario("idle", SIDES)) is RemoteMachines


def test_a_scenario_that_no_kind_serves_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Machines, "kinds", [])
    with pytest.raises(InputError, match="no hosts of the kind"):
        kind_of(load_scenario("idle"))


def test_a_kind_of_ones_own_takes_one_class(rack: Any, built: None) -> None:
    scenario = load_scenario("idle", ["name=on-a-rack", "seed=7"])
    assert kind_of(scenario) is rack
    with kind_of(scenario).reach(scenario, EventStream()) as machines:
        plan = prepare(scenario, Tools(), EventStream(), time.monotonic(), machines)
    assert (plan.source_qemu, plan.destination_qemu) == (BUILT, THERE)
    assert plan.resolved.accelerator == "kvm"
    assert plan.accelerator_reason == "racks have KVM"
    assert plan.machines is machines
    # Before anything is built and after: never in another order.
    assert rack.calls == ["reach", "demand", "own", "memory", "leave"]


def test_a_run_works_where_the_kind_says(
    rack: Any, built: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def carry_out(plan: RunPlan, *_: object, as_json: bool) -> int:
        assert isinstance(plan.machines, rack)
        return 41

    monkeypatch.setattr("harness.run.carry_out.carry_out", carry_out)
    changes = ["name=on-a-rack", "seed=7"]
    assert supervise.run_scenario("idle", changes, Tools(), out=tmp_path / "run", as_json=True) == 41
    assert rack.calls == ["reach", "demand", "own", "memory", "run", "leave"]
    assert (tmp_path / "run" / "scenario.yaml").exists()


def test_what_needs_a_network_is_refused_where_guests_have_none(rack: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a shell has no network on a rack"):
        supervise.open_shell("idle", ["name=on-a-rack"], Tools(), out=tmp_path / "run")
    with pytest.raises(InputError, match="remote: a shell needs the network of a lab"):
        supervise.open_shell("idle", SIDES, Tools(), out=tmp_path / "run")
    assert rack.calls == []


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        ("guest.image=debian", "guest.image: a guest with a disk to write to"),
        ("guest.kvm_dirty=bitmap-without-manual-protect", "guest.kvm_dirty: .* hosts on this machine"),
        ("migration.tls=true", "migration.tls: the certificates of a run are made for its lab"),
    ],
)
def test_what_two_machines_cannot_do_is_said_before_they_are_connected_to(change: str, refused: str) -> None:
    scenario = load_scenario("idle", [*SIDES, change])
    with pytest.raises(InputError, match=refused), RemoteMachines.reach(scenario, EventStream()):
        pass


def test_the_lab_refuses_before_a_build_what_it_cannot_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.plan.here.memory_available", lambda: 1 << 30)
    with pytest.raises(InputError, match=r"guest.memory: 4GiB does not fit"):
        LabMachines().demand(load_scenario("idle", ["guest.memory=4GiB"]))
    with pytest.raises(InputError, match=r"guest.kvm_dirty: ring is one of KVM's ways"):
        LabMachines().demand(
            load_scenario("idle", ["guest.memory=256MiB", "guest.kvm_dirty=ring", "accelerator=tcg"])
        )
