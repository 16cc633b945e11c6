# SPDX-License-Identifier: GPL-2.0-or-later
"""A shell in the guest, by OpenSSH's own client: the one ssh that this project uses.

Remote hosts are reached by the same program (:mod:`harness.hosts.remote_ssh`), as its user has set it up.
Here the opposite holds: nothing of the user's configuration counts, only the run's keys do.

    with Shell.connect(address, keys, folder, deadline) as shell:
        assert shell.run(["uname", "-r"], deadline).check().startswith("6.")
"""

from __future__ import annotations

import contextlib
import select
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Final

from harness.errors import DeadlineExceeded, GuestLost, InputError, MachineryError
from harness.events import Deadline
from harness.guest.ssh import Keys
from harness.hosts import kernel

_USER: Final = "root"

#: What the first command of a connection says when it runs, before it waits for our end.
_WORD: Final = b"ready"

#: ssh's own exit status, beside those of commands.
_SSH_FAILED: Final = 255
#: How long the connection may take to end after a command of it has failed for that.
_END_SECONDS: Final = 2.0

_OPTIONS: Final = (
    "BatchMode=yes",
    "StrictHostKeyChecking=yes",
    "GlobalKnownHostsFile=/dev/null",
    "UpdateHostKeys=no",
    # Only the kind of key that the guest has: it may have made others of its own.
    "HostKeyAlgorithms=ssh-ed25519",
    "PreferredAuthentications=publickey",
    "IdentitiesOnly=yes",
    "IdentityAgent=none",
    "ControlPersist=no",
    "EscapeChar=none",
    "LogLevel=ERROR",
)


def demand_ssh() -> None:
    """Raise :class:`InputError` if this machine has no ssh."""
    if shutil.which("ssh") is None:
        raise InputError("a shell in the guest needs ssh, which is not there", hint="install openssh-client")


@dataclass(frozen=True, slots=True)
class Outcome:
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


class Shell:
    """An ssh connection with the guest, and commands on it.  It outlives a migration."""

    def __init__(self, address: str, folder: Path) -> None:
        """See :meth:`connect`; ``folder`` has the keys."""
        words = [f"IdentityFile={folder / 'key'}", f"UserKnownHostsFile={folder / 'known_hosts'}", *_OPTIONS]
        base = ["ssh", "-F", "none", "-S", str(folder / "control")]
        base += [word for option in words for word in ("-o", option)]
        # Each command goes over the connection that there is; if that has ended, none is made anew.
        self._client = [*base, "-o", "ControlMaster=no", "-o", "ProxyCommand=false"]
        self._there = f"{_USER}@{address}"
        self._said: deque[str] = deque(maxlen=20)
        self._process = subprocess.Popen(
            [*base, "-M", "-T", self._there, f"echo {_WORD.decode()}; exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=kernel.die_with_parent,
        )
        assert self._process.stderr is not None
        self._reader = threading.Thread(target=self._listen, args=(self._process.stderr,), daemon=True)
        self._reader.start()

    @classmethod
    def connect(cls, address: str, keys: Keys, folder: Path, deadline: Deadline) -> Shell:
        """Connect and authenticate; the guest's host key must be the run's.

        ``folder`` is made, for the keys and the connection's socket; it is to be in a private place.
        """
        folder.mkdir(mode=0o700)
        (folder / "key").touch(mode=0o600)
        (folder / "key").write_bytes(keys.client_key())
        (folder / "known_hosts").write_bytes(keys.known_hosts(address))
        shell = cls(address, folder)
        try:
            shell._wait_until_ready(deadline)
        except BaseException:
            shell.close()
            raise
        return shell

    def _wait_until_ready(self, deadline: Deadline) -> None:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], deadline.timeout())[0]:
            raise DeadlineExceeded(f"{deadline.what}: the guest's ssh server does not answer")
        if self._process.stdout.readline().strip() == _WORD:
            return
        self._reader.join(deadline.timeout())
        said = "\n".join(self._said)
        if "Host key verification failed" in said:
            raise MachineryError(
                f"{self._there} shows another host key than the one that this run gave to its guest",
                hint="something else answers at the guest's address, or its image ignores the run's key",
            )
        raise GuestLost(f"ssh with the guest failed: {said or f'status {self._process.wait()}'}")

    def _listen(self, errors: IO[bytes]) -> None:
        for line in errors:
            self._said.append(line.decode(errors="replace").rstrip())

    def __enter__(self) -> Shell:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection."""
        self._process.kill()
        # Waits, and closes our ends of its streams.
        with self._process:
            pass

    def run(self, command: Sequence[str], deadline: Deadline) -> Outcome:
        """Run a command in the guest and wait for its end."""
        line = shlex.join(command)
        try:
            done = subprocess.run(
                [*self._client, "-T", self._there, line],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=deadline.timeout(),
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise DeadlineExceeded(f"{deadline.what}: {line!r} in the guest has not ended") from None
        self._demand_connection(done.returncode, repr(line))
        return Outcome(
            line, done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        )

    def attach(self) -> int:
        """A shell on this process's own streams; returns its exit status.

        On a terminal it is interactive: every key goes to the guest, Ctrl-C among them.  Otherwise
        commands are read from standard input.
        """
        words = ["-t", self._there] if sys.stdin.isatty() else ["-T", self._there, "/bin/sh"]
        with subprocess.Popen([*self._client, *words], preexec_fn=kernel.die_with_parent) as process:
            # The window's size is told to the command, which is not of the terminal's session.
            before = signal.signal(signal.SIGWINCH, lambda *_: process.send_signal(signal.SIGWINCH))
            try:
                status = process.wait()
            except BaseException:
                process.terminate()
                raise
            finally:
                signal.signal(signal.SIGWINCH, before)
        self._demand_connection(status, "the shell")
        return status

    def _demand_connection(self, status: int, what: str) -> None:
        """Raise :class:`GuestLost` if a command ended with ssh's own status, and the connection with it."""
        if status == _SSH_FAILED:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_SECONDS)
                raise GuestLost(f"the ssh session ended during {what}")
