# SPDX-License-Identifier: GPL-2.0-or-later
"""A shell in the guest, by paramiko: one connection with keys of the run's own, and channels on it.

paramiko serves here because the keys, the host key and the guest are the run's own: nothing of the
user's configuration may count.  It cannot serve for remote hosts as well: it rejects the channels of
unix sockets that a host's sshd forwards to us (``forwarded-streamlocal@openssh.com``), has no means of
asking for them, and follows neither ``ProxyJump`` nor ``Include`` of ``~/.ssh/config`` nor keys in
hardware.  So remote hosts are reached by the user's own ssh (:mod:`harness.hosts.remote_ssh`), and
guests by a library, which needs no program and no files.

    with Shell.connect(address, keys, deadline) as shell:
        assert shell.run(["uname", "-r"], deadline).check().startswith("6.")
"""

from __future__ import annotations

import contextlib
import io
import shlex
import socket
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final

import paramiko

from harness.errors import DeadlineExceeded, GuestLost, MachineryError
from harness.events import Deadline
from harness.guest.login import HostKey, Login
from harness.guest.ssh import Keys

_PORT: Final = 22
_RSA: Final = "ssh-rsa"
_CHUNK: Final = 65536

#: Seconds for a connection that may have ended to answer.
_ANSWER_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What a command in the guest returned."""

    command: str
    status: int
    stdout: str
    stderr: str

    def check(self) -> str:
        """Its output, or an error if it failed."""
        if self.status != 0:
            raise MachineryError(
                f"in the guest, {self.command!r} ended with status {self.status}: {self.stderr.strip()}"
            )
        return self.stdout


class NotLetInError(GuestLost):
    """The guest's server refuses the user: another key, another password, no such user."""


class WrongHostKeyError(MachineryError):
    """The guest's server shows a host key that it must not have."""


