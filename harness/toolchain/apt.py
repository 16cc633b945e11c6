# SPDX-License-Identifier: GPL-2.0-or-later
"""Packages and sources from Debian, through an apt configuration of our own.

The system's sources, lists and cache are neither read nor written, so this
works on any machine that has apt, for any Debian suite, and without root.
Signatures are checked against Debian's keyring; nothing is installed.

What apt found is remembered in the cache, so that a run for which everything
is built asks nobody.  It is looked up again only when asked to
(``freepage build --update``) or when a file is wanted that the archive no
longer has.
"""

from __future__ import annotations

import dataclasses
import os
import re
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from harness.arch import HOST, X86_64, Architecture
from harness.errors import FreepageError, MachineryError
from harness.toolchain.cache import Cache, file_digest, key_of
from harness.toolchain.run import build_environment, run_program
from harness.toolchain.sources import how_to_install

MIRROR_VARIABLE = "FREEPAGE_DEBIAN_MIRROR"
DEFAULT_MIRROR = "http://deb.debian.org/debian"
KEYRINGS = (
    Path("/usr/share/keyrings/debian-archive-keyring.gpg"),
    Path("/usr/share/keyrings/debian-archive-keyring.pgp"),
)
LISTS_GOOD_FOR = 6 * 3600.0

# How apt says that a suite's lists are older than they themselves allow.
_EXPIRED = re.compile(r"Release file for \S+ is expired")
# Behind a proxy the system's apt knows of it; nothing else of its settings is ours.
_INHERITED = re.compile(r"^Acquire::(http|https|Retries|ForceIPv[46])\b")

CONFIGURATION = """\
// Made by freepage; apt reads this first, so the system's parts are left out.
Dir "{root}";
Dir::Etc "{root}/etc";
Dir::Etc::main "/dev/null";
Dir::Etc::parts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "{root}/etc/sources";
Dir::Etc::trusted "/dev/null";
Dir::Etc::trustedparts "/dev/null";
Dir::State "{root}/state";
Dir::State::lists "{root}/lists";
Dir::State::status "{root}/state/status";
Dir::Cache "{root}/cache";
Dir::Cache::srcpkgcache "";
Dir::Log "{root}/log";
APT::Architecture "{architecture}";
APT::Architectures {{ "{architecture}"; }};
{preferred}// _apt may not enter a user's cache folder.  What comes in is checked anyway.
APT::Sandbox::User "{user}";
Acquire::AllowInsecureRepositories "false";
Acquire::AllowWeakRepositories "false";
Acquire::AllowDowngradeToInsecureRepositories "false";
Acquire::Languages "none";
Acquire::PDiffs "false";
Acquire::GzipIndexes "true";
"""


@dataclasses.dataclass(frozen=True)
class Package:
    """A binary package of a suite, as the signed index describes it."""

    name: str
    version: str
    sha256: str
    depends: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class AptSource:
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


def stanzas(text: str) -> list[dict[str, str]]:
    """The paragraphs of a Debian control file; continuation lines stay in their field."""
    found: list[dict[str, str]] = []
    for block in re.split(r"\n\s*\n", text.strip()):
        fields: dict[str, str] = {}
        name = ""
        for line in block.splitlines():
            if line[:1] in (" ", "\t") and name:
                fields[name] += "\n" + line.strip()
            elif ":" in line:
                name, value = line.split(":", 1)
                fields[name] = value.strip()
        if fields:
            found.append(fields)
    return found


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


