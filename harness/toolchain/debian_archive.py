# SPDX-License-Identifier: GPL-2.0-or-later
"""Packages and sources from Debian's archive, which is read by ourselves.

No apt and no dpkg is asked, so this works on any machine, for any of Debian's suites, and without root.
Signatures and sums are checked all the way down (:mod:`harness.toolchain.archive_lists`); nothing is
installed, and no package's script is run.

What was found is remembered in the cache, so that a run for which everything is built asks nobody.  It
is looked up again only when asked to (``freepage build --update``) or when a file is wanted that the
archive no longer has.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from debian.deb822 import Sources

from harness.arch import HOST, X86_64, Architecture
from harness.errors import MachineryError
from harness.toolchain.archive_lists import Lists
from harness.toolchain.cache import Cache, key_of
from harness.toolchain.control import Paragraphs
from harness.toolchain.dependencies import closure, newest
from harness.toolchain.download import NotThere, Promise, download
from harness.toolchain.source_package import unpack_source
from harness.toolchain.unpacking import unpack_deb

MIRROR_VARIABLE = "FREEPAGE_DEBIAN_MIRROR"
DEFAULT_MIRROR = "http://deb.debian.org/debian"
LISTS_GOOD_FOR = 6 * 3600.0

_UPDATE = "freepage build --update looks everything up again"


@dataclasses.dataclass(frozen=True)
class Package:
    """A binary package of a suite, as the signed index describes it."""

    name: str
    version: str
    sha256: str
    depends: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class SourcePackage:
    """A source package of a suite: version, and digests of its files by name."""

    name: str
    version: str
    files: tuple[tuple[str, str], ...]

    @property
    def upstream(self) -> str:
        """The version without epoch and Debian's revision and repack mark: ``10.0.2``."""
        version = self.version.split(":", 1)[-1].rsplit("-", 1)[0]
        return re.split(r"\+(?:ds|dfsg)", version)[0]

    @property
    def dsc(self) -> str:
        """The name of the .dsc file."""
        return next(name for name, _ in self.files if name.endswith(".dsc"))


def first_alternatives(depends: str) -> tuple[str, ...]:
    """The package names of a Depends field, the first of each group of alternatives."""
    groups = (group.split("|")[0].strip() for group in depends.split(","))
    return tuple(re.split(r"[\s:(]", group)[0] for group in groups if group)


def system_mirror(folder: Path = Path("/etc/apt")) -> str | None:
    """The Debian mirror that this machine already uses, if it is a Debian machine."""
    files = [folder / "sources.list", *sorted((folder / "sources.list.d").glob("*"))]
    for file in files:
        if file.suffix not in (".list", ".sources"):
            continue
        try:
            text = file.read_text("utf-8", errors="replace")
        except OSError:
            continue
        lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
        for address in re.findall(r"\bhttps?://[^\s\]]+", "\n".join(lines)):
            if address.rstrip("/").endswith("/debian"):
                return str(address).rstrip("/")
    return None


def mirrors() -> tuple[str, ...]:
    """Where to look, in order: what the user named, what the system uses, the default."""
    named = os.environ.get(MIRROR_VARIABLE)
    if named:
        return (named.rstrip("/"),)
    return tuple(dict.fromkeys(mirror for mirror in (system_mirror(), DEFAULT_MIRROR) if mirror))