class Shell:
    """An ssh connection with the guest, and commands on it.  It outlives a migration."""

    def __init__(self, transport: paramiko.Transport) -> None:
        """See :meth:`connect`."""
        self._transport = transport

    @classmethod
    def connect(cls, address: str, keys: Keys, deadline: Deadline, *, port: int = _PORT) -> Shell:
        """Connect and authenticate with the run's own key; the guest's host key must be the run's.

        Raises :class:`MachineryError` for another host key, :class:`DeadlineExceeded` or
        :class:`GuestLost` if there is no connection.
        """
        client = paramiko.Ed25519Key(file_obj=io.StringIO(keys.client_key().decode()))
        login = Login(keys.user, (keys.host_key_shown,), client)
        try:
            return cls.connect_as(address, login, deadline, port=port)
        except WrongHostKeyError:
            raise MachineryError(
                f"{address} shows another host key than the one that this run gave to its guest",
                hint="something else answers at the guest's address, or its image ignores the run's key",
            ) from None

    @classmethod
    def connect_as(cls, address: str, login: Login, deadline: Deadline, *, port: int = _PORT) -> Shell:
        """Connect and authenticate as ``login`` says.

        Raises :class:`WrongHostKeyError` for a host key that is not among the login's,
        :class:`NotLetInError` where the server refuses, :class:`DeadlineExceeded` or :class:`GuestLost` if
        there is no connection.
        """
        try:
            connection = socket.create_connection((address, port), deadline.timeout())
        except TimeoutError:
            raise DeadlineExceeded(f"{deadline.what}: the guest's ssh port does not answer") from None
        except OSError as error:
            raise GuestLost(f"cannot reach the guest's ssh server at {address}: {error}") from error
        transport = paramiko.Transport(connection)
        try:
            _authenticate(transport, address, login, deadline)
        except paramiko.ssh_exception.IncompatiblePeer as error:
            transport.close()
            # paramiko has one kind for keys, ciphers and all else on which they do not agree.
            if "host key" in str(error):
                words = f"{address} has no host key of a kind that is known: {error}"
                raise WrongHostKeyError(words) from error
            raise GuestLost(f"ssh with the guest failed: {error}") from error
        except (paramiko.SSHException, EOFError, OSError) as error:
            # Who refuses somebody is still there; who goes away may not be ready yet.
            refused = isinstance(error, paramiko.AuthenticationException) and transport.is_active()
            transport.close()
            # paramiko has no kind of its own for a server that is silent.
            deadline.check()
            kind = NotLetInError if refused else GuestLost
            raise kind(f"ssh with the guest failed: {error or 'it hung up'}") from error
        except BaseException:
            transport.close()
            raise
        return cls(transport)

    @property
    def host_key(self) -> HostKey:
        """The host key that the server has shown."""
        shown = self._transport.get_remote_server_key()
        return HostKey(shown.get_name(), shown.asbytes())

    def __enter__(self) -> Shell:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection."""
        self._transport.close()

    def open_channel(self, what: str, deadline: Deadline) -> paramiko.Channel:
        """A channel for ``what``, a context manager.

        Raises :class:`GuestLost` if the connection has ended, :class:`DeadlineExceeded` if nobody answers.
        """
        try:
            return self._transport.open_session(timeout=deadline.timeout())
        except (paramiko.SSHException, EOFError, OSError) as error:
            if self._transport.is_active():
                deadline.check()
            raise GuestLost(f"the ssh session ended during {what}") from error

    def exit_status(self, channel: paramiko.Channel, what: str) -> int:
        """Wait for the end of ``what``, which runs on the channel, and return its exit status.

        A command that a signal ended has -1.  Raises :class:`GuestLost` if it was the connection that ended.
        """
        status = channel.recv_exit_status()
        if status == -1:
            # The channels end a moment before the connection says that it has: only an answer proves it.
            self.open_channel(what, Deadline(_ANSWER_SECONDS, "the guest's ssh server")).close()
        return status

    def run(self, command: Sequence[str], deadline: Deadline, *, given: bytes = b"") -> CommandResult:
        """Run a command in the guest and wait for its end.

        ``given``: its standard input, for a command that writes little before it has read all of it.

        Raises :class:`DeadlineExceeded` if it has not ended by the deadline, and :class:`GuestLost` if the
        connection ends.
        """
        line = shlex.join(command)
        stdout = stderr = b""
        with self.open_channel(repr(line), deadline) as channel:
            with (
                _closed_at(deadline, channel) as given_up,
                contextlib.suppress(paramiko.SSHException, EOFError, OSError),
            ):
                channel.exec_command(line)
                channel.sendall(given)
                channel.shutdown_write()
                stdout, stderr = _drain(channel)
                channel.recv_exit_status()
            if given_up.is_set():
                raise DeadlineExceeded(f"{deadline.what}: {line!r} in the guest has not ended")
            # What ended the channel, if not the command, is found here.
            status = self.exit_status(channel, repr(line))
        return CommandResult(line, status, stdout.decode(errors="replace"), stderr.decode(errors="replace"))


def _authenticate(transport: paramiko.Transport, address: str, login: Login, deadline: Deadline) -> None:
    if login.host_keys:
        # Only the kinds of keys that are known: it may have made others of its own.
        transport.get_security_options().key_types = _algorithms(transport, login.host_keys)
    transport.auth_timeout = deadline.timeout()
    transport.start_client(timeout=deadline.timeout())
    shown = transport.get_remote_server_key().asbytes()
    if login.host_keys and shown not in [key.blob for key in login.host_keys]:
        raise WrongHostKeyError(f"{address} shows another host key than those that are known of it")
    if login.key is not None:
        transport.auth_publickey(login.user, login.key)
    else:
        transport.auth_password(login.user, login.password or "")


def _algorithms(transport: paramiko.Transport, keys: Sequence[HostKey]) -> tuple[str, ...]:
    """Signatures that paramiko knows, by keys of these kinds; RSA's are named otherwise (RFC 8332)."""
    kinds = {key.kind for key in keys}
    known = transport.get_security_options().key_types
    found = tuple(name for name in known if (_RSA if name.startswith("rsa-sha2-") else name) in kinds)
    if not found:
        raise WrongHostKeyError(f"no host key of a kind that can be checked: {', '.join(sorted(kinds))}")
    return found


@contextlib.contextmanager
def _closed_at(deadline: Deadline, channel: paramiko.Channel) -> Iterator[threading.Event]:
    """Close the channel at the deadline, which ends every wait for it; the event says that it was so."""
    given_up = threading.Event()

    def give_up() -> None:
        given_up.set()
        channel.close()

    timer = threading.Timer(deadline.timeout(), give_up)
    timer.daemon = True
    timer.start()
    try:
        yield given_up
    finally:
        timer.cancel()


def _drain(channel: paramiko.Channel) -> tuple[bytes, bytes]:
    """Both outputs, to their ends.  They share one window: neither may be left to fill up."""
    errors: list[bytes] = []
    reader = threading.Thread(target=lambda: errors.extend(iter(lambda: channel.recv_stderr(_CHUNK), b"")))
    reader.start()
    output = b"".join(iter(lambda: channel.recv(_CHUNK), b""))
    reader.join()
    return output, b"".join(errors)
