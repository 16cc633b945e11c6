# SPDX-License-Identifier: GPL-2.0-or-later
"""A Debian archive of a few packages in a folder, signed by a key made for it (RFC 9580, version 4)."""

from __future__ import annotations

import base64
import hashlib
import io
import lzma
import shutil
import tarfile
import time
from collections.abc import Iterable, Sequence
from email.utils import formatdate
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

_CURVE = bytes.fromhex("2b06010401da470f01")
_HASHES = {"sha1": 2, "sha256": 8}


def _packet(tag: int, body: bytes) -> bytes:
    return bytes([0xC0 | tag, 0xFF]) + len(body).to_bytes(4, "big") + body


def _number(data: bytes) -> bytes:
    value = int.from_bytes(data, "big")
    return value.bit_length().to_bytes(2, "big") + value.to_bytes((value.bit_length() + 7) // 8, "big")


def _subpacket(kind: int, data: bytes) -> bytes:
    return bytes([len(data) + 1, kind]) + data


class Key:
    """A key that signs; ``days``: how long it holds, from ten days ago on."""

    def __init__(self, *, days: int = 0) -> None:
        self._secret = Ed25519PrivateKey.generate()
        self._made = int(time.time()) - 10 * 86400
        point = b"\x40" + self._secret.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        made = self._made.to_bytes(4, "big")
        self._body = b"\x04" + made + bytes([22, len(_CURVE)]) + _CURVE + _number(point)
        self.fingerprint = hashlib.sha1(self._hashed_body()).digest()
        name = b"an archive <archive@example.org>"
        more = _subpacket(27, b"\x03")
        if days:
            more += _subpacket(9, (days * 86400).to_bytes(4, "big"))
        said = self._hashed_body() + b"\xb4" + len(name).to_bytes(4, "big") + name
        self.public = (
            _packet(6, self._body) + _packet(13, name) + self._signature(0x13, said, more, at=self._made)
        )

    def _hashed_body(self) -> bytes:
        return b"\x99" + len(self._body).to_bytes(2, "big") + self._body

    def _signature(
        self, kind: int, said: bytes, more: bytes = b"", *, digest: str = "sha256", at: int | None = None
    ) -> bytes:
        when = (at or int(time.time()) - 60).to_bytes(4, "big")
        hashed = _subpacket(2, when) + _subpacket(33, b"\x04" + self.fingerprint) + more
        head = bytes([4, kind, 22, _HASHES[digest]]) + len(hashed).to_bytes(2, "big") + hashed
        summed = hashlib.new(digest, said + head + b"\x04\xff" + len(head).to_bytes(4, "big")).digest()
        made = self._secret.sign(summed)
        issuer = _subpacket(16, self.fingerprint[-8:])
        tail = len(issuer).to_bytes(2, "big") + issuer + summed[:2] + _number(made[:32]) + _number(made[32:])
        return _packet(2, head + tail)

    def signature(self, text: str, *, digest: str = "sha256") -> bytes:
        """The signature of a text, as it stands below a clear-signed one."""
        lines = "\r\n".join(line.rstrip() for line in text.rstrip("\n").split("\n"))
        return self._signature(0x01, lines.encode(), digest=digest)


def clear_signed(text: str, keys: Sequence[Key], *, digest: str = "sha256") -> str:
    """A text signed by some keys."""
    armored = base64.encodebytes(b"".join(key.signature(text, digest=digest) for key in keys)).decode()
    escaped = "\n".join(
        f"- {line}" if line.startswith("-") else line for line in text.rstrip("\n").split("\n")
    )
    return (
        f"-----BEGIN PGP SIGNED MESSAGE-----\nHash: {digest.upper()}\n\n{escaped}\n"
        f"-----BEGIN PGP SIGNATURE-----\n\n{armored}-----END PGP SIGNATURE-----\n"
    )


def entry(
    name: str, data: bytes = b"", *, kind: bytes = tarfile.REGTYPE, mode: int = 0o644, link: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    """A member of a tarball."""
    info = tarfile.TarInfo(name)
    info.size, info.type, info.mode, info.linkname, info.mtime = len(data), kind, mode, link, 1_700_000_000
    return info, data


def tarball(members: Iterable[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """A tarball, compressed by xz."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:xz") as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return made.getvalue()


def deb(members: Iterable[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """A binary package."""
    made = b"!<arch>\n"
    parts = {
        "debian-binary": b"2.0\n",
        "control.tar.xz": tarball([entry("./control", b"Package: x\n")]),
        "data.tar.xz": tarball(members),
    }
    for name, data in parts.items():
        made += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode()
        made += data + b"\n" * (len(data) % 2)
    return made


def _sums(data: bytes) -> str:
    return f"{hashlib.sha256(data).hexdigest()} {len(data)}"


class SmallArchive:
    """Packages are added, then :meth:`publish` writes lists and signature; its address is ``mirror``."""

    def __init__(self, root: Path, suite: str = "small", architecture: str = "amd64") -> None:
        self.root, self.suite = root, suite
        self.key = Key()
        self.keyring = root.parent / f"{root.name}.keys"
        self.keyring.parent.mkdir(parents=True, exist_ok=True)
        self.keyring.write_bytes(self.key.public)
        self._architecture = architecture
        self._packages: list[str] = []
        self._sources: list[str] = []
        self.release: dict[str, str] = {
            "Suite": suite,
            "Codename": suite,
            "Date": formatdate(usegmt=True),
            "Acquire-By-Hash": "yes",
            "No-Support-for-Architecture-all": "Packages",
        }

    @property
    def mirror(self) -> str:
        return self.root.as_uri()

    @property
    def in_release(self) -> Path:
        return self.root / "dists" / self.suite / "InRelease"

    def place(self, name: str) -> Path:
        """Where a file of the pool is."""
        return self.root / "pool" / name

    def add(self, name: str, members: Iterable[tuple[tarfile.TarInfo, bytes]] = (), **fields: str) -> bytes:
        """Add a binary package; ``fields``: of its paragraph, ``_`` for ``-``."""
        data = deb(members)
        version = fields.setdefault("Version", "1.0")
        file = f"{name}_{version}.deb"
        self._write(self.place(file), data)
        said = {"Package": name, "Architecture": self._architecture, **fields}
        said |= {"Filename": f"pool/{file}", "Size": str(len(data)), "SHA256": _sums(data).split()[0]}
        self._packages.append("".join(f"{key.replace('_', '-')}: {value}\n" for key, value in said.items()))
        return data

    def add_source(self, name: str, version: str, files: dict[str, bytes], form: str = "3.0 (quilt)") -> None:
        """Add a source package."""
        listed = "".join(f"\n {_sums(data)} {file}" for file, data in files.items())
        dsc = f"Format: {form}\nSource: {name}\nVersion: {version}\nChecksums-Sha256:{listed}\n"
        files = {**files, f"{name}_{version}.dsc": dsc.encode()}
        for file, data in files.items():
            self._write(self.place(file), data)
        listed = "".join(f"\n {_sums(data)} {file}" for file, data in files.items())
        self._sources.append(
            f"Package: {name}\nVersion: {version}\nDirectory: pool\nChecksums-Sha256:{listed}\n"
        )

    def publish(self, *, keys: Sequence[Key] | None = None, digest: str = "sha256") -> None:
        """Write lists and signature."""
        shutil.rmtree(self.in_release.parent, ignore_errors=True)
        sums = []
        for path, paragraphs in (
            (f"main/binary-{self._architecture}/Packages.xz", self._packages),
            ("main/source/Sources.xz", self._sources),
        ):
            data = lzma.compress("\n".join(paragraphs).encode())
            sums.append(f" {_sums(data)} {path}\n")
            file = self.in_release.parent / path
            self._write(file, data)
            if self.release["Acquire-By-Hash"] == "yes":
                file.rename(self._by_hash(file, data))
        text = "".join(f"{key}: {value}\n" for key, value in self.release.items())
        text += "SHA256:\n" + "".join(sums)
        signed = clear_signed(text, [self.key] if keys is None else keys, digest=digest)
        self._write(self.in_release, signed.encode())

    def _by_hash(self, file: Path, data: bytes) -> Path:
        folder = file.parent / "by-hash" / "SHA256"
        folder.mkdir(parents=True)
        return folder / hashlib.sha256(data).hexdigest()

    @property
    def lists(self) -> list[Path]:
        """The files of the lists."""
        return [path for path in self.in_release.parent.glob("main/**/*") if path.is_file()]

    def _write(self, path: Path, data: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