class DebianArchive:
    """One suite of Debian.

    ``base``: the suites that it is not whole without, as trixie for trixie-backports.  What both have
    comes from ``suite``.
    """

    def __init__(
        self, cache: Cache, suite: str, architecture: Architecture = HOST, *, base: Sequence[str] = ()
    ) -> None:
        self.cache = cache
        self.suite = suite
        self.architecture = architecture
        self.base = tuple(base)
        # The first architecture has the plain name: it was alone when such caches were made.
        name = "+".join((suite, *self.base))
        if architecture is not X86_64:
            name += f"-{architecture.debian}"
        self._name = name
        # Caches that apt filled have facts of this name, and they hold as before.
        self._fact = f"apt-{name}"
        self._lists = Lists(
            cache.root / "archive" / name / "lists",
            (suite, *self.base),
            architecture.debian,
            cache.events,
        )
        self._binary: list[Paragraphs] | None = None
        self._source: list[Paragraphs] | None = None

    # What is known

    def packages(self, names: Sequence[str]) -> list[Package]:
        """These binary packages, at the version that the suite has (or had, when first asked)."""
        known = self._known("binary")
        if any(name not in known for name in names):
            with self.cache.lock(self._fact, f"packages of Debian {self.suite}"):
                known = self._look_up("binary", names)
        return [_package(name, known[name]) for name in names]

    def names(self, prefix: str) -> list[str]:
        """The names of all packages that begin so, as the suite's lists have them."""
        with self.cache.lock(self._fact, f"packages of Debian {self.suite}"):
            lists = self._fresh()
        return sorted({name for each in lists for name in each.names() if name.startswith(prefix)})

    def closure(self, names: Sequence[str]) -> list[Package]:
        """These packages and all that they need, as apt would install them on an empty machine."""
        wanted = " ".join(sorted(names))
        known = self._known("closure").get(wanted)
        if known is None:
            with self.cache.lock(self._fact, f"packages of Debian {self.suite}"):
                known = {"names": closure(self._fresh(), names, self.suite)}
                facts = _mapping(self.cache.recall(self._fact))
                self.cache.remember(
                    self._fact, {**facts, "closure": {**self._known("closure"), wanted: known}}
                )
        found = known["names"]
        return self.packages([str(name) for name in found] if isinstance(found, list) else [])

    def source(self, name: str) -> SourcePackage:
        """This source package, at the version that the suite has (or had, when first asked)."""
        known = self._known("source")
        if name not in known:
            with self.cache.lock(self._fact, f"sources of Debian {self.suite}"):
                known = self._look_up("source", [name])
        entry = known[name]
        files = tuple(sorted((str(k), str(v)) for k, v in _mapping(entry["files"]).items()))
        return SourcePackage(name, str(entry["version"]), files)

    def forget(self) -> None:
        """Look everything up again at the next question."""
        self.cache.forget(self._fact)
        self._lists.forget()
        self._binary = self._source = None

    def _known(self, kind: str) -> dict[str, dict[str, object]]:
        """What our own cache knows, and what it does not, but a cache behind it."""
        known: dict[str, dict[str, object]] = {}
        for facts in reversed(self.cache.recall_all(self._fact)):
            entries = _mapping(_mapping(facts).get(kind))
            known |= {name: _mapping(entry) for name, entry in entries.items()}
        return known

    def _look_up(self, kind: str, names: Sequence[str]) -> dict[str, dict[str, object]]:
        known = self._known(kind)
        missing = [name for name in names if name not in known]
        if missing:
            self._fresh()
            find = self._find_binary if kind == "binary" else self._find_source
            known |= find(missing)
            facts = _mapping(self.cache.recall(self._fact))
            self.cache.remember(self._fact, {**facts, kind: known})
        return known

    # Lists; whoever asks for them has the lock

    def _fresh(self) -> list[Paragraphs]:
        """The lists of binary packages, fetched unless they are fresh."""
        age = self._lists.age
        if age is None or not 0 <= age < LISTS_GOOD_FOR:
            self._update()
        return self._binaries()

    def _update(self) -> None:
        """Fetch the suite's lists, from the first mirror that has them."""
        failure: MachineryError | None = None
        for mirror in mirrors():
            with self.cache.events.step("package lists", suite=self.suite, mirror=mirror):
                try:
                    self.cache.folder("archive", self._name)
                    self._lists.fetch(mirror)
                except MachineryError as error:
                    failure = error
                    continue
            self._binary = self._source = None
            return
        assert failure is not None
        raise MachineryError(
            f"cannot read the lists of {self.suite}: {failure.message}",
            hint=failure.hint or f"is the network there? {MIRROR_VARIABLE} may name another mirror",
        ) from failure

    def _binaries(self) -> list[Paragraphs]:
        """The lists as they are here; fetched if there are none."""
        if self._lists.age is None:
            self._update()
        if self._binary is None:
            self._binary = self._lists.binary()
        return self._binary

    def _sources(self) -> list[Paragraphs]:
        if self._lists.age is None:
            self._update()
        if self._source is None:
            self._source = self._lists.source()
        return self._source

    def _find_binary(self, names: Sequence[str]) -> dict[str, dict[str, object]]:
        lists = self._binaries()
        found: dict[str, dict[str, object]] = {}
        for name in names:
            fields = newest(lists, name)
            if fields is not None and "SHA256" in fields:
                depends = ", ".join(filter(None, (fields.get("Pre-Depends"), fields.get("Depends"))))
                found[name] = {
                    "version": fields["Version"],
                    "sha256": fields["SHA256"],
                    "depends": list(first_alternatives(depends)),
                }
        self._complain(names, found)
        return found

    def _find_source(self, names: Sequence[str]) -> dict[str, dict[str, object]]:
        lists = self._sources()
        found: dict[str, dict[str, object]] = {}
        for name in names:
            fields = newest(lists, name)
            files = {file: promise.sha256 for file, promise in _files(fields).items()} if fields else {}
            if fields and files:
                found[name] = {"version": fields["Version"], "files": files}
        self._complain(names, found)
        return found

    def _complain(self, names: Iterable[str], found: Mapping[str, object]) -> None:
        lacking = [name for name in names if name not in found]
        if lacking:
            raise MachineryError(f"Debian {self.suite} has no package {', '.join(lacking)}")

    # Files

    def unpack(self, packages: Sequence[Package], into: Path) -> None:
        """Fetch these packages and unpack them, one over the other; scripts are not run."""
        for package in packages:
            deb = self.cache.get(
                "deb",
                key_of(deb=package.sha256),
                lambda folder, package=package: self._fetch_deb(package, folder),  # type: ignore[misc]
                what=f"package {package.name}",
            )
            unpack_deb(next(deb.glob("*.deb")), into)

    def unpack_source(self, source: SourcePackage, into: Path) -> None:
        """Fetch a source package and unpack it with Debian's patches; ``into`` must not be there yet."""
        fetched = into.with_name(f"{into.name}.fetched")
        fetched.mkdir()
        with self.cache.events.step("fetch", source=source.name, version=source.version):
            self._fetch_source(source, fetched)
        unpack_source(fetched / source.dsc, into)

    def _fetch_source(self, source: SourcePackage, folder: Path) -> None:
        with self.cache.lock(self._fact, f"sources of Debian {self.suite}"):
            lists, mirror = self._sources(), self._lists.mirror
        fields = newest(lists, source.name)
        promises = _files(fields) if fields is not None else {}
        sums = {name: promise.sha256 for name, promise in promises.items()}
        if fields is None or sums != dict(source.files):
            raise self._gone(f"the source of {source.name} {source.version}")
        place = _inside(fields["Directory"])
        for name, promise in promises.items():
            self._fetch(f"{mirror}/{place}/{_inside(name)}", folder / name, promise)

    def _fetch_deb(self, package: Package, folder: Path) -> None:
        with self.cache.events.step("fetch", package=package.name, version=package.version):
            with self.cache.lock(self._fact, f"packages of Debian {self.suite}"):
                lists, mirror = self._binaries(), self._lists.mirror
            fields = next(
                (
                    fields
                    for each in lists
                    if (fields := each.newest(package.name)) and fields.get("SHA256") == package.sha256
                ),
                None,
            )
            if fields is None:
                raise self._gone(f"{package.name} {package.version}")
            place = _inside(fields["Filename"])
            promise = Promise(int(fields["Size"]), package.sha256)
            self._fetch(f"{mirror}/{place}", folder / PurePosixPath(fields["Filename"]).name, promise)

    def _fetch(self, address: str, file: Path, promise: Promise) -> None:
        try:
            download(address, file, promise, events=self.cache.events)
        except NotThere as error:
            raise MachineryError(error.message, hint=_UPDATE) from error

    def _gone(self, what: str) -> MachineryError:
        return MachineryError(f"the lists of Debian {self.suite} have no {what} any more", hint=_UPDATE)


def _files(fields: Mapping[str, str]) -> dict[str, Promise]:
    """The files of a source package, with what the signed list promises of them."""
    entries = Sources(dict(fields)).get("Checksums-Sha256", ())
    return {str(entry["name"]): Promise(int(entry["size"]), str(entry["sha256"])) for entry in entries}


def _inside(name: str) -> str:
    """A path of the archive as a part of an address."""
    if name.startswith("/") or ".." in name.split("/"):
        raise MachineryError(f"a list of the archive names a file outside of it: {name}")
    return quote(name, safe="/~+")


def _mapping(value: object) -> dict[str, object]:
    return {str(key): item for key, item in value.items()} if isinstance(value, dict) else {}


def _package(name: str, entry: dict[str, object]) -> Package:
    depends = entry["depends"]
    words = tuple(str(word) for word in depends) if isinstance(depends, list) else ()
    return Package(name, str(entry["version"]), str(entry["sha256"]), words)
