# SPDX-License-Identifier: GPL-2.0-or-later
"""Two hosts that are reached by ssh, and by nothing else: both in a lab, in which the command is started."""

from __future__ import annotations

import json
import os
import re

import psutil
import pytest

from harness.accel import CHAIN_VARIABLE
from harness.events import EventStream
from harness.memory.compare import compare
from harness.testing import Freepage, LabFixture
from tests.vm.conftest import LONGEST
from tests.vm.support import nested_hosts
from tests.vm.support.remote import LOSSES, flip, settled
from tests.vm.support.ssh_hosts import PORT, Ssh, ssh_hosts

MEMORY = "256MiB"
NOISE = {"workload.noise": "120MiB"}
#: The hosts are far away.
LONG = 3 * LONGEST


@pytest.fixture
def freepage(freepage: Freepage) -> Freepage:
    """A guest of 256 MiB."""
    return freepage.with_defaults(memory=MEMORY)


def connected(lab: LabFixture) -> Ssh:
    """Both hosts, for as long as the test's body runs."""
    return lab.enter(ssh_hosts(EventStream(), lab.folder / "ssh"))


def test_remote_memory_is_right_and_nothing_is_left(lab: LabFixture, freepage: Freepage) -> None:
    ssh = connected(lab)
    before = ssh.left()
    asked = freepage.command("doctor", "--json", *ssh.options())
    run = freepage.run("freed", *ssh.options(), set=NOISE, timeout=LONG)
    after = ssh.left()
    assert run.exit_code == 0, str(run)
    result = run.result
    assert result.verdict == "pass"
    assert result.pages.skipped_percent >= 50
    assert not result.not_compared
    assert result.guest.checksum_matches
    # Both witnesses: the walk goes over the network too.
    assert result.witnesses is not None
    assert result.bytes.floor_by == "walk"
    remote = result.remote
    assert remote is not None
    assert [host.node for host in remote.hosts.values()] == ["source", "destination"]
    assert 0 < remote.oracle_percent <= 1
    assert after == before
    # The doctor was asked about both.
    said = {item["name"]: item for item in json.loads(asked.stdout)["findings"]}
    for name in ("source", "destination"):
        assert said[name]["level"] == "ok", said[name]
        assert re.search(
            rf": {name}, kernel .* answers in [0-9.]+ ms, sends [0-9.]+ MiB/s", said[name]["text"]
        )
    # What is looked at is not nothing: each host has a daemon.
    for host in before.values():
        assert "libvirtd" in host["processes"] or "virtqemud" in host["processes"]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_nested_machines_that_are_reached_by_ssh(lab: LabFixture, freepage: Freepage) -> None:
    """Each with its own kernel, its own KVM, and libvirt as the distribution delivers it."""
    events, folder = EventStream(), lab.folder / "ssh"
    nested_hosts.prepare_ssh(folder)
    with nested_hosts.machines(folder, events) as found:
        before = nested_hosts.traces(folder)
        chain = found["source"].spec.chain
        # Theirs is the KVM: as slow, and called as in a machine of which it is all.
        environment = {**os.environ, CHAIN_VARIABLE: chain}
        words = nested_hosts.options(folder)
        running = freepage.start("freed", *words, accel="kvm", set=NOISE, env=environment, timeout=3600)
        run = running.end().run()
        after = nested_hosts.settled(folder, before)
    assert run.exit_code == 0
    result = run.result
    assert result.verdict == "pass"
    assert result.accelerator == chain
    assert result.pages.skipped_percent >= 50
    assert all(name.startswith("kvmclock-") for name in result.pages.explained), result.pages
    assert result.remote is not None
    assert [host.node for host in result.remote.hosts.values()] == ["source", "destination"]
    assert 0 < result.remote.oracle_percent <= 1
    assert "libvirtd" in before["source"]
    assert after == before


def test_a_remote_page_that_is_wrong_is_found_and_named(lab: LabFixture) -> None:
    """Over digests alone; and what both sides held is fetched.

    One bit of a page that was sent and one of a page that was skipped are changed on the destination.
    """
    ssh = connected(lab)
    guest = lab.boot("freed", memory=MEMORY, set={**NOISE, **ssh.settings()})
    guest.load()
    with guest.migration() as migration:
        migration.run()
        here, there = (migration.images(side)["pc.ram"] for side in ("source", "destination"))
        seen = compare(here, there)
        sent = int((~seen.zero_on_source & ~seen.zero_on_destination).nonzero()[0][100])
        skipped = int((~seen.zero_on_source & seen.zero_on_destination).nonzero()[0][1000])
        flip(guest.name, 256 << 20, (sent, skipped))
        judgement = migration.judge()
    assert judgement.verdict == "fail"
    wrong = judgement.wrong_pages()
    assert [page.page for page in wrong] == sorted([sent, skipped])
    assert {page.rule for page in wrong} == {"differs-though-sent", "skipped-but-not-zero-on-destination"}
    assert len(list((guest.folder.path / "wrong").iterdir())) == 4


