# SPDX-License-Identifier: GPL-2.0-or-later
"""One ssh connection to a remote host, by OpenSSH's own client.

Not by paramiko, which gives the shell in a guest (:mod:`harness.guest.shell`).  Keys, agents,
certificates, jump hosts and known hosts are as the user's ``ssh`` has them, because it *is* the user's
ssh; of these, paramiko knows neither ``ProxyJump`` nor ``Include`` nor keys in hardware.  Monitors and the
migration's stream go through unix sockets that are forwarded in both ways, and paramiko rejects the
channels of those that a host forwards to us (``forwarded-streamlocal@openssh.com``).

One process a host: it runs our deputy over there, and later takes forwardings on its control socket.

Nothing is ever asked: no password, no passphrase, no "are you sure".  A host key
that is not known is refused.
"""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import threading
from collections import deque
from pathlib import Path
from typing import IO, Final

from harness.errors import FreepageError, InputError, MachineryError
from harness.hosts import kernel
from harness.scenario.remote_uri import RemoteUri

#: Seconds until a host must have answered, and after which a silent one is given up.
SSH_SECONDS: Final = 20
ALIVE_EVERY: Final = 5
ALIVE_TIMES: Final = 4

_OPTIONS: Final = (
    "BatchMode=yes",
    "StrictHostKeyChecking=yes",
    "UpdateHostKeys=no",
    f"ConnectTimeout={SSH_SECONDS}",
    f"ServerAliveInterval={ALIVE_EVERY}",
    f"ServerAliveCountMax={ALIVE_TIMES}",
    "ControlMaster=yes",
    "ControlPersist=no",
    # What a user's configuration may add for people, and would be in the way of a program.
    "ClearAllForwardings=yes",
    "ForwardAgent=no",
    "ForwardX11=no",
    "PermitLocalCommand=no",
    "RemoteCommand=none",
    "RequestTTY=no",
    "EscapeChar=none",
    "SessionType=default",
    "StreamLocalBindUnlink=yes",
)

#: Takes the deputy from standard input, and becomes it.  One line, and nothing that any login shell
#: would change.
_BOOT: Final = (
    "import os,sys,tempfile as t;f=sys.stdin.buffer;n=int(f.readline());b=f.read(n);"
    "len(b)==n or sys.exit(1);d=t.mkdtemp(prefix='freepage-deputy-');p=os.path.join(d,'deputy.zip');"
    "open(p,'wb').write(b);os.execv(sys.executable,[sys.executable,'-I',p,d])"
)

_PYTHON: Final = re.compile(r"[A-Za-z0-9_./+-]+")

#: What ssh says, what it means, and what to do: patterns of its messages, in the order of their weight.
_MEANINGS: Final[tuple[tuple[str, type[FreepageError], str, str], ...]] = (
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED",
        InputError,
        "{place} shows another host key than the one that known_hosts has",
        "find out why before anything else; then ssh-keygen -R HOST, and accept the new key by hand",
    ),
    (
        r"Host key verification failed|host key is known for",
        InputError,
        "the host key of {place} is not known, and unknown keys are never accepted here",
        "connect once by hand (ssh {place}) and compare the fingerprint, or put the key into known_hosts",
    ),
    (
        r"Permission denied|Too many authentication failures|no such identity",
        InputError,
        "{place} does not let us in: authentication failed",
        "ssh {place} must work without a question: by a key of ssh's agent or of its configuration",
    ),
    (
        r"Could not resolve hostname",
        InputError,
        "there is no host named {host}",
        "give the name or address that ssh reaches it by",
    ),
    (
        r"Bad configuration option|Can't open user config file|terminating, .* bad configuration",
        InputError,
        "ssh does not like its configuration",
        "look at what ssh says above",
    ),
    (
        r"Connection refused|timed out|No route to host|is unreachable|Connection closed|reset by peer",
        MachineryError,
        "{place} cannot be reached by ssh",
        "is it switched on, does sshd run there, and is the port right?",
    ),
    (
        r"not found|No such file or directory|Unknown command",
        InputError,
        "{place} has no Python that is called {python}",
        "install python3 there, or name one with remote.python",
    ),
)


