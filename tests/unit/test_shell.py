# SPDX-License-Identifier: GPL-2.0-or-later
"""The shell in the guest, with a program in ssh's place that runs the commands here."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import DeadlineExceeded, GuestLost, InputError, MachineryError
from harness.events import Deadline
from harness.guest.shell import Shell, demand_ssh
from harness.guest.ssh import Keys

#: Keeps its arguments; the connection's own process may fail, and all others need it.
SSH = """#!/bin/sh
for word; do last=$word; done
printf '%s\\n' "$@" >> "$FOLDER/arguments"
case "$*" in
*" -M "*) [ ! -e "$FOLDER/refusal" ] || { cat "$FOLDER/refusal" >&2; exit 255; }
   echo $$ > "$FOLDER/master" ;;
*) readlink "/proc/$(cat "$FOLDER/master")/exe" > "$FOLDER/alive" || exit 255 ;;
esac
exec sh -c "$last"
"""


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "ssh"
    program.write_text(SSH)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("FOLDER", str(tmp_path))
    return tmp_path


def soon() -> Deadline:
    return Deadline(30, "the guest's ssh server")


@pytest.fixture
def shell(ssh: Path) -> Iterator[Shell]:
    with Shell.connect("10.0.0.1", Keys.generate(), ssh / "own", soon()) as shell:
        yield shell


def test_a_command_has_a_status_and_two_outputs(shell: Shell) -> None:
    outcome = shell.run(["sh", "-c", "echo 'out put'; echo err >&2; exit 3"], soon())
    assert (outcome.status, outcome.stdout, outcome.stderr) == (3, "out put\n", "err\n")
    with pytest.raises(MachineryError, match="ended with status 3: err"):
        outcome.check()
    assert shell.run(["echo", "$HOME; *"], soon()).check() == "$HOME; *\n"
    # ssh's own status is a command's as well, as long as the connection lives.
    assert shell.run(["sh", "-c", "exit 255"], soon()).status == 255


def test_only_the_runs_keys_count(shell: Shell, ssh: Path) -> None:
    shell.run(["true"], soon())
    words = (ssh / "arguments").read_text().splitlines()
    assert words.count("none") == 2  # ssh -F: no configuration, for the connection and the command
    for option in ("StrictHostKeyChecking=yes", "GlobalKnownHostsFile=/dev/null", "IdentitiesOnly=yes"):
        assert words.count(option) == 2
    assert words.count("ProxyCommand=false") == 1  # a command never connects anew
    assert stat.S_IMODE((ssh / "own" / "key").stat().st_mode) == 0o600
    assert (ssh / "own" / "known_hosts").read_text().startswith("10.0.0.1 ssh-ed25519 ")


def test_a_connection_that_ends_is_a_lost_guest(shell: Shell, ssh: Path) -> None:
    os.kill(int((ssh / "master").read_text()), 9)
    with pytest.raises(GuestLost, match="the ssh session ended during 'true'"):
        shell.run(["true"], soon())


def test_a_command_that_does_not_end_is_given_up(shell: Shell) -> None:
    with pytest.raises(DeadlineExceeded, match="'sleep 100' in the guest has not ended"):
        shell.run(["sleep", "100"], Deadline(0.3, "waiting"))


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        ("Host key verification failed.", MachineryError, "another host key than the one that this run gave"),
        ("Permission denied (publickey).", GuestLost, "Permission denied"),
        ("", GuestLost, "status 255"),
    ],
)
def test_why_there_is_no_connection(ssh: Path, said: str, kind: type[Exception], words: str) -> None:
    (ssh / "refusal").write_text(said)
    with pytest.raises(kind, match=words):
        Shell.connect("10.0.0.1", Keys.generate(), ssh / "own", soon())


def test_the_shell_reads_commands_from_standard_input(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    commands = tmp_path / "commands"
    commands.write_text("echo here; exit 9\n")
    with commands.open() as file:
        before = os.dup(0)
        os.dup2(file.fileno(), 0)
        monkeypatch.setattr(sys, "stdin", file)
        try:
            assert shell.attach() == 9
        finally:
            os.dup2(before, 0)
            os.close(before)
    assert capfd.readouterr().out == "here\n"


def test_without_ssh_there_is_no_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="a shell in the guest needs ssh"):
        demand_ssh()
