# SPDX-License-Identifier: GPL-2.0-or-later
"""Real KVM in a machine around the run: its verdicts, its errors, and what it leaves behind.

A machine takes minutes where its CPU is emulated, so most of these are slow.
"""

from __future__ import annotations

import json
import shlex
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.errors import ExitCode, GuestLost
from harness.events import Deadline, EventStream
from harness.faults.catalogue import SCENARIOS
from harness.nested import machine as machine_module
from harness.nested.machine import MachineSpec, NestedMachine
from harness.nested.parts import machine_parts
from harness.report.folder import INCOMPLETE_MARKER
from harness.report.result import Result
from harness.scenario.load import list_scenarios, load_scenario
from harness.testing import Ending, Freepage, Running
from harness.toolchain.cache import Cache
from tests.vm.conftest import assert_all_gone
from tests.vm.support.processes import name_of

#: Minutes on quiet cores; a busy machine may take many times as long.
LONGEST = 3600

#: Of a machine that hangs: long enough for its kernel's boot, which takes four seconds on quiet CPUs.
HANG_SECONDS = 90

CHAINS = ("kvm-in-tcg", "kvm-in-kvm")

#: All scenarios that ship, in groups; each takes some ten minutes on quiet CPUs.
SHIPPED: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "workloads": (("idle", "freed", "fragmented", "churn", "pagecache"), ("--memory", "512MiB")),
    "programs": (("compile", "database"), ("--memory", "512MiB")),
    "races": (("race-w1", "race-w2", "race-w3", "race-w4", "race-w5", "answer-after-move"), ()),
    "retries": (
        ("there-and-back", "cancelled-retried", "killed-retried", "stalled", "stopped-continued"),
        (),
    ),
    "together": (("several-guests",), ()),
    "guests": (("reset", "reboot", "kexec", "unbound", "never-answered"), ()),
    "memory": (("offlined", "inflated", "several-blocks"), ()),
    "beside": (("disk-journal", "tcp-stream", "clocks"), ()),
    "files": (("to-file", "mapped-ram", "snapshot", "virsh-save", "background-snapshot"), ()),
    "postcopy": (
        ("postcopy", "postcopy-runs", "postcopy-recover", "postcopy-preempt", "postcopy-only-allowed"),
        (),
    ),
    "slowed down": (
        ("auto-converge", "postcopy-recover-libvirt"),
        (),
    ),
    "left out": (
        (
            "postcopy-freed",
            "postcopy-freed-runs",
            "postcopy-freed-asked",
            "postcopy-freed-answered",
            "postcopy-freed-recover",
            "to-file-freed",
        ),
        (),
    ),
    "modes": (
        ("multifd-zlib", "multifd-zstd", "zero-copy", "tls-psk", "no-return-path", "switchover-bandwidth"),
        (),
    ),
    "deltas": (("patterns", "xbzrle-patterns", "cpr-reboot", "cpr-transfer"), ()),
    "tried again": (
        ("retried-whole", "fewer-channels", "paused-retried", "paused-twice", "cancelled-in-setup"),
        (),
    ),
    "cancelled": (
        ("cancelled-connects", "postcopy-cancelled", "postcopy-vhost-user"),
        (),
    ),
    "rounds": (
        ("patterns-multifd", "pause-kept", "cancelled-in-third-pass", "answer-crosses-sync", "asked-again"),
        (),
    ),
    "more rounds": (
        ("patterns-legacy-zero", "patterns-postcopy", "patterns-mapped", "given-up-often", "edges-owned"),
        (),
    ),
    "busy": (
        ("hot-off", "rewrite-once", "churn-init-on-free", "multifd-init-on-free", "sent-then-freed"),
        (),
    ),
    "kinds of memory": (("huge-pages", "merged-pages", "swapped-pages"), ()),
    "machines": (("vcpus-plugged", "virtio-mem", "virtio-mem-unplugged", "ballooned-offset"), ()),
    "devices": (("every-device", "several-nics", "interrupts", "vhost-user", "backend-killed"), ()),
    "stays": (("backup-under-way", "virtiofsd-gone", "suspended", "bitmap-stays"), ()),
    "refused": (("other-machine", "other-uuid", "tls-other-name", "quit-under-way"), ()),
    "disks": (("disk-copied", "disk-full", "disk-filled", "hot-plugged", "pmem", "dirty-bitmap"), ()),
}

