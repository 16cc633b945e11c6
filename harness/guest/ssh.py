# SPDX-License-Identifier: GPL-2.0-or-later
"""The keys of ssh between a run and its guest: of the run's own, on both sides.

Nobody is trusted on first use: the guest gets its host key from us, in a cpio
archive behind its initrd, and the client accepts that key alone.

    keys = Keys.generate()
    overlay = keys.guest_files()            # path -> content, into the guest's initrd

The client is in :mod:`harness.guest.shell`.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from harness.guest.login import HostKey

_KIND: Final = b"ssh-ed25519"

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
    """The two key pairs of one run: the guest's and the client's.

    A guest that was entered by its own ssh server keeps its own host key: ``shown``.
    """

    host: Ed25519PrivateKey
    client: Ed25519PrivateKey
    shown: HostKey | None = None
    user: str = "root"

    @classmethod
    def generate(cls) -> Keys:
        """New ones."""
        return cls(Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate())

    def of_guest(self, shown: HostKey, user: str) -> Keys:
        """The same for a guest that shows a host key of its own, to a user of its own."""
        return replace(self, shown=shown, user=user)

    @property
    def host_key_shown(self) -> HostKey:
        """The public key that the guest's server shows."""
        return self.shown or HostKey(_KIND.decode(), public_blob(self.host))

    def authorized_keys(self) -> bytes:
        """The line that lets the client in."""
        return _KIND + b" " + base64.b64encode(public_blob(self.client)) + b" freepage\n"

    def known_hosts(self, address: str) -> bytes:
        """The line that makes OpenSSH's client accept the guest, and nobody else."""
        key = self.host_key_shown
        return f"{address} {key.kind} {base64.b64encode(key.blob).decode()}\n".encode()

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

    def host_public(self) -> bytes:
        """The guest's public key, as a line."""
        return _KIND + b" " + base64.b64encode(public_blob(self.host)) + b" freepage\n"

    def openssh_files(self) -> Mapping[str, bytes]:
        """The same for a guest with OpenSSH, whose first stage carries them over to its disk's root."""
        return {OPENSSH_HOST_KEY: self.host_key(), AUTHORIZED_KEYS: self.authorized_keys()}

    def guest_files(self) -> Mapping[str, bytes]:
        """What the guest needs, by path in its root file system; all of it mode 0600."""
        return {HOST_KEY: dropbear_key(self.host), AUTHORIZED_KEYS: self.authorized_keys()}
