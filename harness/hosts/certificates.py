# SPDX-License-Identifier: GPL-2.0-or-later
"""Certificates for an encrypted migration between the two hosts: made for one run, gone with it.

QEMU reads them from one folder on each host, by fixed names, and the source
checks the destination's against the address that it connects to.  It also checks
what each may be used for (qcrypto_tls_creds_check_cert_key_usage() and ..._purpose()
in its crypto/tlscredsx509.c), and takes trustme's: an authority that signs, and hosts
that are servers and clients both.  Beside them is a key that both hosts share, for those who use that (PSK;
crypto/tlscredspsk.c).
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Final

#: Whom a QEMU that connects says it is, where nobody told it.
PSK_USER: Final = "qemu"


def write_certificates(folders: Sequence[Path], addresses: Sequence[str]) -> None:
    """Make an authority and a shared key, and write what each host needs; one folder a host."""
    # Only such a run pays for the import.
    import trustme

    authority = trustme.CA(path_length=0)
    shared = f"{PSK_USER}:{secrets.token_hex(32)}\n"
    for folder, address in zip(folders, addresses, strict=True):
        folder.mkdir(mode=0o700)
        authority.cert_pem.write_to_path(folder / "ca-cert.pem")
        own = authority.issue_cert(address)
        _write_secret(folder / "keys.psk", shared.encode())
        for role in ("server", "client"):
            own.cert_chain_pems[0].write_to_path(folder / f"{role}-cert.pem")
            _write_secret(folder / f"{role}-key.pem", own.private_key_pem.bytes())


def _write_secret(path: Path, content: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(content)
