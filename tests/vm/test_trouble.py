# SPDX-License-Identifier: GPL-2.0-or-later
"""What goes wrong is told apart, told clearly, and leaves nothing behind but its folder."""

from __future__ import annotations

import signal

import psutil
import pytest

from harness.report.folder import MARKER
from tests.vm.conftest import Ended, Start, assert_all_gone
from tests.vm.processes import kill_all, name_of, words_of

# The steps that a run is interrupted in, from first to last.
STEPS = ("boot", "load", "migrate", "compare", "exercise")


def assert_no_verdict(ended: Ended) -> None:
    """An error that is no verdict, in a folder that says so."""
    assert ended.stdout == "", str(ended)
    assert not (ended.out / "result.json").exists()
    assert (ended.out / MARKER).exists()


@pytest.mark.parametrize("step", STEPS)
def test_ctrl_c(start: Start, step: str) -> None:
    running = start("run", "churn", "--json")
    running.wait_for_step(step)
    family = running.family()
    running.process.send_signal(signal.SIGINT)
    ended = running.end()
    assert ended.status == 130, str(ended)
    assert_no_verdict(ended)
    assert "interrupted during step" in (ended.out / MARKER).read_text()
    assert "Traceback" not in ended.stderr
    assert_all_gone(family)


@pytest.mark.parametrize("step", STEPS)
def test_sigkill_leaves_nothing(start: Start, step: str) -> None:
    running = start("run", "churn", "--json")
    running.wait_for_step(step)
    family = running.family()
    # At least the porter, the lab's init and the worker.
    assert len(family) >= 3
    running.process.kill()
    ended = running.end()
    assert ended.status == -signal.SIGKILL
    assert_all_gone(family)
    assert_no_verdict(ended)


def test_a_guest_that_never_says_ready(start: Start) -> None:
    # Its first lines come early and its last ones never: each takes a fifth of a second.
    slow = ["--set", "guest.cmdline=earlyprintk=ttyS0 boot_delay=200", "--set", "guest.boot_timeout_s=8"]
    ended = start("run", "idle", "--json", *slow).end()
    assert ended.status == 3, str(ended)
    assert "ready word: not within 8 s" in ended.stderr
    assert "last words:" in ended.stderr
    assert "command line: " in ended.stderr
    assert_no_verdict(ended)


def test_a_guest_that_panics_is_lost_at_once(start: Start) -> None:
    ended = start("run", "idle", "--json", "--set", "guest.cmdline=mem=64M").end()
    assert ended.status == 3, str(ended)
    assert "the guest's kernel panicked" in ended.stderr
    assert "  | console: " in ended.stderr
    assert_no_verdict(ended)


@pytest.mark.parametrize("step", ["load", "migrate", "exercise"])
def test_a_qemu_that_dies(start: Start, step: str) -> None:
    running = start("run", "churn", "--json", "--set", "migration.bandwidth=64MiB/s")
    running.wait_for_step(step)
    side = "destination" if step == "exercise" else "source"
    running.qemu(side).kill()
    ended = running.end()
    assert ended.status == 3, str(ended)
    assert "command line: " in ended.stderr
    assert "Traceback" not in ended.stderr
    assert_no_verdict(ended)


def test_a_daemon_that_dies(start: Start) -> None:
    running = start("run", "churn", "--json")
    running.wait_for_step("migrate")
    daemons = [p for p in running.family() if name_of(p) in ("libvirtd", "virtqemud")]
    kill_all([p for p in daemons if any("/destination/" in word for word in words_of(p))])
    ended = running.end()
    assert ended.status == 3, str(ended)
    assert "the destination's libvirt daemon is gone" in ended.stderr
    assert_no_verdict(ended)


def test_a_migration_that_takes_too_long_is_cancelled(start: Start) -> None:
    settings = ["--set", "migration.timeout_s=15", "--set", "migration.bandwidth=1MiB/s"]
    ended = start("run", "freed", "--arm", "off", "--json", *settings).end()
    assert ended.status == 3, str(ended)
    assert "the migration was cancelled" in ended.stderr
    assert_no_verdict(ended)


def test_nothing_of_a_run_is_left_afterwards(start: Start) -> None:
    running = start("run", "idle", "--arm", "off", "--json")
    running.wait_for_step("migrate")
    family = running.family()
    assert any(name_of(process).startswith("qemu-system") for process in family)
    assert running.end().status == 0
    assert_all_gone(family)
    assert not psutil.Process().children()
