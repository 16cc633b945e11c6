# SPDX-License-Identifier: GPL-2.0-or-later
"""A QEMU that ends before its guest is migrated: which end is a verdict, and in which words."""

from __future__ import annotations

import signal
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from harness.events import EventStream
from harness.hosts.interface import Pair
from harness.plan.plan import RunPlan
from harness.run.early_crash import early_crash
from harness.verdict.finding import Finding

LOG = """\
2026-11-30 10:00:00.000+0000: starting up libvirt version: 9.0.0
LC_ALL=C /opt/qemu-system-x86_64 -name guest=guest
qemu-system-x86_64: warning: a host does not support something
qemu-system-x86_64: ../system/physmem.c:3468: address_space_unmap: Assertion `bounce->magic == M' failed.
"""


def found(
    folder: Path, *ends: tuple[str, int], log: str = LOG, own: set[int] | None = None
) -> Finding | None:
    (folder / "log").write_text(log)
    qemu = SimpleNamespace(emulator=None, path=Path("/opt/qemu-system-x86_64"))
    plan = SimpleNamespace(source_qemu=qemu, destination_qemu=qemu)
    pair = SimpleNamespace(source=SimpleNamespace(qemu_log=lambda _: folder / "log"), guest_name="guest")
    events = EventStream()
    for name, code in ends:
        events.emit("process-ended", pid=7, returncode=code, core=False, name=name, at=1.0)
    return early_crash(cast("RunPlan", plan), cast("Pair", pair), events, own)


def test_a_crash_is_told_with_the_assertion(tmp_path: Path) -> None:
    finding = found(tmp_path, ("dnsmasq", 0), ("qemu-system-x86", -signal.SIGABRT))
    assert finding is not None
    assert finding.rule == "qemu-crashed"
    assert finding.text.startswith("qemu-system-x86_64: ../system/physmem.c:3468: ")
    assert finding.text.endswith("a QEMU ended by SIGABRT before the guest was migrated")


def test_a_crash_without_a_word(tmp_path: Path) -> None:
    finding = found(tmp_path, ("qemu-system-x86", -signal.SIGSEGV), log="")
    assert finding is not None
    assert finding.text == "a QEMU ended by SIGSEGV before the guest was migrated"


def test_what_is_no_crash_of_qemu(tmp_path: Path) -> None:
    ends = ("qemu-system-x86", -signal.SIGKILL), ("qemu-system-x86", 1), ("swtpm", -signal.SIGSEGV)
    assert found(tmp_path, *ends) is None


def test_a_crash_of_another_guests_qemu_is_not_this_guests(tmp_path: Path) -> None:
    crash = ("qemu-system-x86", -signal.SIGABRT)
    assert found(tmp_path, crash, own={8}) is None
    assert found(tmp_path, crash, own={7, 8}) is not None


def test_a_wrapper_has_another_name_than_what_it_becomes(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("")
    qemu = SimpleNamespace(emulator=None, path=Path("/opt/my-wrapper"))
    plan = SimpleNamespace(source_qemu=qemu, destination_qemu=qemu)
    pair = SimpleNamespace(source=SimpleNamespace(qemu_log=lambda _: tmp_path / "log"), guest_name="guest")
    for name, attached in (("qemu-system-x86", ()), ("anything", (7,))):
        events = EventStream()
        for pid in attached:
            events.emit("qemu-attached", source="source.qmp", pid=pid)
        ended = {"pid": 7, "returncode": -signal.SIGSEGV, "core": False, "name": name, "at": 1.0}
        events.emit("process-ended", **ended)
        assert early_crash(cast("RunPlan", plan), cast("Pair", pair), events) is not None
