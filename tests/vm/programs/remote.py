# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs between two hosts that are reached by ssh; prints one JSON object.

python -m tests.vm.programs.remote SCENE OUT [QEMU]
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from harness.events import Deadline, EventStream
from harness.hosts.enter import enter
from harness.units import PAGE_SIZE
from tests.vm.processes import kill_all, name_of, parent_of, words_of
from tests.vm.programs.ssh_hosts import PORT, Ssh, ssh_hosts

MEMORY = "256MiB"
SMALL = ["--memory", MEMORY, "--set", "workload.noise=120MiB"]

#: Cleaning up after a lost connection takes libvirt a moment.
CLEAN_SECONDS = 120.0


def freepage(ssh: Ssh, out: Path, *arguments: str, config: str = "config") -> list[str]:
    command = [sys.executable, "-P", "-m", "harness", "run", *arguments, "--json", "--out", str(out)]
    return [*command, *(() if "--source" in arguments else ssh.options(config))]


def run(ssh: Ssh, out: Path, qemu: list[str]) -> object:
    """One whole run; what is on the hosts before and after it."""
    before = ssh.left()
    doctor = [sys.executable, "-P", "-m", "harness", "doctor", "--json", *ssh.options()]
    asked = subprocess.run(doctor, stdout=subprocess.PIPE, text=True, check=False)
    done = subprocess.run(
        freepage(ssh, out / "run", "freed", *SMALL, *qemu), capture_output=True, text=True, check=False
    )
    return {
        "status": done.returncode,
        "result": json.loads(done.stdout) if done.stdout else None,
        "said": done.stderr,
        "doctor": json.loads(asked.stdout),
        "before": before,
        "after": ssh.left(),
    }


def corrupt(ssh: Ssh, out: Path, qemu: list[str]) -> object:
    """One bit of a page that was sent and one of a page that was skipped are changed on the destination."""
    from harness.evidence.gather import gather
    from harness.evidence.keep import keep_pages
    from harness.hosts.this_machine import command_start
    from harness.memory.compare import compare
    from harness.plan.plan import Tools
    from harness.plan.prepare import prepare
    from harness.plan.remote import RemoteMachines
    from harness.report.folder import RunFolder
    from harness.run.boot import load, ready_guest
    from harness.run.live_migration import LiveMigration
    from harness.scenario.load import load_scenario
    from harness.verdict.judge import judge_memory

    binary = Path(qemu[1]) if qemu else None
    changes = [
        f"guest.memory={MEMORY}",
        "workload.noise=120MiB",
        f"remote.source.uri={ssh.uri('source')}",
        f"remote.destination.uri={ssh.uri('destination')}",
        f"remote.ssh_config={ssh.folder / 'config'}",
    ]
    scenario, events = load_scenario("freed", changes), EventStream()
    with RemoteMachines.reach(scenario, events) as machines:
        plan = prepare(scenario, Tools(binary, binary), events, command_start(), machines)
        folder = RunFolder.create(out / "run", "freed", "info")
        with ready_guest(plan, folder, events) as here:
            load(here, events)
            with LiveMigration(
                here.guest, (here.lab.source, here.lab.destination), folder, events
            ) as migration:
                switch_over = migration.run(here.domain, scenario.migration)
                seen = compare(switch_over.source.images["pc.ram"], switch_over.destination.images["pc.ram"])
                sent = int((~seen.zero_on_source & ~seen.zero_on_destination).nonzero()[0][100])
                skipped = int((~seen.zero_on_source & seen.zero_on_destination).nonzero()[0][1000])
                _flip(here.lab.guest_name, (sent, skipped))
                judgement = judge_memory(gather(switch_over, plan.resolved, events).case).judgement
                keep_pages(judgement, switch_over, folder)
    return {
        "changed": sorted([sent, skipped]),
        "verdict": judgement.verdict,
        "wrong": [[page.page, page.rule] for page in judgement.wrong_pages()],
        "kept": sorted(path.name for path in (folder.path / "wrong").iterdir()),
    }