class SshConnection:
    """The ssh process of one host.  Forwardings come and go while it lives."""

    def __init__(self, uri: RemoteUri, folder: Path, *, config: Path | None, python: str = "python3") -> None:
        """``folder``: a private one of ours, with a short path; ``config``: for ``ssh -F``."""
        self.uri = uri
        self._control = folder / "control"
        self._python = python
        self._config = ["-F", str(config)] if config is not None else []
        self._said: deque[str] = deque(maxlen=50)
        if not _PYTHON.fullmatch(python):
            raise InputError(f"expected the name or path of a Python, got {python!r}")
        if len(str(self._control)) > 80:
            # ssh binds it under a longer name first, and a socket's name has 107 characters.
            raise MachineryError(
                f"{folder} is too long a name for sockets", hint="set TMPDIR to something shorter"
            )
        self._process = subprocess.Popen(
            self._command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Ctrl-C is for us: the connection is needed to wind up.
            start_new_session=True,
            preexec_fn=kernel.die_with_parent,
        )
        self._reader = threading.Thread(target=self._listen, name=f"ssh-{uri.host}", daemon=True)
        self._reader.start()

    def _command(self) -> list[str]:
        options = [word for option in _OPTIONS for word in ("-o", option)]
        if self.uri.user is not None:
            options += ["-l", self.uri.user]
        if self.uri.port is not None:
            options += ["-p", str(self.uri.port)]
        there = f'exec {self._python} -I -c "{_BOOT}"'
        return ["ssh", *self._config, *options, "-S", str(self._control), "--", self.uri.host, there]

    @property
    def stdin(self) -> IO[bytes]:
        """The pipe to the deputy."""
        assert self._process.stdin is not None
        return self._process.stdin

    @property
    def stdout(self) -> IO[bytes]:
        """The pipe from the deputy."""
        assert self._process.stdout is not None
        return self._process.stdout

    def _listen(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._said.append(line.decode(errors="replace").rstrip())

    def said(self) -> tuple[str, ...]:
        """What ssh, and whatever ran at the other end, printed on standard error."""
        return tuple(self._said)

    def why(self) -> FreepageError:
        """Why there is no connection, in words.  To be called when the process has ended, or is about to."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        self._reader.join(5)
        text = "\n".join(self._said)
        names = {"place": self.uri.place, "host": self.uri.host, "python": self._python}
        for pattern, kind, message, hint in _MEANINGS:
            if re.search(pattern, text):
                said = next(line for line in self._said if re.search(pattern, line))
                return kind(f"{message.format(**names)}: {said.strip('@ ')}", hint=hint.format(**names))
        last = self._said[-1] if self._said else f"ssh ended with status {self._process.returncode}"
        return MachineryError(f"the connection to {self.uri.place} could not be made: {last}")

    @property
    def ended(self) -> bool:
        """Whether the ssh process has ended."""
        return self._process.poll() is not None

    def forward_here(self, here: Path, there: str) -> None:
        """Listen at ``here``, and connect to ``there`` on the host for whoever comes."""
        self._forward("-L", f"{here}:{there}")

    def forward_there(self, there: str, here: Path) -> None:
        """Have the host listen at ``there``, and connect to ``here`` for whoever comes."""
        self._forward("-R", f"{there}:{here}")

    def _forward(self, way: str, what: str) -> None:
        done = subprocess.run(
            ["ssh", *self._config, "-S", str(self._control), "-O", "forward", way, what, "--", self.uri.host],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SSH_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise self._no_forwarding(said[-1] if said else what)

    def demand_forwarding(self, greeter: str, here: Path) -> None:
        """Raise unless both ways work: listening there, and connecting to ``greeter``, who speaks first."""
        self.forward_there(f"{greeter}.there", here.with_suffix(".there"))
        self.forward_here(here, greeter)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(SSH_SECONDS)
            try:
                client.connect(str(here))
                heard = client.recv(1)
            except OSError as error:
                raise self._no_forwarding(str(error)) from error
        if not heard:
            # ssh listens here in any case, and hangs up when the server will not connect.
            raise self._no_forwarding("it does not connect to one for us")

    def _no_forwarding(self, said: str) -> InputError:
        return InputError(
            f"sshd on {self.uri.place} does not forward unix sockets: {said}",
            hint="AllowStreamLocalForwarding yes and AllowTcpForwarding yes in its sshd_config, "
            "and no DisableForwarding",
        )

    def close(self, seconds: float = 5) -> None:
        """End the connection."""
        with contextlib.suppress(OSError):
            self.stdin.close()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.terminate()
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._reader.join(seconds)
        self.stdout.close()
