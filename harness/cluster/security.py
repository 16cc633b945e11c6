# SPDX-License-Identifier: GPL-2.0-or-later
"""Certificates of a cluster, and what may be done without any."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from harness.errors import InputError

if TYPE_CHECKING:
    from distributed import Security

_CA: Final = "ca.pem"
_CERTIFICATE: Final = "cert.pem"
_KEY: Final = "key.pem"
#: Whom the certificate is for.  Dask asks for the authority's name on it, and for no host's.
_CLUSTER: Final = "freepage-testbed.invalid"


def write_cluster_certificates(folder: Path) -> None:
    """Make an authority of the cluster's own, and the one certificate that all its members show.

    The authority's key is not kept.  Raises :class:`InputError` if the folder cannot be made.
    """
    import trustme

    try:
        folder.mkdir(mode=0o700, parents=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {folder}: {error.strerror}") from error
    authority = trustme.CA(path_length=0)
    own = authority.issue_cert(_CLUSTER)
    authority.cert_pem.write_to_path(folder / _CA)
    own.cert_chain_pems[0].write_to_path(folder / _CERTIFICATE)
    key = folder / _KEY
    key.touch(mode=0o600)
    key.write_bytes(own.private_key_pem.bytes())


def security_of(folder: Path | None) -> Security | None:
    """What Dask is to encrypt with.  Raises :class:`InputError` for a folder without certificates."""
    from distributed import Security

    if folder is None:
        return None
    files = {name: folder / name for name in (_CA, _CERTIFICATE, _KEY)}
    for path in files.values():
        if not path.is_file():
            raise InputError(f"{path}: there is no such file", hint="freepage cluster certificates DIR")
    if files[_KEY].stat().st_mode & 0o077:
        raise InputError(f"others can read {files[_KEY]}", hint=f"chmod 600 {files[_KEY]}")
    roles = {}
    for role in ("client", "scheduler", "worker"):
        roles[f"tls_{role}_cert"] = str(files[_CERTIFICATE])
        roles[f"tls_{role}_key"] = str(files[_KEY])
    return Security(tls_ca_file=str(files[_CA]), require_encryption=True, **roles)


def demand_safe(host: str, tls: Path | None, what: str) -> None:
    """Raise :class:`InputError` for another machine without certificates."""
    if tls is None and not _is_loopback(host):
        raise InputError(
            f"{what}: whoever reaches it could run programs on all workers",
            hint="freepage cluster certificates DIR makes certificates; give --tls DIR to all of the cluster",
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