def _flip(guest: str, pages: tuple[int, ...]) -> None:
    """Change one bit of these pages in the memory of the only QEMU that is left."""
    (qemu,) = [p for p in psutil.process_iter() if any(f"guest={guest}" in word for word in words_of(p))]
    found = []
    for path in Path(f"/proc/{qemu.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it may close others
            if "memfd:" in os.readlink(path) and path.stat().st_size == 256 << 20:
                found.append(path)
    (memory,) = found
    descriptor = os.open(memory, os.O_RDWR)
    for page in pages:
        (byte,) = os.pread(descriptor, 1, page * PAGE_SIZE + 123)
        os.pwrite(descriptor, bytes([byte ^ 0x10]), page * PAGE_SIZE + 123)
    os.close(descriptor)


def _kill_ssh(running: psutil.Process) -> None:
    """The client that is connected to the source."""
    clients = [p for p in running.children(recursive=True) if name_of(p) == "ssh"]
    kill_all([p for p in clients if any("/source/control" in word for word in words_of(p))])


def _kill_deputies(running: psutil.Process) -> None:
    """Not the keepers, which have the same command line: children of deputies, as long as those live."""
    found = [p for p in psutil.process_iter() if any(word.endswith("deputy.zip") for word in words_of(p))]
    numbers = {process.pid for process in found}
    kill_all([process for process in found if parent_of(process) not in numbers])


#: What ends, and in which step.
LOSSES: dict[str, tuple[Callable[[psutil.Process], None], str]] = {
    "ssh": (_kill_ssh, "migrate"),
    "harness": (lambda running: running.kill(), "boot"),
    "deputy": (_kill_deputies, "load"),
    "interrupt": (lambda running: running.send_signal(signal.SIGINT), "boot"),
}


def lost(ssh: Ssh, out: Path, qemu: list[str]) -> object:
    """Connections that end in mid-run; what is on the hosts before, in mid-run and after it."""
    found: dict[str, object] = {}
    for name, (kill, step) in LOSSES.items():
        before = ssh.left()
        slow = ["--set", "migration.bandwidth=8MiB/s", "--arm", "off"]
        command = freepage(ssh, out / f"run-{name}", "freed", *SMALL, *slow, *qemu)
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            said = _hear(process, step)
            meanwhile = ssh.left()
            kill(psutil.Process(process.pid))
            _, rest = process.communicate()
        found[name] = {
            "status": process.returncode,
            "said": said + rest,
            "meanwhile": meanwhile,
            "before": before,
            "after": _settled(ssh, before),
        }
    return found


def _hear(process: subprocess.Popen[str], step: str) -> str:
    heard = ""
    assert process.stderr is not None
    for line in process.stderr:
        heard += line
        if re.match(rf"\s*\.\.\.\s+{step}\b", line):
            return heard
    raise AssertionError(f"ended before step {step!r}:\n{heard}")


def _settled(ssh: Ssh, wanted: object) -> object:
    """What there is when it is what is wanted, or when the time is over: nobody tells when it is."""
    deadline = Deadline(CLEAN_SECONDS, "the hosts to be left")
    while (found := ssh.left()) != wanted and not deadline.expired:
        time.sleep(0.2)
    return found


def refusals(ssh: Ssh, out: Path, qemu: list[str]) -> object:
    """Hosts that will not do: exit status and words, and that nothing was left."""
    folder = ssh.folder
    ssh.write_config("stranger", "/dev/null")
    (folder / "changed_hosts").write_text(
        (folder / "known_hosts")
        .read_text()
        .replace(
            " ".join((folder / "host_key.pub").read_text().split()[:2]),
            " ".join((folder / "other_key.pub").read_text().split()[:2]),
        )
    )
    ssh.write_config("changed", folder / "changed_hosts")
    (folder / "locked_out").write_text((folder / "config").read_text().replace("user_key", "other_key"))
    strict = ssh.restart_sshd("source", "AllowStreamLocalForwarding no", PORT + 1)
    half = ssh.restart_sshd("source", "AllowStreamLocalForwarding remote", PORT + 4)
    bare = ssh.restart_sshd("source", "SetEnv PATH=/nonexistent", PORT + 2)
    good, bad = ssh.uri("destination"), ssh.uri("source")

    def other(port: int) -> list[str]:
        return ["--source", bad.replace(f":{PORT}", f":{port}"), "--destination", good]

    def both(query: str = "") -> list[str]:
        return ["--source", bad + query, "--destination", good]

    cases: dict[str, tuple[str, list[str]]] = {
        "unknown-key": ("stranger", both()),
        "changed-key": ("changed", both()),
        "authentication": ("locked_out", both()),
        "no-forwarding": ("config", other(PORT + 1)),
        "no-forwarding-here": ("config", other(PORT + 4)),
        "no-python": ("config", other(PORT + 2)),
        "nobody-there": ("config", other(PORT + 3)),
        "no-libvirt": ("config", both("?socket=/run/nothing.sock")),
        "same-host": ("config", ["--source", good, "--destination", good]),
        "memory": ("config", [*both(), "--memory", "900GiB"]),
    }
    before, found = ssh.left(), {}
    for name, (config, options) in cases.items():
        command = freepage(ssh, out / name, "idle", *options, "--ssh-config", str(folder / config), *qemu)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found[name] = {
            "status": done.returncode,
            "said": done.stderr,
            "folder": (out / name).exists(),
        }
    for process in (strict, half, bare):
        process.kill()
        process.wait()
    return {"cases": found, "before": before, "after": _settled(ssh, before)}


SCENES = {"run": run, "corrupt": corrupt, "lost": lost, "refusals": refusals}


def main(scene: str, out: str, *qemu: str) -> int:
    folder = Path(out)
    folder.mkdir(exist_ok=True)

    def inside() -> int:
        with ssh_hosts(EventStream(), folder / "ssh") as ssh:
            print(json.dumps(SCENES[scene](ssh, folder, ["--qemu", *qemu] if qemu else [])))
        return 0

    return enter(inside, keep=[folder])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
