# SPDX-License-Identifier: GPL-2.0-or-later
"""The doctor: every finding says what to do, and what is missing decides."""

from __future__ import annotations

import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness import accel
from harness.doctor import Diagnosis, Level, checks, examine, possible, remote, speed
from harness.doctor.show import diagnosis_document
from harness.errors import MachineryError
from harness.events import EventStream
from harness.hosts import remote as hosts_remote
from harness.nested import parts
from harness.toolchain.built import built_machine
from harness.toolchain.cache import Cache
from harness.toolchain.system_packages import how_to_install


def cache_of(folder: Path, *, built: bool) -> Cache:
    cache = Cache(folder, EventStream())
    if built:
        for kind in ("qemu", "kernel", "module", "image", "firmware"):
            (folder / "store" / kind / "key").mkdir(parents=True)
        (folder / "store/kernel/key/boot").mkdir()
        (folder / "store/kernel/key/boot/vmlinuz-6.1").touch()
        (folder / "store/qemu/key/facts.json").write_text('{"sha256": "00"}')
        (folder / "store/qemu/key/made-of.json").write_text('{"source": "10.0.13", "patches": ["a", "b"]}')
        # What another run is at is not there yet.
        (folder / "store/qemu/.key.unfinished").mkdir()
    return cache


def look(cache: Cache) -> dict[str, Diagnosis]:
    return {finding.name: finding for finding in examine(EventStream(), cache)}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_namespaces", lambda: Diagnosis("namespaces", Level.OK, ""))


def test_nothing_built_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accel, "device_problem", lambda: None)
    seen = look(cache_of(tmp_path, built=False))
    assert seen["qemu"].level is Level.NOTE
    assert seen["qemu"].advice == "freepage build"
    # There is nothing to try KVM with, and it is not claimed to work.
    assert seen["kvm"].level is Level.NOTE
    assert "not known" in seen["kvm"].text


@pytest.mark.parametrize("usable", [True, False])
def test_kvm_is_usable_if_a_guest_ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, usable: bool) -> None:
    asked: list[accel.ProbeMachine] = []

    def probe(machine: accel.ProbeMachine, *_: object) -> accel.KvmProbe:
        asked.append(machine)
        return accel.KvmProbe(usable, "because")

    monkeypatch.setattr(accel, "device_problem", lambda: None)
    monkeypatch.setattr(accel, "probe_kvm", probe)
    cache = cache_of(tmp_path, built=True)
    # Nothing is booted unless it is asked for.
    assert "not known yet" in look(cache)["kvm"].text
    assert asked == []
    monkeypatch.setattr(speed, "ways", lambda *_a, **_k: ())
    seen = {finding.name: finding for finding in examine(EventStream(), cache, measure=True)}
    assert seen["kvm"].level is (Level.OK if usable else Level.NOTE)
    assert "because" in seen["kvm"].text
    assert asked[0].vmlinuz.name == "vmlinuz-6.1"
    assert seen["qemu"].text == "1 in the cache, the newest 10.0.13 with 2 patches"


def test_a_missing_device_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accel, "device_problem", lambda: "there is no /dev/kvm")
    seen = look(cache_of(tmp_path, built=True))
    assert seen["kvm"].text.startswith("there is no /dev/kvm; ")


def test_little_memory_is_a_note_with_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.hosts.this_machine.memory_available", lambda: 1 << 30)
    finding = look(cache_of(tmp_path, built=False))["memory"]
    assert (finding.level, finding.text) == (Level.NOTE, "1GiB available")
    assert finding.advice


def test_what_is_missing_decides() -> None:
    ok, note, missing = (Diagnosis(level.value, level, "text") for level in Level)
    assert possible([ok, note])
    assert not possible([ok, missing])
    document = diagnosis_document([ok, missing])
    assert document["possible"] is False
    assert document["findings"] == [
        {"name": "ok", "level": "ok", "text": "text", "advice": None, "seconds": None},
        {"name": "missing", "level": "missing", "text": "text", "advice": None, "seconds": None},
    ]


def test_each_way_is_measured_once_and_only_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def nested(_: EventStream) -> accel.KvmProbe:
        asked.append("nested")
        return accel.KvmProbe(True, "kvm-in-tcg: a machine boots in 9.0 s", 12.5)

    def emulated(machine: accel.ProbeMachine, seconds: float, accelerator: str) -> accel.KvmProbe:
        asked.append(accelerator)
        return accel.KvmProbe(True, "a guest kernel under TCG printed its first line", 1.5)

    monkeypatch.setattr(accel, "device_problem", lambda: "there is no /dev/kvm")
    monkeypatch.setattr(accel, "boots", emulated)
    monkeypatch.setattr(speed, "_try", nested)
    monkeypatch.setattr(parts, "machine_parts", lambda _: None)
    cache = cache_of(tmp_path, built=True)
    assert {look(cache)[name].seconds for name in ("tcg", "nested")} == {None}
    assert not asked
    for _ in range(2):
        seen = {finding.name: finding for finding in examine(EventStream(), cache, measure=True)}
        assert (seen["tcg"].seconds, seen["nested"].seconds) == (1.5, 12.5)
        assert seen["nested"].text == "kvm-in-tcg: a machine boots in 9.0 s"
    assert asked == ["tcg", "nested"]


