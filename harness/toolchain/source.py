# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a QEMU's source comes from: Debian, a tarball, or a tree that somebody works on."""

from __future__ import annotations

import abc
import dataclasses
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from harness.errors import InputError, MachineryError
from harness.toolchain.cache import Cache, file_digest, key_of
from harness.toolchain.debian_archive import DebianArchive, SourcePackage
from harness.toolchain.patches import series_of
from harness.toolchain.run import run_program
from harness.toolchain.worktree import WorkTree

SUITE = "trixie"
PACKAGE = "qemu"


@dataclasses.dataclass(frozen=True, kw_only=True)
class QemuSource(abc.ABC):
    """One source; ``identity`` changes with its content, ``tree`` names its work tree.

    A source that is not ``complete`` (a git checkout lacks its subprojects) lets
    configure fetch what it needs.
    """

    version: str
    identity: str
    tree: str
    complete: bool = True
    has_feature: bool = False

    @property
    def series(self) -> str:
        """The series that belongs to it: ``10.0`` for 10.0.13."""
        return series_of(self.version)

    @abc.abstractmethod
    def prepare(self, tree: WorkTree, cache: Cache) -> None:
        """Put the unpatched source into its work tree, unless it is there."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DebianSource(QemuSource):
    """The suite's current source package, with Debian's own patches."""

    source: SourcePackage
    pool: DebianArchive

    def prepare(self, tree: WorkTree, cache: Cache) -> None:
        """Fetch and unpack it; Debian's patches make the stripped tarball configure."""
        if tree.source.exists():
            return
        with tempfile.TemporaryDirectory(prefix="unpack.", dir=tree.root) as name:
            unpacked = Path(name) / "source"
            with cache.events.step("unpack", source=self.source.name, version=self.source.version):
                self.pool.unpack_source(self.source, unpacked)
            unpacked.rename(tree.source)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TarballSource(QemuSource):
    """A release tarball of upstream's."""

    path: Path

    def prepare(self, tree: WorkTree, cache: Cache) -> None:
        """Unpack the tarball into its work tree."""
        if tree.source.exists():
            return
        with tempfile.TemporaryDirectory(prefix="unpack.", dir=tree.root) as name:
            with cache.events.step("unpack", tarball=str(self.path)):
                run_program(["tar", "-xf", self.path, "-C", name], what=f"unpack {self.path}")
            tops = list(Path(name).iterdir())
            if len(tops) != 1 or not (tops[0] / "configure").exists():
                raise InputError(f"{self.path} is not a QEMU source tarball")
            tops[0].rename(tree.source)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LocalSource(QemuSource):
    """A tree that somebody works on: copied, never built in, never written to.

    It has one work tree, whatever its state: a change is rebuilt, not built anew.
    """

    path: Path

    def prepare(self, tree: WorkTree, cache: Cache) -> None:
        """Copy what has changed since the last time."""
        now = dict(source_files(self.path))
        if _identity(now) != self.identity:
            raise MachineryError(f"the source {self.path} was changed meanwhile", hint="build it again")
        _copy_changed(self.path, now, tree, cache)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckedOutSource(QemuSource):
    """A commit that is checked out in a clone of ours: its name is what it is, whenever it was checked out.

    All commits of a clone have one work tree: from one to another only what differs is compiled.
    """

    path: Path

    def prepare(self, tree: WorkTree, cache: Cache) -> None:
        """Copy what differs from the commit before."""
        _copy_changed(self.path, dict(source_files(self.path)), tree, cache)


def _copy_changed(path: Path, now: dict[str, list[int]], tree: WorkTree, cache: Cache) -> None:
    listing = tree.root / "copied.json"
    before: dict[str, list[int]] = json.loads(listing.read_text("utf-8")) if listing.exists() else {}
    changed = [name for name, state in now.items() if before.get(name) != state]
    gone = [name for name in before if name not in now]
    if changed or gone:
        with cache.events.step("copy", source=str(path), files=len(changed)):
            tree.refresh(path, changed, gone)
        listing.write_text(json.dumps(now), encoding="utf-8")


