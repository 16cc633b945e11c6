# SPDX-License-Identifier: GPL-2.0-or-later
"""ssh into the guest, with keys of the run's own on both sides.

Nobody is trusted on first use: the guest gets its host key from us, in a cpio
archive behind its initrd, and the client accepts that key alone.

    keys = Keys.generate()
    overlay = keys.guest_files()            # path -> content, into the guest's initrd
    with Shell.connect(address, keys, deadline) as shell:
        assert shell.run(["uname", "-r"], deadline).check().startswith("6.")
"""

from __future__ import annotations

import base64
import io
import shlex
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from harness.errors import DeadlineExceeded, GuestLost, MachineryError
from harness.events import Deadline

if TYPE_CHECKING:
    import paramiko

_KIND: Final = b"ssh-ed25519"
_PORT: Final = 22
_USER: Final = "root"

#: Where the guest's dropbear expects them (paths in the initramfs).
HOST_KEY: Final = "etc/dropbear/dropbear_ed25519_host_key"
AUTHORIZED_KEYS: Final = "root/.ssh/authorized_keys"
#: Where a guest on a disk has them at first (vm-images/guest/stage.c).
OPENSSH_HOST_KEY: Final = "etc/ssh/ssh_host_ed25519_key"


def _raw_public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def _string(content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + content


def public_blob(key: Ed25519PrivateKey) -> bytes:
    """The public key as ssh sends it (RFC 8709)."""
    return _string(_KIND) + _string(_raw_public(key))


def dropbear_key(key: Ed25519PrivateKey) -> bytes:
    """The private key in dropbear's own file format: the seed and the public key behind the kind's name."""
    seed = key.private_bytes(
        serialization.Encoding.Raw, serialization.PrivateFormat.Raw, serialization.NoEncryption()
    )
    return _string(_KIND) + _string(seed + _raw_public(key))


@dataclass(frozen=True, slots=True)
class Keys:
    """The two key pairs of one run: the guest's and the client's."""

    host: Ed25519PrivateKey
    client: Ed25519PrivateKey

    @classmethod
    def generate(cls) -> Keys:
        """New ones."""
        return cls(Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate())

    def authorized_keys(self) -> bytes:
        """The line that lets the client in."""
        return _KIND + b" " + base64.b64encode(public_blob(self.client)) + b" freepage\n"

    def known_hosts(self, address: str) -> bytes:
        """The line that makes OpenSSH's client accept the guest, and nobody else."""
        return address.encode() + b" " + _KIND + b" " + base64.b64encode(public_blob(self.host)) + b"\n"

    def client_key(self) -> bytes:
        """The client's private key in OpenSSH's format, for ``ssh -i``."""
        return self.client.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )

    def host_key(self) -> bytes:
        """The guest's private key in OpenSSH's format."""
        return self.host.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )

    def openssh_files(self) -> Mapping[str, bytes]:
        """The same for a guest with OpenSSH, whose first stage carries them over to its disk's root."""
        return {OPENSSH_HOST_KEY: self.host_key(), AUTHORIZED_KEYS: self.authorized_keys()}

    def guest_files(self) -> Mapping[str, bytes]:
        """What the guest needs, by path in its root file system; all of it mode 0600."""
        return {HOST_KEY: dropbear_key(self.host), AUTHORIZED_KEYS: self.authorized_keys()}


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
    """An ssh session with the guest.  It outlives a migration."""

    def __init__(self, transport: paramiko.Transport) -> None:
        self._transport = transport

    @classmethod
    def connect(cls, address: str, keys: Keys, deadline: Deadline) -> Shell:
        """Connect and authenticate; the guest's host key must be the run's."""
        # Imported here: it takes a moment, and only some runs use ssh.
        import paramiko

        try:
            connection = socket.create_connection((address, _PORT), deadline.timeout())
        except TimeoutError:
            raise DeadlineExceeded(f"{deadline.what}: the guest's ssh port does not answer") from None
        except OSError as error:
            raise GuestLost(f"cannot reach the guest's ssh server at {address}: {error}") from error
        transport = paramiko.Transport(connection)
        try:
            # Only the kind of key that the guest has: it may have made others of its own.
            transport.get_security_options().key_types = ("ssh-ed25519",)
            transport.start_client(timeout=deadline.timeout())
            offered = transport.get_remote_server_key()
            if offered.asbytes() != public_blob(keys.host):
                raise MachineryError(
                    f"{address} shows another host key than the one that this run gave to its guest",
                    hint="something else answers at the guest's address, or its image ignores the run's key",
                )
            client = paramiko.Ed25519Key(file_obj=io.StringIO(keys.client_key().decode()))
            transport.auth_publickey(_USER, client)
        except paramiko.SSHException as error:
            transport.close()
            raise GuestLost(f"ssh with the guest failed: {error}") from error
        except BaseException:
            transport.close()
            raise
        return cls(transport)

    def __enter__(self) -> Shell:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._transport.close()

    @property
    def transport(self) -> paramiko.Transport:
        """For an interactive channel."""
        return self._transport

    def run(self, command: Sequence[str], deadline: Deadline) -> Outcome:
        """Run a command in the guest and wait for its end."""
        line = shlex.join(command)
        channel = self._transport.open_session(timeout=deadline.timeout())
        with channel:
            channel.settimeout(deadline.timeout())
            channel.exec_command(line)
            channel.shutdown_write()
            try:
                stdout, stderr = _drain(channel, deadline)
            except TimeoutError:
                raise DeadlineExceeded(f"{deadline.what}: {line!r} in the guest has not ended") from None
            status = channel.recv_exit_status()
        if status == -1 and not self._transport.is_active():
            raise GuestLost(f"the ssh session ended during {line!r}")
        return Outcome(line, status, stdout.decode(errors="replace"), stderr.decode(errors="replace"))


def _drain(channel: paramiko.Channel, deadline: Deadline) -> tuple[bytes, bytes]:
    """Both outputs, to their ends.  They share one window: neither may be left to fill up."""
    import threading

    collected: list[bytes] = []

    def errors() -> None:
        while data := channel.recv_stderr(65536):
            collected.append(data)

    reader = threading.Thread(target=errors, daemon=True)
    reader.start()
    output: list[bytes] = []
    while True:
        channel.settimeout(deadline.timeout())
        data = channel.recv(65536)
        if not data:
            break
        output.append(data)
    reader.join(deadline.timeout())
    return b"".join(output), b"".join(collected)