def test_a_nested_machine_that_cannot_be_made_is_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking(_: object) -> None:
        raise MachineryError("there is no QEMU with 9p", hint="install one")

    monkeypatch.setattr(accel, "device_problem", lambda: "there is no /dev/kvm")
    monkeypatch.setattr(accel, "boots", lambda *_: accel.KvmProbe(False, "because"))
    monkeypatch.setattr(parts, "machine_parts", lacking)
    seen = {
        finding.name: finding
        for finding in examine(EventStream(), cache_of(tmp_path, built=True), measure=True)
    }
    assert (seen["nested"].level, seen["nested"].advice) == (Level.NOTE, "install one")


def test_remote_needs_ssh_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "search_path", lambda: str(tmp_path))
    finding = remote.ssh_client(measure=False)
    assert (finding.level, finding.advice) == (Level.NOTE, how_to_install("openssh-client"))
    client = tmp_path / "ssh"
    client.write_text("#!/bin/sh\necho OpenSSH_9.9, OpenSSL >&2\n")
    client.chmod(0o755)
    finding = remote.ssh_client(measure=True)
    assert finding.level is Level.OK
    assert finding.text.startswith("OpenSSH_9.9: ")
    assert re.search(r"looks at 1 GiB of memory in \d+\.\d s", finding.text)


def test_a_machine_that_is_named_and_will_not_do_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect(*_: object) -> None:
        raise MachineryError("root@a cannot be reached by ssh", hint="is it switched on?")

    monkeypatch.setattr(hosts_remote, "connect_host", connect)
    uris = {"source": "qemu+ssh://root@a/system"}
    seen = {f.name: f for f in examine(EventStream(), cache_of(tmp_path, built=False), uris=uris)}
    assert (seen["source"].level, seen["source"].advice) == (Level.MISSING, "is it switched on?")
    assert "destination" not in seen


def test_a_kernel_of_another_shape_does_not_hide_the_others(tmp_path: Path) -> None:
    cache = cache_of(tmp_path, built=True)
    (tmp_path / "store/kernel/newer").mkdir()
    os.utime(tmp_path / "store/kernel/newer", (2e9, 2e9))
    machine = built_machine(cache)
    assert machine is not None
    assert machine.vmlinuz.name == "vmlinuz-6.1"


def test_what_an_ordinary_run_does_not_need_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ci/setup installs no clang: a machine that it has made ready is ready."""

    def find(name: str, **_: object) -> str | None:
        return None if name in lacking else f"/usr/bin/{name}"

    monkeypatch.setattr(checks.shutil, "which", find)
    lacking = {"clang", "mmdebstrap"}
    found = look(cache_of(tmp_path, built=False))["build tools"]
    assert found.level is Level.NOTE
    assert found.text == "missing: clang (for QEMU's fuzzer), mmdebstrap (for a Debian guest)"
    assert "ci/setup" not in (found.advice or "")
    lacking = {"clang", "gcc"}
    assert look(cache_of(tmp_path, built=False))["build tools"].level is Level.MISSING
    assert look(cache_of(tmp_path / "b", built=True))["build tools"].level is Level.NOTE


def test_a_damaged_part_is_said(tmp_path: Path) -> None:
    cache = cache_of(tmp_path, built=True)
    cache.get("image", "other", lambda folder: (folder / "initrd.cpio").touch(), what="an image")
    (tmp_path / "store/image/other/initrd.cpio").write_text("other")
    (tmp_path / "store/qemu/key/facts.json").unlink()
    seen = look(cache)
    assert seen["image"].level is Level.NOTE
    assert "1 of 2 in the cache are damaged: other: initrd.cpio has 5 bytes" in seen["image"].text
    assert "key: facts.json is gone" in seen["qemu"].text


@pytest.mark.parametrize(
    ("mode", "group", "advice"),
    [
        (0o660, 1, "sudo usermod --append --groups "),
        (0o600, 1, "sudo setfacl --modify user:$USER:rw "),
        (0o660, 0, "sudo setfacl --modify user:$USER:rw "),
        (0o660, 4_000_000, "sudo setfacl --modify user:$USER:rw "),
    ],
    ids=["group", "closed", "root's", "no name"],
)
def test_how_a_user_may_open_a_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, group: int, advice: str
) -> None:
    class Device(type(tmp_path)):  # type: ignore[misc]
        def stat(self, **_: object) -> SimpleNamespace:
            return SimpleNamespace(st_mode=mode, st_gid=group)

    assert checks._how_to_open(Device(tmp_path)).startswith(advice)