pytestmark = pytest.mark.timeout(LONGEST)


@pytest.fixture
def freepage(freepage: Freepage) -> Freepage:
    """The scenarios decide about all that is not said."""
    return freepage.without_defaults()


def nested(freepage: Freepage, *words: str) -> Running:
    """A command that runs scenarios in one nested machine."""
    scenario, *rest = words
    return freepage.start(scenario, *rest, "--nested", timeout=LONGEST)


def documents(text: str) -> list[Result]:
    """The results in the one document that was printed: of a run, or of several."""
    document = json.loads(text)
    found = [run["result"] for run in document["runs"]] if "runs" in document else [document]
    return [Result.from_json(json.dumps(one)) for one in found]


def assert_right(ended: Ending, *scenarios: str) -> list[Result]:
    """All end under real KVM as they say, with pages skipped and every page that the host wrote named."""
    wanted = [load_scenario(name).expect for name in scenarios]
    found = documents(ended.stdout)
    assert [result.scenario for result in found] == list(scenarios), str(ended)
    assert [result.verdict for result in found] == [expect.verdict for expect in wanted], str(ended)
    # Each verdict is the one that its scenario is written to show.
    assert ended.exit_code == ExitCode.PASS
    for result, expect in zip(found, wanted, strict=True):
        assert result.accelerator in CHAINS
        assert result.pages.skipped > 0 or not expect.skipping
        assert result.pages.wrong == 0
        assert all(name.startswith("kvmclock-") for name in result.pages.explained), result.pages
    return found


@pytest.mark.slow
def test_scenarios_share_a_machine_and_pass_under_kvm(freepage: Freepage) -> None:
    ended = nested(freepage, "idle", "freed", "--memory", "512MiB").end()
    found = assert_right(ended, "idle", "freed")
    for result in found:
        assert result.folder is not None
        place = Path(result.folder)
        assert place.parent == ended.folder
        # Written by the command inside, and here: same place, same content.
        assert Result.from_json((place / "result.json").read_text()) == result
        assert not (place / INCOMPLETE_MARKER).exists()
        assert "freepage.control" in (place / "nested.command").read_text()
        assert (place / "nested-console.log").exists()
        assert shlex.split(result.replay)[-1] == "--nested"
        assert "accel" in (place / "source.command").read_text()
        assert "kvm" in (place / "source.command").read_text()


@pytest.mark.slow
def test_a_shell_reads_what_it_is_given_and_ends_as_its_commands_do(freepage: Freepage) -> None:
    words = "cat /sys/devices/system/clocksource/*/current_clocksource; exit 7\n"
    shell = freepage.start("idle", "--nested", command="shell", memory="256MiB", stdin=words, timeout=LONGEST)
    ended = shell.end()
    assert ended.exit_code == 7, str(ended)
    assert "kvm-clock" in ended.stdout
    assert (ended.folder / "nested-console.log").exists()


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], NestedMachine]:
    """A machine that does something else in place of its agent."""

    def make(script: str) -> NestedMachine:
        monkeypatch.setattr(machine_module, "start_script", lambda *_: f"exec >/dev/ttyS0 2>&1\n{script}\n")
        events = EventStream()
        parts = machine_parts(Cache(None, events))
        return NestedMachine(parts, MachineSpec("kvm-in-tcg", 1 << 30), events)

    return make


@pytest.mark.slow
def test_a_kernel_that_panics_is_an_error_with_its_console(broken: Callable[[str], NestedMachine]) -> None:
    with pytest.raises(GuestLost) as caught, broken("echo c >/proc/sysrq-trigger"):
        pass
    assert caught.value.exit_code == 3
    assert "the nested machine has ended" in caught.value.message
    assert "Kernel panic - not syncing: sysrq triggered crash" in caught.value.message
    assert caught.value.last_lines