def test_a_lost_connection_leaves_remote_hosts_as_they_were(lab: LabFixture, freepage: Freepage) -> None:
    """The ssh of one host, the harness, and our program over there are killed in mid-run; and Ctrl-C."""
    ssh = connected(lab)
    slow = {**NOISE, "migration.bandwidth": "8MiB/s"}
    for name, (kill, step, status) in LOSSES.items():
        before = ssh.left()
        running = freepage.start("freed", *ssh.options(), arm="off", set=slow)
        running.wait_for_step(step)
        meanwhile = ssh.left()
        kill(psutil.Process(running.process.pid))
        ending = running.end()
        after = settled(ssh, before)
        assert ending.exit_code == status, str(ending)
        assert "Traceback" not in ending.stderr
        if name in ("ssh", "deputy"):
            assert "is lost" in ending.stderr
        # There was something to be taken away on both.
        for side in ("source", "destination"):
            assert meanwhile[side]["/var/tmp"] != before[side]["/var/tmp"]
        assert after == before, name


def test_remote_hosts_that_will_not_do(lab: LabFixture, freepage: Freepage) -> None:
    """What is missing is said in words, and nothing was started or written by then."""
    ssh = connected(lab)
    folder = ssh.folder
    ssh.write_config("stranger", "/dev/null")
    host_key, other_key = (
        " ".join((folder / name).read_text().split()[:2]) for name in ("host_key.pub", "other_key.pub")
    )
    changed = (folder / "known_hosts").read_text().replace(host_key, other_key)
    (folder / "changed_hosts").write_text(changed)
    ssh.write_config("changed", folder / "changed_hosts")
    (folder / "locked_out").write_text((folder / "config").read_text().replace("user_key", "other_key"))
    servers = [
        ssh.restart_sshd("source", "AllowStreamLocalForwarding no", PORT + 1),
        ssh.restart_sshd("source", "AllowStreamLocalForwarding remote", PORT + 4),
        ssh.restart_sshd("source", "SetEnv PATH=/nonexistent", PORT + 2),
    ]
    good, bad = ssh.uri("destination"), ssh.uri("source")

    def both(source: str) -> list[str]:
        return ["--source", source, "--destination", good]

    def at(port: int) -> list[str]:
        return both(bad.replace(f":{PORT}", f":{port}"))

    cases: dict[str, tuple[str, list[str], int, str]] = {
        "unknown-key": ("stranger", both(bad), 2, "the host key of .* is not known"),
        "changed-key": ("changed", both(bad), 2, "shows another host key"),
        "authentication": ("locked_out", both(bad), 2, "authentication failed"),
        "no-forwarding": ("config", at(PORT + 1), 2, "does not forward unix sockets"),
        "no-forwarding-here": ("config", at(PORT + 4), 2, "does not forward unix sockets"),
        "no-python": ("config", at(PORT + 2), 2, "has no Python that is called python3"),
        "nobody-there": ("config", at(PORT + 3), 3, "cannot be reached by ssh"),
        "no-libvirt": ("config", both(f"{bad}?socket=/run/nothing.sock"), 2, "no libvirt daemon answers"),
        "same-host": ("config", both(good), 2, "the same host for libvirt"),
        "memory": ("config", [*both(bad), "--memory", "900GiB"], 2, "do not fit on the source"),
    }
    before = ssh.left()
    for name, (config, options, status, words) in cases.items():
        ending = freepage.start("idle", *options, "--ssh-config", str(folder / config)).end()
        assert ending.exit_code == status, (name, ending.stderr)
        assert re.search(words, ending.stderr), (name, ending.stderr)
        assert "hint: " in ending.stderr, name
        assert "Traceback" not in ending.stderr, name
        assert not ending.folder.exists(), name
    for process in servers:
        process.kill()
        process.wait()
    assert settled(ssh, before) == before
