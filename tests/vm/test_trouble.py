# SPDX-License-Identifier: GPL-2.0-or-later
"""What goes wrong is told apart, told clearly, and leaves nothing behind but its folder."""

from __future__ import annotations

import signal

import psutil
import pytest

from harness.report.folder import INCOMPLETE_MARKER
from harness.report.result import Result
from harness.testing import Ending, Freepage
from tests.vm.conftest import assert_all_gone
from tests.vm.support.processes import kill_all, name_of, words_of

# The steps that a run is interrupted in, from first to last.
STEPS = ("boot", "load", "migrate", "compare", "exercise")


def assert_no_verdict(ending: Ending) -> None:
    """An error that is no verdict, in a folder that says so."""
    assert ending.stdout == "", str(ending)
    assert not (ending.folder / "result.json").exists()
    assert (ending.folder / INCOMPLETE_MARKER).exists()


@pytest.mark.parametrize("step", STEPS)
def test_ctrl_c(freepage: Freepage, step: str) -> None:
    running = freepage.start("churn")
    running.wait_for_step(step)
    processes = running.processes()
    running.process.send_signal(signal.SIGINT)
    ending = running.end()
    assert ending.exit_code == 130, str(ending)
    assert_no_verdict(ending)
    assert "interrupted during step" in (ending.folder / INCOMPLETE_MARKER).read_text()
    assert "Traceback" not in ending.stderr
    assert_all_gone(processes)


@pytest.mark.parametrize("step", STEPS)
def test_sigkill_leaves_nothing(freepage: Freepage, step: str) -> None:
    running = freepage.start("churn")
    running.wait_for_step(step)
    processes = running.processes()
    # At least the porter, the lab's init and the worker.
    assert len(processes) >= 3
    running.process.kill()
    ending = running.end()
    assert ending.exit_code == -signal.SIGKILL
    assert_all_gone(processes)
    assert_no_verdict(ending)


def test_a_guest_that_never_says_ready(freepage: Freepage) -> None:
    # Its first lines come early and its last ones never: each takes a fifth of a second.
    slow = {"guest.cmdline": "earlyprintk=ttyS0 boot_delay=200", "guest.boot_timeout_s": 8}
    ending = freepage.start("idle", set=slow).end()
    assert ending.exit_code == 3, str(ending)
    assert "ready word: not within 8 s" in ending.stderr
    assert "last words:" in ending.stderr
    assert "command line: " in ending.stderr
    assert_no_verdict(ending)


def test_a_guest_that_panics_is_lost_at_once(freepage: Freepage) -> None:
    ending = freepage.start("idle", set={"guest.cmdline": "mem=40M"}).end()
    assert ending.exit_code == 3, str(ending)
    assert "the guest's kernel panicked" in ending.stderr
    assert "  | console: " in ending.stderr
    assert_no_verdict(ending)


@pytest.mark.parametrize("step", ["load", "migrate", "exercise"])
def test_a_qemu_that_dies(freepage: Freepage, step: str) -> None:
    running = freepage.start("churn", set={"migration.bandwidth": "64MiB/s"})
    running.wait_for_step(step)
    side = "destination" if step == "exercise" else "source"
    running.qemu(side).kill()
    ending = running.end()
    assert ending.exit_code == 3, str(ending)
    assert "command line: " in ending.stderr
    assert "Traceback" not in ending.stderr
    assert_no_verdict(ending)


@pytest.mark.slow
def test_a_qemu_that_crashes_before_its_guest_is_migrated(freepage: Freepage) -> None:
    """By a signal that it brings upon itself, which nobody sends: a verdict, and no lost guest."""
    running = freepage.start("churn")
    running.wait_for_step("load")
    running.qemu("source").send_signal(signal.SIGABRT)
    ending = running.end()
    assert ending.exit_code == 1, str(ending)
    assert "Traceback" not in ending.stderr
    result = Result.from_json(ending.stdout)
    assert result.verdict == "fail"
    (finding,) = result.findings
    assert finding.rule == "qemu-crashed"
    assert "SIGABRT" in finding.text


def test_a_daemon_that_dies(freepage: Freepage) -> None:
    running = freepage.start("churn")
    running.wait_for_step("migrate")
    daemons = [p for p in running.processes() if name_of(p) in ("libvirtd", "virtqemud")]
    kill_all([p for p in daemons if any("/destination/" in word for word in words_of(p))])
    ending = running.end()
    assert ending.exit_code == 3, str(ending)
    assert "the destination's libvirt daemon is gone" in ending.stderr
    assert_no_verdict(ending)


def test_a_migration_that_takes_too_long_is_cancelled(freepage: Freepage) -> None:
    settings = {"migration.timeout_s": 15, "migration.bandwidth": "1MiB/s"}
    ending = freepage.start("freed", arm="off", set=settings).end()
    assert ending.exit_code == 3, str(ending)
    assert "the migration was cancelled" in ending.stderr
    assert_no_verdict(ending)


def test_nothing_of_a_run_is_left_afterwards(freepage: Freepage) -> None:
    running = freepage.start("idle", arm="off")
    running.wait_for_step("migrate")
    processes = running.processes()
    assert any(name_of(process).startswith("qemu-system") for process in processes)
    assert running.end().exit_code == 0
    assert_all_gone(processes)
    assert not psutil.Process().children()