def source_files(root: Path) -> Iterator[tuple[str, list[int]]]:
    """A source tree's files by name, with size and time; git's own and build folders left out."""
    for folder, folders, files in os.walk(root):
        here = Path(folder)
        # What leads to a folder is kept as it is: libvhost-user finds its headers by such a link.
        links = [name for name in folders if (here / name).is_symlink()]
        folders[:] = sorted(
            name
            for name in folders
            if name not in (".git", "__pycache__", *links) and not (here / name / "config.status").exists()
        )
        for name in sorted([*files, *links]):
            path = here / name
            state = path.lstat()
            yield str(path.relative_to(root)), [state.st_size, state.st_mtime_ns]


def _identity(files: dict[str, list[int]]) -> str:
    # By size and time, as make sees it: reading all of QEMU's source takes seconds.
    return key_of(files=files)


def find_source(cache: Cache, path: Path | None) -> QemuSource:
    """Debian's source, or what the user names."""
    if path is None:
        pool = DebianArchive(cache, SUITE)
        source = pool.source(PACKAGE)
        identity = key_of(debian=source.files)
        return DebianSource(
            version=source.upstream, identity=identity, tree=f"debian-{identity}", source=source, pool=pool
        )
    path = path.absolute()
    if path.is_dir():
        return _local(path)
    if not path.exists():
        raise InputError(f"there is no QEMU source at {path}")
    return _tarball(cache, path)


def checked_out(path: Path, commit: str, tree: str) -> CheckedOutSource:
    """The source of a commit that is checked out at ``path``; ``tree`` names its work tree.

    Raises :class:`InputError` if that is no QEMU.
    """
    version, has_feature = _looked_at(path)
    identity = key_of(commit=commit)
    return CheckedOutSource(
        version=version, identity=identity, tree=tree, complete=False, has_feature=has_feature, path=path
    )


def _local(path: Path) -> LocalSource:
    version, has_feature = _looked_at(path)
    return LocalSource(
        version=version,
        identity=_identity(dict(source_files(path))),
        tree=f"local-{key_of(path=str(path))}",
        complete=False,
        has_feature=has_feature,
        path=path,
    )


def _looked_at(path: Path) -> tuple[str, bool]:
    """The version of a source tree, and whether it has free page info."""
    if not (path / "configure").exists() or not (path / "VERSION").exists():
        raise InputError(f"{path} is not a QEMU source tree: it has no configure or no VERSION")
    device = path / "hw" / "virtio" / "virtio-balloon.c"
    # Somebody who works on the device itself has the patches in the tree.
    has_feature = device.exists() and '"free-page-info"' in device.read_text("utf-8", errors="replace")
    return (path / "VERSION").read_text("utf-8").strip(), has_feature


def _tarball(cache: Cache, path: Path) -> TarballSource:
    state = path.stat()
    mark = [str(path), state.st_size, state.st_mtime_ns]
    known = cache.recall("tarball")
    if isinstance(known, dict) and known.get("mark") == mark:
        return _tarball_source(path, str(known["version"]), str(known["identity"]))
    command: list[str | Path] = [
        "tar",
        "-xOf",
        path,
        "--wildcards",
        "--no-wildcards-match-slash",
        "*/VERSION",
    ]
    try:
        text = run_program(command, what=f"read {path}")
    except MachineryError as error:
        raise InputError(f"{path} is not a QEMU source tarball: {error.message}", hint=error.hint) from error
    version = text.strip()
    if not re.fullmatch(r"\d+\.\d+[\w.+-]*", version):
        raise InputError(f"{path} is not a QEMU source tarball: no VERSION in its top folder")
    identity = file_digest(path)[:32]
    cache.remember("tarball", {"mark": mark, "version": version, "identity": identity})
    return _tarball_source(path, version, identity)


def _tarball_source(path: Path, version: str, identity: str) -> TarballSource:
    return TarballSource(version=version, identity=identity, tree=f"tarball-{identity}", path=path)


def clean_leftovers(tree: WorkTree) -> None:
    """Remove what a killed run left half made.  Under the tree's lock."""
    for pattern in ("unpack.*", "stage.*"):
        for leftover in tree.root.glob(pattern):
            shutil.rmtree(leftover, ignore_errors=True)
