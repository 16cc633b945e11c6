# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether Debian has signed a list: checked by sqv or gpgv, against Debian's keys.

A clear-signed file is cut here into its text and its signature, and what the program has checked is
exactly the text that is read then.  What stands around it is refused: a program that checks the whole
file may well have checked another part of it than is read.
"""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Final

from harness.errors import MachineryError
from harness.invoke import bound_to_us
from harness.toolchain.run import build_environment, find_program, search_path

#: Where distributions have the package with Debian's keys; it is newer than what we carry.
KEYRINGS: Final = (
    Path("/usr/share/keyrings/debian-archive-keyring.gpg"),
    Path("/usr/share/keyrings/debian-archive-keyring.pgp"),
)
_CARRIED: Final = "debian_keys.asc"

_SECONDS: Final = 60.0
_BEGIN: Final = b"-----BEGIN PGP SIGNED MESSAGE-----"
_SIGNATURE: Final = b"-----BEGIN PGP SIGNATURE-----"
_END: Final = b"-----END PGP SIGNATURE-----"
_ARMORED: Final = re.compile(
    r"^-----BEGIN PGP PUBLIC KEY BLOCK-----\n(?:[^\n]+\n)*\n"
    r"([A-Za-z0-9+/=\n]+?)\n(?:=[A-Za-z0-9+/]{4}\n)?-----END",
    re.MULTILINE,
)
#: By these nothing is proved any more; sqv knows that by itself.
_WEAK: Final = ("MD5", "SHA1", "RIPEMD160")


def signed_text(data: bytes, name: str) -> bytes:
    """The text of a clear-signed file, if one of Debian's keys has signed it.

    ``name`` is what the file is called in an error.  Raises :class:`MachineryError` for anything else.
    """
    text, signature = _cut(data, name)
    with tempfile.TemporaryDirectory(prefix="fp-") as folder:
        place = Path(folder)
        (place / "text").write_bytes(text)
        (place / "signature").write_bytes(signature)
        keyring = next((path for path in KEYRINGS if path.is_file()), None)
        if keyring is None:
            keyring = place / "keys"
            keyring.write_bytes(carried_keys())
        signers, said = _signers(place, keyring)
    if not signers:
        raise MachineryError(
            f"{name} is not signed by Debian: nothing from there can be trusted\n{said}".rstrip(),
            hint="is it a whole copy of Debian's archive? A newer debian-archive-keyring may know newer keys",
        )
    return text


def carried_keys() -> bytes:
    """The keys that the project carries, as sqv and gpgv read a keyring."""
    text = resources.files("harness.toolchain").joinpath(_CARRIED).read_text("ascii")
    return b"".join(base64.b64decode(block, validate=False) for block in _ARMORED.findall(text))


def _cut(data: bytes, name: str) -> tuple[bytes, bytes]:
    """Text and signature of a clear-signed file (RFC 9580, section 7)."""
    lines = [line.rstrip(b" \t\r") for line in data.rstrip().split(b"\n")]
    try:
        begin, end = lines.index(b""), lines.index(_SIGNATURE)
    except ValueError:
        begin, end = 0, 0
    header, body, signature = lines[:begin], lines[begin + 1 : end], lines[end:]
    whole = (
        header[:1] == [_BEGIN]
        and all(line.startswith(b"Hash: ") for line in header[1:])
        and signature[-1:] == [_END]
        # Dashes at a line's beginning are escaped: what is not may be read in two ways.
        and all(line.startswith(b"- ") for line in body if line.startswith(b"-"))
        and not any(line.startswith(b"-----") for line in signature[1:-1])
    )
    if not whole:
        raise MachineryError(f"{name} is not one clear-signed text: it is cut, or something else")
    text = b"\n".join(line.removeprefix(b"- ") for line in body)
    return text, b"\n".join(signature) + b"\n"


def _signers(place: Path, keyring: Path) -> tuple[list[str], str]:
    """Fingerprints of the keys whose signatures are good, and what the program has said."""
    files = [str(place / "signature"), str(place / "text")]
    if shutil.which("sqv", path=search_path()) is not None:
        done = _run(["sqv", "--keyring", str(keyring), *files])
        return (done.stdout.split() if done.returncode == 0 else []), done.stderr
    weak = [word for name in _WEAK for word in ("--weak-digest", name)]
    # It would make its home if it were not there.
    home = ["--homedir", str(place)]
    done = _run(["gpgv", *home, "--status-fd", "1", *weak, "--keyring", str(keyring), *files])
    # Its exit status is bad if one signer of several is unknown: Debian signs with next year's key, too.
    return list(_good(done.stdout)), done.stderr


def _good(status: str) -> Iterator[str]:
    """Of gpgv's status lines: who has signed, with a key that has neither expired nor been revoked."""
    good = False
    for line in status.splitlines():
        word, _, rest = line.removeprefix("[GNUPG:] ").partition(" ")
        if word == "NEWSIG":
            good = False
        elif word == "GOODSIG":
            good = True
        elif word == "VALIDSIG" and good:
            yield rest.split()[-1]
            good = False


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    command[0] = str(find_program(command[0]))
    try:
        return subprocess.run(
            bound_to_us(command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            env=build_environment(),
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise MachineryError(f"cannot check a signature: {command[0]} took over {_SECONDS:g} s") from error
