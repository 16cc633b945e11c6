# SPDX-License-Identifier: GPL-2.0-or-later
"""The probe of KVM, against QEMUs that are shell scripts."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from harness import accel
from harness.events import EventStream


class Memory:
    def __init__(self) -> None:
        self.facts: dict[str, object] = {}

    def recall(self, name: str) -> object | None:
        return self.facts.get(name)

    def remember(self, name: str, value: object) -> None:
        self.facts[name] = value


def machine(folder: Path, script: str, sha256: str = "0" * 64) -> accel.ProbeMachine:
    qemu = folder / "qemu"
    qemu.write_text(f"#!/bin/sh\n{script}\n")
    qemu.chmod(0o755)
    return accel.ProbeMachine(qemu, sha256, (folder / "firmware",), folder / "vmlinuz")


def test_a_guest_that_speaks_means_usable(tmp_path: Path) -> None:
    # It goes on for ever: the first word is enough.
    probe = accel.boots(
        machine(tmp_path, "echo SeaBIOS; echo '[    0.0] Linux version 6.1'; exec sleep 1000")
    )
    assert probe.usable


def test_a_guest_that_says_nothing_is_given_up(tmp_path: Path) -> None:
    began = time.monotonic()
    probe = accel.boots(machine(tmp_path, "exec sleep 1000"), seconds=0.3)
    assert not probe.usable
    assert "printed no line within 0.3 s" in probe.reason
    assert time.monotonic() - began < 5


def test_a_qemu_that_refuses_says_why(tmp_path: Path) -> None:
    probe = accel.boots(machine(tmp_path, "echo 'failed to initialize kvm' >&2; exit 1"))
    assert not probe.usable
    assert probe.reason.endswith("failed to initialize kvm")


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        # What a guest's first stage prints before QEMU gives up says nothing of KVM.
        (
            b"Probing EDD (edd=off to disable)... ok\n"
            b"qemu-system-x86_64: ../source/target/i386/kvm/kvm.c:3877: kvm_buf_set_msrs: "
            b"Assertion `ret == cpu->kvm_msr_buf->nmsrs' failed.\n",
            "QEMU starts no guest under KVM: an assertion in its kvm_buf_set_msrs() fails",
        ),
        (
            b"qemu-system-x86_64: failed to initialize kvm: Operation not permitted\r\n",
            "QEMU starts no guest under KVM: failed to initialize kvm: Operation not permitted",
        ),
        (
            b"SeaBIOS\nProbing EDD (edd=off to disable)... ok\n",
            "a guest kernel under KVM printed no line within 5 s",
        ),
    ],
)
def test_the_reason_is_of_qemu_and_short(said: bytes, reason: str) -> None:
    assert accel.judge_words(said, 5) == accel.KvmProbe(False, reason)


def test_what_is_started(tmp_path: Path) -> None:
    command = machine(tmp_path, "").command()
    assert command[command.index("-accel") + 1] == "kvm"
    assert command[command.index("-L") + 1] == str(tmp_path / "firmware")
    assert command[command.index("-kernel") + 1] == str(tmp_path / "vmlinuz")


def test_the_answer_is_kept_for_this_qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accel, "device_problem", lambda: None)
    memory, events = Memory(), EventStream()
    speaks = machine(tmp_path, "echo Linux version 6.1")
    assert accel.probe_kvm(speaks, memory, events).usable
    # The same binary by its hash: not asked again, whatever it would say now.
    assert accel.probe_kvm(machine(tmp_path, "exit 1"), memory, events).usable
    assert not accel.probe_kvm(machine(tmp_path, "exit 1", "1" * 64), memory, events).usable


def test_without_a_device_nothing_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accel, "device_problem", lambda: "there is no /dev/kvm")
    probe = accel.probe_kvm(machine(tmp_path, f"touch {tmp_path}/started"), Memory(), EventStream())
    assert probe == accel.KvmProbe(False, "there is no /dev/kvm")
    assert not (tmp_path / "started").exists()


def test_a_device_that_is_none(tmp_path: Path) -> None:
    assert accel.device_problem(tmp_path / "kvm") == f"there is no {tmp_path / 'kvm'}"
    (tmp_path / "kvm").write_text("")
    problem = accel.device_problem(tmp_path / "kvm")
    assert problem is not None
    assert "does not answer" in problem
