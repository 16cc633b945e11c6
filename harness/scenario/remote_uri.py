# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a remote host is: ``qemu+ssh://user@host:port/system``, as libvirt writes it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs, urlsplit

FORM: Final = "qemu+ssh://USER@HOST[:PORT]/system (or /session)"

#: What ssh may get as one word: nothing that it or a shell would take for more than a name.
_HOST: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}|[0-9a-fA-F:]+(%[A-Za-z0-9]+)?")
_USER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True, slots=True)
class RemoteUri:
    """A host that is reached by ssh.  What is None is for ssh's own configuration to say."""

    host: str
    user: str | None = None
    port: int | None = None
    session: bool = False
    #: libvirt's socket on that host, where it is not in its usual place.
    socket: str | None = None

    @classmethod
    def parse(cls, text: str) -> RemoteUri:
        """Raises :class:`ValueError`, in words, for anything that is no such URI."""
        try:
            parts = urlsplit(text)
            host, port = parts.hostname or "", parts.port
        except ValueError as error:
            raise ValueError(f"expected {FORM}, got {text!r}: {error}") from None
        if parts.scheme != "qemu+ssh" or parts.path not in ("/system", "/session") or parts.fragment:
            raise ValueError(f"expected {FORM}, got {text!r}")
        if parts.password is not None:
            raise ValueError("a password has no place in a URI: use keys, or ssh's agent")
        if not _HOST.fullmatch(host) or (parts.username is not None and not _USER.fullmatch(parts.username)):
            raise ValueError(f"expected the name of a host, and of a user, got {text!r}")
        query = parse_qs(parts.query, strict_parsing=True) if parts.query else {}
        unknown = sorted(set(query) - {"socket"})
        if unknown:
            raise ValueError(
                f"the parameter {unknown[0]!r} is not known here: keys, ports and proxies are "
                "said in ssh's configuration"
            )
        socket = query.get("socket", [None])[0]
        if socket is not None and (not socket.startswith("/") or any(c in socket for c in ":\n\0")):
            raise ValueError(f"expected the path of a socket, got {socket!r}")
        # urlsplit makes host names small, which they may be.
        return cls(host, parts.username, port, parts.path == "/session", socket)

    @property
    def place(self) -> str:
        """user@host:port, for people."""
        user = f"{self.user}@" if self.user else ""
        return f"{user}{self.host}" + (f":{self.port}" if self.port else "")

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        user = f"{self.user}@" if self.user else ""
        port = f":{self.port}" if self.port else ""
        query = f"?socket={self.socket}" if self.socket else ""
        return f"qemu+ssh://{user}{host}{port}/{'session' if self.session else 'system'}{query}"
