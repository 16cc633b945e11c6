# SPDX-License-Identifier: GPL-2.0-or-later
"""The lists of Debian's suites, as one mirror has them: fetched, checked, read.

InRelease is signed by Debian and has the size and SHA-256 of every list; a list has those of every
package.  Nothing is believed for lying in the cache: signature and sums are checked each time that
lists are read from there.
"""

from __future__ import annotations

import email.utils
import hashlib
import lzma
import re
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from debian.deb822 import Release

from harness.errors import MachineryError
from harness.events import EventStream
from harness.toolchain.control import Paragraphs
from harness.toolchain.download import NotThere, Promise, download
from harness.toolchain.signatures import signed_text

_COMPONENT: Final = "main"
#: Bytes that a list may have: today 60 million are the most.
_MOST: Final = 1 << 29
_MOST_RELEASE: Final = 4 << 20


class Lists:
    """The lists of some suites, for one architecture, in a folder of the cache."""

    def __init__(self, folder: Path, suites: Sequence[str], architecture: str, events: EventStream) -> None:
        self.folder = folder
        self.suites = tuple(suites)
        self._architecture = architecture
        self._events = events

    @property
    def age(self) -> float | None:
        """Seconds since they were fetched; None if they are not there."""
        stamp = self.folder / "mirror"
        return time.time() - stamp.stat().st_mtime if stamp.exists() else None

    def forget(self) -> None:
        """Fetch them at the next question."""
        (self.folder / "mirror").unlink(missing_ok=True)

    @property
    def mirror(self) -> str:
        """Where they came from."""
        return (self.folder / "mirror").read_text("utf-8").strip()

    def fetch(self, mirror: str) -> None:
        """Fetch them anew; those that were there stay until the new ones are whole."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        for left in self.folder.parent.glob("new.*"):  # by one that was killed: we have the lock
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix="new.", dir=self.folder.parent) as name:
            new = Lists(Path(name) / "lists", self.suites, self._architecture, self._events)
            new.folder.mkdir()
            for suite in self.suites:
                address = f"{mirror}/dists/{suite}/InRelease"
                download(
                    address, new.folder / f"{suite}.InRelease", None, events=self._events, most=_MOST_RELEASE
                )
                release = new._release(suite)
                self._say_expired(suite, release)
                for path in self._binary_names(release):
                    new._fetch_list(mirror, suite, release, path)
            (new.folder / "mirror").write_text(f"{mirror}\n", encoding="utf-8")
            shutil.rmtree(self.folder, ignore_errors=True)
            new.folder.rename(self.folder)

    def binary(self) -> list[Paragraphs]:
        """What each suite says of its packages, in the suites' order."""
        found = []
        for suite in self.suites:
            release = self._release(suite)
            found += [self._read(suite, release, path) for path in self._binary_names(release)]
        return found

    def source(self) -> list[Paragraphs]:
        """What each suite says of its sources; fetched when first asked for."""
        found = []
        for suite in self.suites:
            release, path = self._release(suite), f"{_COMPONENT}/source/Sources"
            if not self._file(suite, path).exists():
                self._fetch_list(self.mirror, suite, release, path)
            found.append(self._read(suite, release, path))
        return found

    def _file(self, suite: str, path: str) -> Path:
        return self.folder / f"{suite}.{path.replace('/', '_')}.xz"

    def _release(self, suite: str) -> Release:
        file = self.folder / f"{suite}.InRelease"
        name = f"the Release file of Debian {suite}"
        release = Release(signed_text(file.read_bytes(), name))
        # Another suite's is signed as well.
        if suite not in (release.get("Suite"), release.get("Codename")):
            raise MachineryError(
                f"{name} is that of {release.get('Codename')}: the mirror is not what it says"
            )
        return release

    def _binary_names(self, release: Release) -> list[str]:
        names = [self._architecture]
        # Debian's have packages for all architectures in the list of each one.
        if "Packages" not in str(release.get("No-Support-for-Architecture-all", "")).split() and _promise(
            release, f"{_COMPONENT}/binary-all/Packages.xz"
        ):
            names.append("all")
        return [f"{_COMPONENT}/binary-{name}/Packages" for name in names]

    def _fetch_list(self, mirror: str, suite: str, release: Release, path: str) -> None:
        promise = _demand(release, f"{path}.xz", suite)
        file, base = self._file(suite, path), f"{mirror}/dists/{suite}"
        part = file.with_suffix(".part")
        # By its sum: what it is called by name may just be replaced.
        by_hash = f"{base}/{path.rpartition('/')[0]}/by-hash/SHA256/{promise.sha256}"
        try:
            if str(release.get("Acquire-By-Hash", "")).lower() != "yes":
                raise NotThere(by_hash)
            download(by_hash, part, promise, events=self._events)
        except NotThere:
            download(f"{base}/{path}.xz", part, promise, events=self._events)
        part.rename(file)

    def _read(self, suite: str, release: Release, path: str) -> Paragraphs:
        packed = self._file(suite, path).read_bytes()
        promise = _demand(release, f"{path}.xz", suite)
        if (len(packed), hashlib.sha256(packed).hexdigest()) != (promise.size, promise.sha256):
            raise MachineryError(
                f"a list of Debian {suite} is damaged in the cache ({self._file(suite, path)})",
                hint="freepage build --update fetches it anew",
            )
        unpacker = lzma.LZMADecompressor()
        try:
            text = unpacker.decompress(packed, _MOST)
        except lzma.LZMAError as error:
            raise MachineryError(f"a list of Debian {suite} cannot be unpacked: {error}") from error
        if not unpacker.eof:
            raise MachineryError(f"a list of Debian {suite} has no end, or over {_MOST >> 20} MiB")
        return Paragraphs(text)

    def _say_expired(self, suite: str, release: Release) -> None:
        until = release.get("Valid-Until")
        if until is None:
            return
        parsed = email.utils.parsedate_to_datetime(str(until))
        if parsed.timestamp() < time.time():
            # A mirror that is behind, or one that is kept as it was.  It is signed all the same.
            text = f"the lists of Debian {suite} have expired ({until}): what they name may be gone"
            self._events.emit("message", text=text)


def _promise(release: Release, path: str) -> Promise | None:
    for entry in release.get("SHA256", ()):
        if entry["name"] == path and re.fullmatch(r"[0-9a-f]{64}", entry["sha256"]):
            return Promise(int(entry["size"]), str(entry["sha256"]))
    return None


def _demand(release: Release, path: str, suite: str) -> Promise:
    promise = _promise(release, path)
    if promise is None:
        raise MachineryError(f"Debian {suite} has no list {path}")
    return promise