class Apt:
    """One suite of Debian, read through a private apt.

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
        self.root = cache.root / "apt" / name
        self._fact = f"apt-{name}"

    # What is known

    def packages(self, names: Sequence[str]) -> list[Package]:
        """These binary packages, at the version that the suite has (or had, when first asked)."""
        known = self._known("binary")
        if any(name not in known for name in names):
            with self.cache.lock(f"apt-{self._name}", f"packages of Debian {self.suite}"):
                known = self._look_up("binary", names)
        return [_package(name, known[name]) for name in names]

    def names(self, prefix: str) -> list[str]:
        """The names of all packages that begin so, as the suite's lists have them."""
        with self.cache.lock(f"apt-{self._name}", f"packages of Debian {self.suite}"):
            self._update()
            return sorted(self._apt("apt-cache", "pkgnames", prefix, what="list packages").split())

    def closure(self, names: Sequence[str]) -> list[Package]:
        """These packages and all that they need, as apt would install them on an empty machine."""
        wanted = " ".join(sorted(names))
        known = self._known("closure").get(wanted)
        if known is None:
            with self.cache.lock(f"apt-{self._name}", f"packages of Debian {self.suite}"):
                self._update()
                known = {"names": self._resolve(names)}
                facts = _mapping(self.cache.recall(self._fact))
                closures = {**_mapping(facts.get("closure")), wanted: known}
                self.cache.remember(self._fact, {**facts, "closure": closures})
        found = known["names"]
        return self.packages([str(name) for name in found] if isinstance(found, list) else [])

    def _resolve(self, names: Sequence[str]) -> list[str]:
        words = ("install", "--simulate", "--no-install-recommends", "-y")
        text = self._apt("apt-get", *words, *names, what="resolve packages")
        return sorted(line.split()[1] for line in text.splitlines() if line.startswith("Inst "))

    def source(self, name: str) -> AptSource:
        """This source package, at the version that the suite has (or had, when first asked)."""
        known = self._known("source")
        if name not in known:
            with self.cache.lock(f"apt-{self._name}", f"sources of Debian {self.suite}"):
                known = self._look_up("source", [name])
        entry = known[name]
        files = tuple(sorted((str(k), str(v)) for k, v in _mapping(entry["files"]).items()))
        return AptSource(name, str(entry["version"]), files)

    def configuration(self, user: str) -> str:
        """The file that apt reads first; ``user``: whom it downloads as."""
        preferred = f'APT::Default-Release "{self.suite}";\n' if self.base else ""
        return CONFIGURATION.format(
            root=self.root, user=user, architecture=self.architecture.debian, preferred=preferred
        )

    def forget(self) -> None:
        """Look everything up again at the next question."""
        self.cache.forget(self._fact)
        (self.root / "stamp").unlink(missing_ok=True)

    def _known(self, kind: str) -> dict[str, dict[str, object]]:
        facts = _mapping(self.cache.recall(self._fact))
        return {name: _mapping(entry) for name, entry in _mapping(facts.get(kind)).items()}

    def _look_up(self, kind: str, names: Sequence[str]) -> dict[str, dict[str, object]]:
        known = self._known(kind)
        missing = [name for name in names if name not in known]
        if missing:
            self._update()
            find = self._find_binary if kind == "binary" else self._find_source
            known |= {name: _mapping(entry) for name, entry in find(missing).items()}
            facts = _mapping(self.cache.recall(self._fact))
            self.cache.remember(self._fact, {**facts, kind: known})
        return known

    # apt

    def _update(self) -> None:
        """Fetch the suite's lists, unless they are fresh: from the first mirror that answers."""
        stamp = self.root / "stamp"
        if stamp.exists() and 0 <= time.time() - stamp.stat().st_mtime < LISTS_GOOD_FOR:
            return
        keyring = next((path for path in KEYRINGS if path.exists()), None)
        if keyring is None:
            raise MachineryError(
                "Debian's archive keyring is missing, so nothing from there can be trusted",
                hint=how_to_install("debian-archive-keyring"),
            )
        failure: FreepageError | None = None
        for mirror in mirrors():
            self._configure(mirror, keyring)
            with self.cache.events.step("package lists", suite=self.suite, mirror=mirror):
                try:
                    self._fetch_lists()
                except MachineryError as error:
                    failure = error
                    continue
            stamp.touch()
            return
        assert failure is not None
        raise MachineryError(
            failure.message,
            hint=f"is the network there? {MIRROR_VARIABLE} may name another mirror",
        ) from failure

    def _fetch_lists(self) -> None:
        words, what = ("apt-get", "update", "--error-on=any"), f"read the lists of {self.suite}"
        try:
            self._apt(*words, what=what)
        except MachineryError as error:
            if not _EXPIRED.search(error.message):
                raise
            # A mirror that is behind, or one that is kept as it was.  The signature is checked all the same.
            self.cache.events.emit(
                "message",
                text=f"the lists of Debian {self.suite} have expired: what they name may be gone",
            )
            self._apt(*words, "-o", "Acquire::Check-Valid-Until=false", what=what)

    def _configure(self, mirror: str, keyring: Path) -> None:
        for folder in ("etc/sources", "state", "lists/partial", "cache/archives/partial", "log"):
            self.cache.folder("apt", self._name, *folder.split("/"))
        (self.root / "state" / "status").touch()
        (self.root / "etc" / "sources" / "debian.sources").write_text(
            f"Types: deb deb-src\nURIs: {mirror}\nSuites: {' '.join((self.suite, *self.base))}\n"
            f"Components: main\nSigned-By: {keyring}\n",
            encoding="utf-8",
        )
        user = "root" if os.geteuid() == 0 else ""
        text = self.configuration(user) + _proxy_settings()
        (self.root / "etc" / "apt.conf").write_text(text, encoding="utf-8")

    def _apt(self, *words: str, what: str, cwd: Path | None = None) -> str:
        return run_program(
            words, what=what, cwd=cwd, env=build_environment(APT_CONFIG=str(self.root / "etc" / "apt.conf"))
        )

    def _find_binary(self, names: Sequence[str]) -> dict[str, object]:
        text = self._apt("apt-cache", "show", "--no-all-versions", *names, what="look up packages")
        found: dict[str, object] = {}
        for fields in stanzas(text):
            depends = ", ".join(filter(None, (fields.get("Pre-Depends"), fields.get("Depends"))))
            if "Package" in fields and "SHA256" in fields:
                found[fields["Package"]] = {
                    "version": fields["Version"],
                    "sha256": fields["SHA256"],
                    "depends": list(first_alternatives(depends)),
                }
        self._complain(names, found)
        return found

    def _find_source(self, names: Sequence[str]) -> dict[str, object]:
        text = self._apt("apt-cache", "showsrc", "--only-source", *names, what="look up sources")
        found: dict[str, object] = {}
        for fields in stanzas(text):
            lines = fields.get("Checksums-Sha256", "").split("\n")
            files = {words[2]: words[0] for words in (line.split() for line in lines) if len(words) == 3}
            if files:
                found[fields["Package"]] = {"version": fields["Version"], "files": files}
        self._complain(names, found)
        return found

    def _complain(self, names: Iterable[str], found: dict[str, object]) -> None:
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
            run_program(
                ["dpkg-deb", "-x", next(deb.glob("*.deb")), into], what=f"unpack {package.name}", cwd=into
            )

    def fetch_source(self, source: AptSource, folder: Path) -> None:
        """Fetch a source package's files into a folder; they match the signed index."""
        exact = f"{source.name}={source.version}"
        with self.cache.events.step("fetch", source=source.name, version=source.version):
            self._apt(
                "apt-get", "source", "--download-only", exact, what=f"fetch the source of {exact}", cwd=folder
            )
        for name, digest in source.files:
            _check(folder / name, digest)

    def _fetch_deb(self, package: Package, folder: Path) -> None:
        exact = f"{package.name}={package.version}"
        with self.cache.events.step("fetch", package=package.name, version=package.version):
            self._apt("apt-get", "download", exact, what=f"fetch {exact}", cwd=folder)
        for deb in folder.glob("*.deb"):
            _check(deb, package.sha256)


def _check(file: Path, digest: str) -> None:
    if not file.exists() or file_digest(file) != digest:
        raise MachineryError(
            f"{file.name} is not what the archive's signed index promises",
            hint="freepage build --update looks everything up again",
        )


def _proxy_settings() -> str:
    text = run_program(["apt-config", "dump", "--no-empty"], what="read apt's settings")
    return "".join(line + "\n" for line in text.splitlines() if _INHERITED.match(line))


def _mapping(value: object) -> dict[str, object]:
    return {str(key): item for key, item in value.items()} if isinstance(value, dict) else {}


def _package(name: str, entry: dict[str, object]) -> Package:
    depends = entry["depends"]
    words = tuple(str(word) for word in depends) if isinstance(depends, list) else ()
    return Package(name, str(entry["version"]), str(entry["sha256"]), words)
