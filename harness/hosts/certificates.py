# SPDX-License-Identifier: GPL-2.0-or-later
"""Certificates for an encrypted migration between the two hosts: made for one run, gone with it.

QEMU reads them from one folder on each host, by fixed names, and the source
checks the destination's against the address that it connects to.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from pathlib import Path
from typing import Final

#: Longer than any run; clocks may differ by a day.
_DAYS: Final = 7


def write_certificates(folders: Sequence[Path], addresses: Sequence[str]) -> None:
    """Make an authority, and write its and the hosts' certificates and keys; one folder a host."""
    # Only such a run pays for the import.
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    now = datetime.datetime.now(datetime.UTC)

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    def certificate(
        subject: str, key: ec.EllipticCurvePrivateKey, extensions: Sequence[tuple[x509.ExtensionType, bool]]
    ) -> bytes:
        builder = (
            x509.CertificateBuilder()
            .subject_name(name(subject))
            .issuer_name(name("freepage lab"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=_DAYS))
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(authority, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def usage(*, signs: bool) -> x509.KeyUsage:
        return x509.KeyUsage(
            digital_signature=not signs,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=signs,
            crl_sign=signs,
            encipher_only=False,
            decipher_only=False,
        )

    authority = ec.generate_private_key(ec.SECP256R1())
    root = certificate(
        "freepage lab",
        authority,
        [(x509.BasicConstraints(ca=True, path_length=0), True), (usage(signs=True), True)],
    )
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    for folder, address in zip(folders, addresses, strict=True):
        folder.mkdir(mode=0o700)
        key = ec.generate_private_key(ec.SECP256R1())
        alternative = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
        own = certificate(
            address,
            key,
            [
                (x509.BasicConstraints(ca=False, path_length=None), True),
                (usage(signs=False), True),
                (x509.ExtendedKeyUsage(purposes), False),
                (alternative, False),
            ],
        )
        secret = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        (folder / "ca-cert.pem").write_bytes(root)
        for role in ("server", "client"):
            (folder / f"{role}-cert.pem").write_bytes(own)
            (folder / f"{role}-key.pem").write_bytes(secret)
            (folder / f"{role}-key.pem").chmod(0o600)
