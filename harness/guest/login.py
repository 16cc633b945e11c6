# SPDX-License-Identifier: GPL-2.0-or-later
"""How a user of the guest's own logs in by ssh: read from files of the user's, before anything boots."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from harness.errors import InputError
from harness.reading import read_bounded, read_text

if TYPE_CHECKING:
    import paramiko

    from harness.scenario.guest_ssh import GuestSsh

#: Bytes of a private key (16384 bits of RSA are 13 KiB), of a password, and of a file of host keys.
_MOST_KEY: Final = 64 << 10
_MOST_PASSWORD: Final = 4 << 10
_MOST_KNOWN: Final = 1 << 20


class LoginError(InputError):
    """A file of ``guest.ssh`` is wrong: ``key`` is the one that names it."""

    def __init__(self, key: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.key = key


@dataclass(frozen=True, slots=True)
class HostKey:
    """A public key of a server: its kind (``ssh-ed25519``), and the key as ssh sends it (RFC 4253, 6.6)."""

    kind: str
    blob: bytes


@dataclass(frozen=True, slots=True)
class Login:
    """Who logs in, by what, and which host keys the server may show: none of them, the first one."""

    user: str
    host_keys: tuple[HostKey, ...]
    key: paramiko.PKey | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)


def read_login(ssh: GuestSsh) -> Login:
    """Read the files that ``guest.ssh`` names.  Raises :class:`LoginError` for what they are not."""
    known = ssh.files
    return Login(
        ssh.user,
        _host_keys(Path(ssh.host_key)) if "host_key" in known else (),
        None if ssh.key is None else _private_key(Path(ssh.key)),
        None if ssh.password_file is None else _password(Path(ssh.password_file)),
    )


def _private_key(path: Path) -> paramiko.PKey:
    import paramiko

    what = "a private key"
    try:
        read_bounded(path, _MOST_KEY, what)
        return paramiko.PKey.from_path(path)
    except (TypeError, paramiko.PasswordRequiredException) as error:
        # cryptography says it by a TypeError, which it has for nothing else here.
        raise LoginError(
            "key",
            f"the private key {path} has a passphrase, and nobody is asked for one",
            hint=f"ssh-keygen -p -N '' -f COPY takes it away from a copy of {path}",
        ) from error
    except InputError as error:
        raise LoginError("key", error.message, hint=error.hint) from error
    except Exception as error:
        # What is raised for a file that is no key is any of a dozen.
        hint = "it is the one without .pub; ssh-keygen -t ed25519 makes a pair"
        raise LoginError("key", f"{path} is no private key that ssh-keygen writes", hint=hint) from error


def _password(path: Path) -> str:
    try:
        line, _, _ = read_text(path, _MOST_PASSWORD, "a password").partition("\n")
    except InputError as error:
        raise LoginError("password_file", error.message, hint=error.hint) from error
    if not line:
        raise LoginError("password_file", f"{path}: its first line, which is the password, is empty")
    return line


def _host_keys(path: Path) -> tuple[HostKey, ...]:
    try:
        lines = read_text(path, _MOST_KNOWN, "a file of public host keys").splitlines()
    except InputError as error:
        raise LoginError("host_key", error.message, hint=error.hint) from error
    keys = []
    for number, line in enumerate(lines, 1):
        words = line.split()
        # A marker is one of a certificate's authority, or of a key that must not be taken.
        if words and not words[0].startswith(("#", "@")):
            key = _host_key(words) or _host_key(words[1:])
            if key is None:
                raise LoginError("host_key", f"{path}:{number}: no public key, and no line of known_hosts")
            keys.append(key)
    if not keys:
        hint = "the image's /etc/ssh/ssh_host_*_key.pub have them, as has a known_hosts; or say first-shown"
        raise LoginError("host_key", f"{path} has no public host key", hint=hint)
    return tuple(keys)


def _host_key(words: list[str]) -> HostKey | None:
    if len(words) < 2:
        return None
    try:
        blob = base64.b64decode(words[1], validate=True)
    except (binascii.Error, ValueError):
        return None
    kind = words[0]
    # The blob begins with its kind, and the kind's length.
    return HostKey(kind, blob) if blob[4 : 4 + len(kind)] == kind.encode() else None