@pytest.mark.slow
def test_a_machine_that_hangs_is_an_error(broken: Callable[[str], NestedMachine]) -> None:
    machine = broken("echo before the hang; exec sleep 100000")
    machine._boot_seconds = HANG_SECONDS
    with pytest.raises(GuestLost) as caught, machine:
        pass
    assert f"not within {HANG_SECONDS} s" in caught.value.message
    assert "before the hang" in caught.value.last_lines
    # What its CPUs did: a kernel that waits has halted them.
    assert sum("its CPU " in line for line in caught.value.last_lines) == machine.spec.vcpus
    assert "== info lapic 1" in machine.inquest
    assert "thread " in machine.inquest


def test_sigkill_while_it_boots_leaves_nothing(freepage: Freepage) -> None:
    running = nested(freepage, "idle")
    running.wait_for_step("nested-machine")
    # For a moment it is still the program that executes QEMU, and amid that it has neither name nor words.
    deadline = Deadline(30, "the machine's QEMU")
    while not any(name_of(process).startswith("qemu-system") for process in running.processes()):
        deadline.check()
    processes = running.processes()
    running.process.kill()
    assert running.end().exit_code == -signal.SIGKILL
    assert_all_gone(processes)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_polite_signal_reaches_the_command_inside(freepage: Freepage, number: signal.Signals) -> None:
    running = nested(freepage, "churn", "--memory", "256MiB")
    running.wait_for_step("boot")
    processes = running.processes()
    running.process.send_signal(number)
    ended = running.end()
    assert ended.exit_code == 130, str(ended)
    assert ended.stdout == ""
    assert "interrupted during step" in (ended.folder / INCOMPLETE_MARKER).read_text()
    assert_all_gone(processes)


@pytest.mark.slow
def test_a_machine_that_dies_in_mid_run_is_no_verdict(freepage: Freepage) -> None:
    running = nested(freepage, "idle", "--memory", "256MiB")
    running.wait_for_step("boot")
    for process in running.processes():
        if name_of(process).startswith("qemu-system"):
            process.kill()
    ended = running.end()
    assert ended.exit_code == 3, str(ended)
    assert ended.stdout == ""
    assert "the nested machine has ended" in (ended.folder / INCOMPLETE_MARKER).read_text()


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["late-arming", "partial-arming"])
def test_an_unarmed_log_is_caught_under_kvm_and_only_there(freepage: Freepage, fault: str) -> None:
    ended = nested(freepage, "race-w2", "--fault", fault).end()
    assert ended.exit_code == 1, str(ended)
    (result,) = documents(ended.stdout)
    assert result.accelerator in CHAINS
    assert "skipped-but-changed-since-request" in {finding.rule for finding in result.findings}
    running = freepage.start("race-w2", fault=fault, accel="tcg", memory="192MiB", timeout=LONGEST)
    emulated = running.end()
    assert emulated.exit_code == 0, str(emulated)


@pytest.mark.slow
def test_a_nic_that_the_kernel_serves_writes_into_memory(freepage: Freepage) -> None:
    options = ("--memory", "512MiB", "--set", "guest.vhost=true", "--set", "guest.traffic=true")
    (result,) = assert_right(nested(freepage, "freed", *options).end(), "freed")
    assert result.folder is not None
    assert '"vhost":true' in (Path(result.folder) / "source.command").read_text()


@pytest.mark.slow
def test_vhosts_own_log_has_to_be_read(freepage: Freepage) -> None:
    scenario = str(SCENARIOS / "vhost-off.yaml")
    ended = nested(freepage, scenario, "--fault", "vhost-not-synced").end()
    assert ended.exit_code == 1, str(ended)
    (result,) = documents(ended.stdout)
    assert {"differs-though-sent", "differs-not-skipped"} & {finding.rule for finding in result.findings}


