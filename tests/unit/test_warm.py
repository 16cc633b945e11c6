# SPDX-License-Identifier: GPL-2.0-or-later
"""Which guests may go on from a file, and where those are kept."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from harness.events import EventStream
from harness.faults.injection import injection_of
from harness.plan.here import LabMachines
from harness.plan.plan import GuestDisk, RunPlan, Tools
from harness.plan.warming import why_cold
from harness.scenario.load import load_scenario
from harness.scenario.resolve import ResolvedScenario
from harness.toolchain import GuestImage, Kernel, QemuBinary
from harness.toolchain.cache import MIB, Cache
from harness.toolchain.warm_store import WARM_KIND, WarmStore

QEMU = QemuBinary(Path("/built/qemu"), (), "10.0.2", "01", "patched", True, True)
KERNEL = Kernel(Path("/built/vmlinuz"), "6.1", None, None, "03")


def _plan(*changes: str, accelerator: str = "tcg", fault: str | None = None) -> RunPlan:
    scenario = load_scenario("idle", ["seed=7", *changes])
    resolved = ResolvedScenario(scenario, 7, 0, accelerator)  # type: ignore[arg-type]
    return RunPlan(
        resolved, Tools(fault=fault), "asked for", QEMU, QEMU, KERNEL,
        GuestImage(Path("/built/initrd"), "02", MIB), LabMachines(), time.monotonic(), injection_of(fault),
    )  # fmt: skip


def test_a_plain_guest_goes_on_from_a_file() -> None:
    assert why_cold(_plan()) is None
    assert why_cold(_plan("guest.vcpus=2", "guest.nodes=2", "guest.cmdline=init_on_free=1")) is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["guest.devices=[{device: rng}]"], "guest.devices"),
        (["guest.generation_id=kept"], "guest.devices"),
        (["guest.virtio_mem={size: 256MiB, plugged: 128MiB}"], "comes and goes"),
        (["guest.memory_backend={type: ram}"], "in no file of the lab's"),
        (["guest.shared=128MiB"], "one of both hosts"),
        (["guest.qemu_args=[-no-hpet]"], "guest.qemu_args.0"),
        (["guest.globals=[virtio-net-pci.rx_queue_size=512]"], "guest.globals.0"),
        (["guest.machine=q35", "guest.firmware=ovmf"], "ovmf"),
    ],
)
def test_what_is_in_neither_memory_nor_devices_is_booted(changes: list[str], words: str) -> None:
    found = why_cold(_plan(*changes))
    assert found is not None and words in found


def test_other_accelerators_hosts_and_disks_are_booted() -> None:
    assert "KVM" in str(why_cold(_plan(accelerator="kvm")))
    disk = replace(_plan(), disk=GuestDisk(None, private=True, size=MIB))
    assert "disk" in str(why_cold(disk))


def test_a_qemu_of_the_users_boots_its_guest() -> None:
    own = replace(_plan(), tools=Tools(destination_qemu="/opt/qemu-system-x86_64"))
    assert "of the user's" in str(why_cold(own))
    assert "of the user's" in str(why_cold(replace(_plan(), tools=Tools(qemu_source=Path("/src/qemu")))))
    assert why_cold(replace(_plan(), tools=Tools(source_qemu="debian:trixie"))) is None


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("sync-drops-bit", None),
        ("off-by-one-up", None),
        ("report-all", "chosen when the guest boots"),
        ("hpet-stopped", "kind: clock"),
        ("page-tail-lost", "kind: load"),
        ("reset-on-arrival", "kind: outcome"),
        ("destination-not-zero", "kind: lifecycle"),
    ],
)
def test_a_fault_that_a_restored_guest_would_meet_too_early_is_met_by_one_that_boots(
    fault: str, words: str | None
) -> None:
    found = why_cold(_plan(fault=fault))
    assert found is None if words is None else words in str(found)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", EventStream())


def _make(size: int) -> object:
    def make(folder: Path) -> None:
        (folder / "memory-0").write_bytes(os.urandom(size))

    return make


def test_a_guest_that_is_wanted_once_is_not_kept(cache: Cache) -> None:
    store = WarmStore(cache)
    assert not store.wanted_again("a")
    assert store.wanted_again("a")
    assert not store.wanted_again("b")


def test_what_was_wanted_long_ago_is_forgotten(cache: Cache) -> None:
    store = WarmStore(cache)
    assert not store.wanted_again("a")
    os.utime(cache.root / "warm-wanted" / "a", (1, 1))
    assert not store.wanted_again("a")


def test_the_longest_unused_goes_where_there_is_no_room_for_all(cache: Cache) -> None:
    store = WarmStore(cache, limit=5 * MIB // 2)
    for key in ("a", "b"):
        store.get(key, _make(MIB), MIB)  # type: ignore[arg-type]
    old = cache.place(WARM_KIND, "a")
    for path in (old, cache.root / "sums" / WARM_KIND / "a.json"):
        os.utime(path, (1, 1))
    store.get("c", _make(MIB), MIB)  # type: ignore[arg-type]
    assert [cache.has(WARM_KIND, key) for key in "abc"] == [False, True, True]


def test_one_that_is_larger_than_the_limit_serves_who_made_it(cache: Cache) -> None:
    place = WarmStore(cache, limit=MIB).get("a", _make(2 * MIB), MIB)  # type: ignore[arg-type]
    assert (place / "memory-0").stat().st_size == 2 * MIB
