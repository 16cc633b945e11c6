# SPDX-License-Identifier: GPL-2.0-or-later
"""The shell in the guest, against an ssh server in this process that runs the commands here."""

from __future__ import annotations

import contextlib
import io
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest

from harness.errors import DeadlineExceeded, GuestLost, MachineryError
from harness.events import Deadline
from harness.guest.shell import Shell
from harness.guest.ssh import Keys
from harness.run.shell import _piped


class Server(paramiko.ServerInterface):
    """One client, with the run's key; each command is a process of its own."""

    def __init__(self, keys: Keys) -> None:
        self.keys = keys
        self.host = keys.host_key()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.transport: paramiko.Transport | None = None
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            connection, _ = self.listener.accept()
            self.transport = paramiko.Transport(connection)
            self.transport.add_server_key(paramiko.Ed25519Key(file_obj=io.StringIO(self.host.decode())))
            self.transport.start_server(server=self)

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()
        self.listener.close()

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        ours = self.keys.authorized_keys().decode().split()[1]
        good = username == "root" and key.get_base64() == ours
        return paramiko.AUTH_SUCCESSFUL if good else paramiko.AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        threading.Thread(target=self.execute, args=(channel, command.decode()), daemon=True).start()
        return True

    def execute(self, channel: paramiko.Channel, command: str) -> None:
        if command == "hang-up":
            assert self.transport is not None
            self.transport.close()
            return
        if command.startswith("sleep"):
            return
        given = channel.makefile("rb").read()
        done = subprocess.run(command, shell=True, input=given, capture_output=True, check=False)
        with channel:
            channel.sendall(done.stdout)
            channel.sendall_stderr(done.stderr)
            if done.returncode >= 0:  # as dropbear: a command that a signal ended has no status
                channel.send_exit_status(done.returncode)


@pytest.fixture
def server() -> Iterator[Server]:
    with contextlib.closing(Server(Keys.generate())) as server:
        yield server


def soon() -> Deadline:
    return Deadline(30, "the guest's ssh server")


@pytest.fixture
def shell(server: Server) -> Iterator[Shell]:
    with Shell.connect("127.0.0.1", server.keys, soon(), port=server.port) as shell:
        yield shell


def test_a_command_has_a_status_and_two_outputs(shell: Shell) -> None:
    result = shell.run(["sh", "-c", "echo 'out put'; echo err >&2; exit 3"], soon())
    assert (result.status, result.stdout, result.stderr) == (3, "out put\n", "err\n")
    with pytest.raises(MachineryError, match="ended with status 3: err"):
        result.check()
    assert shell.run(["echo", "$HOME; *"], soon()).check() == "$HOME; *\n"
    assert shell.run(["sh", "-c", "exit 255"], soon()).status == 255


def test_two_outputs_that_are_larger_than_their_window(shell: Shell) -> None:
    both = "head -c 3000000 /dev/zero >&2; head -c 3000000 /dev/zero"
    result = shell.run(["sh", "-c", both], soon())
    assert (len(result.stdout), len(result.stderr)) == (3_000_000, 3_000_000)


def test_a_command_that_a_signal_ends_is_no_lost_guest(shell: Shell) -> None:
    assert shell.run(["kill", "-9", "$$"], soon()).status != 0  # quoted: an error of kill's
    channel = shell.open_channel("the test", soon())
    channel.exec_command("kill -9 $$")
    channel.shutdown_write()
    assert shell.exit_status(channel, "the test") == -1
    assert shell.run(["echo", "here"], soon()).check() == "here\n"


def test_a_connection_that_ends_during_a_command_is_a_lost_guest(shell: Shell) -> None:
    with pytest.raises(GuestLost, match="the ssh session ended during 'hang-up'"):
        shell.run(["hang-up"], soon())


def test_a_connection_that_has_ended_is_a_lost_guest(shell: Shell, server: Server) -> None:
    assert server.transport is not None
    server.transport.close()
    with pytest.raises(GuestLost, match="the ssh session ended during 'true'"):
        shell.run(["true"], soon())


def test_a_command_that_does_not_end_is_given_up_and_the_connection_lives(shell: Shell) -> None:
    with pytest.raises(DeadlineExceeded, match="'sleep 100' in the guest has not ended"):
        shell.run(["sleep", "100"], Deadline(0.3, "waiting"))
    assert shell.run(["echo", "here"], soon()).check() == "here\n"


def test_another_host_key_is_refused(server: Server) -> None:
    server.host = Keys.generate().host_key()
    with pytest.raises(MachineryError, match="another host key than the one that this run gave"):
        Shell.connect("127.0.0.1", server.keys, soon(), port=server.port)


def test_another_client_key_is_refused(server: Server) -> None:
    keys = Keys(host=server.keys.host, client=Keys.generate().client)
    with pytest.raises(GuestLost, match="ssh with the guest failed: Authentication"):
        Shell.connect("127.0.0.1", keys, soon(), port=server.port)


def test_nobody_at_the_port_is_a_lost_guest() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(GuestLost, match="cannot reach the guest's ssh server"):
        Shell.connect("127.0.0.1", Keys.generate(), soon(), port=port)


def test_a_server_that_is_silent_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(DeadlineExceeded):
        deadline = Deadline(0.5, "the guest's ssh server")
        Shell.connect("127.0.0.1", Keys.generate(), deadline, port=silent.getsockname()[1])


def test_the_shell_reads_commands_from_standard_input(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    commands = tmp_path / "commands"
    commands.write_text("echo here; echo there >&2; exit 9\n")
    with commands.open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        with shell.open_channel("the shell", soon()) as channel:
            _piped(channel)
            assert shell.exit_status(channel, "the shell") == 9
    assert capfd.readouterr() == ("here\n", "there\n")