@pytest.mark.slow
def test_what_a_guest_may_write_is_limited(freepage: Freepage, freepage_folder: Path) -> None:
    """dirty-limit, by QEMU's own word of its vCPUs; until the script lets the migration come to an end."""
    scenario = freepage_folder / "dirty-limit.yaml"
    scenario.write_text(
        "name: dirty-limit\n"
        "guest: {memory: 192MiB, kvm_dirty: ring}\n"
        "workload: {kind: rewrite, noise: 32MiB, rate: 20000}\n"
        "arm: off\n"
        "migration: {bandwidth: 8MiB/s, downtime_limit_ms: 50, capabilities: {dirty-limit: true},\n"
        "            parameters: {vcpu-dirty-limit: 3}}\n"
        "script: [{at: pass, number: 6, do: [{action: bandwidth, limit: 256MiB/s}]}]\n",
        encoding="utf-8",
    )
    ended = nested(freepage, str(scenario)).end()
    assert ended.exit_code == ExitCode.PASS, str(ended)
    (result,) = documents(ended.stdout)
    assert result.verdict == "pass"
    throttle = result.moves[0].throttle
    assert throttle is not None
    assert throttle.steps[0].limits == []
    assert [3] in [step.limits for step in throttle.steps]
    # One whose vCPUs write little passes with every page right, and has shown nothing.
    quiet = nested(freepage, str(scenario), "--set", "workload.rate=100").end()
    assert quiet.exit_code == ExitCode.INCONCLUSIVE, str(quiet)
    assert "throttle-not-seen" in documents(quiet.stdout)[0].reason


#: One boots from an image that somebody has to name (tests/vm/test_own_image.py has one), one needs huge
#: pages (tests/vm/test_postcopy.py).
NEED_MORE = ("own-image", "postcopy-huge")


def test_all_that_ships_is_in_a_group() -> None:
    listed = [*NEED_MORE, *(name for names, _ in SHIPPED.values() for name in names)]
    assert sorted(listed) == sorted(entry.name for entry in list_scenarios())


@pytest.mark.slow
@pytest.mark.parametrize("group", SHIPPED)
def test_what_ships_passes(freepage: Freepage, group: str) -> None:
    """One machine for each group."""
    names, options = SHIPPED[group]
    assert_right(nested(freepage, *names, *options).end(), *names)


@pytest.mark.slow
@pytest.mark.parametrize(
    "setting",
    [
        "guest.kvm_dirty=ring",
        "guest.kvm_dirty=bitmap-without-manual-protect",
        "migration.clear_bitmap_shift=6",
        "migration.clear_bitmap_shift=31",
    ],
)
def test_every_way_to_log_writes(freepage: Freepage, setting: str) -> None:
    ended = nested(freepage, "race-w2", "--set", setting).end()
    (result,) = assert_right(ended, "race-w2")
    assert result.folder is not None
    said = (Path(result.folder) / "source.command").read_text()
    if "ring" in setting:
        assert "dirty-ring-size=" in said
    if "shift" in setting:
        assert setting.rpartition("=")[2] in said


@pytest.mark.slow
def test_vcpus_are_unplugged(freepage: Freepage, folder: Path) -> None:
    """What QEMU says of one that is gone, it says under KVM only."""
    scenario = folder / "unplug.yaml"
    scenario.write_text(
        "name: unplug\n"
        "guest: {memory: 256MiB, topology: {cores: 3}}\n"
        "workload: {kind: churn, noise: 100MiB}\n"
        "moves: [{}, {}]\n"
        "script:\n"
        "- {at: start, do: [{action: vcpu-add, count: 2}]}\n"
        "- {at: start, move: 2, do: [{action: vcpu-remove}]}\n"
    )
    ended = nested(freepage, str(scenario)).end()
    assert ended.exit_code == 0, str(ended)
    assert ended.result.verdict == "pass"


def test_the_hosts_cpu(freepage: Freepage) -> None:
    ended = nested(freepage, "idle", "--memory", "256MiB", "--set", "guest.cpu=host,-avx2").end()
    assert ended.exit_code == 0, str(ended)
    assert ended.result.machine is not None
    assert ended.result.machine.cpu == "host,-avx2"
