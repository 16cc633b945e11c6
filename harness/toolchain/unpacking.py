# SPDX-License-Identifier: GPL-2.0-or-later
"""Unpacks Debian's packages and sources without dpkg: nothing is written outside of the folder.

Links that earlier packages brought are followed as if the folder were the file system's root, as they
will be by whoever is started in it: ``/bin`` is a link to ``usr/bin`` in a Debian system, and an absolute
link must not lead to this machine's own files.  Owners are not taken over, nor are the bits that let a
program run as another user.
"""

from __future__ import annotations

import errno
import lzma
import os
import shutil
import tarfile
import zlib
from pathlib import Path
from typing import Final

from debian.arfile import ArError
from debian.debfile import DebFile

from harness.errors import MachineryError

#: More links than this on the way to a file lead in a circle.
_MOST_LINKS: Final = 40
#: What is wrong with an archive is one of these; all else is wrong with this machine.
_BROKEN: Final = (ArError, tarfile.TarError, EOFError, lzma.LZMAError, zlib.error, ValueError)
_CHUNK: Final = 1 << 20
#: What stands in a package's way, and not in the machine's.
_IN_THE_WAY: Final = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY, errno.ENAMETOOLONG)


def unpack_deb(deb: Path, into: Path) -> None:
    """The files of a binary package.  Raises :class:`MachineryError` for what is none, or not safe."""
    try:
        with DebFile(str(deb)) as package, package.data.tgz() as tar:
            _Unpacking(tar, into).run()
    except _BROKEN as error:
        raise MachineryError(f"{deb.name} is no whole package: {error}") from error
    except OSError as error:
        raise _said(error, deb) from error


def unpack_tarball(tarball: Path, into: Path) -> None:
    """The files of a tarball, compressed or not; raises as :func:`unpack_deb` does."""
    try:
        with tarfile.open(tarball, "r:*") as tar:
            _Unpacking(tar, into).run()
    except _BROKEN as error:
        raise MachineryError(f"{tarball.name} is no whole tarball: {error}") from error
    except OSError as error:
        raise _said(error, tarball) from error


def _said(error: OSError, archive: Path) -> OSError | MachineryError:
    if error.errno is None:  # python-debian's, of a header
        return MachineryError(f"{archive.name} is no whole package: {error}")
    if error.errno not in _IN_THE_WAY:
        return error  # a full disk, say: the cache has words for it
    return MachineryError(f"cannot unpack {archive.name}: {error.strerror} ({error.filename})")


class _Unpacking:
    """One archive on its way into a folder."""

    def __init__(self, tar: tarfile.TarFile, into: Path) -> None:
        self._tar = tar
        self._into = into
        # Where folders really are, until a link is made or taken away.
        self._known: dict[tuple[str, ...], Path] = {}

    def run(self) -> None:
        """Unpack all of it."""
        for member in self._tar:
            parts = _parts(member.name, member)
            if member.isdir():
                self._folder(parts, member)
            elif not parts:
                raise _refused(member, "is no folder")
            elif member.isreg():
                self._file(self._room(parts, member), member)
            elif member.issym():
                self._symlink(self._room(parts, member), member)
            elif member.islnk():
                self._hardlink(self._room(parts, member), member)
            else:
                raise _refused(member, "is neither a file nor a folder nor a link")

    def _really(self, parts: tuple[str, ...], member: tarfile.TarInfo) -> Path:
        """Where a folder is, links followed; it need not be there."""
        if parts not in self._known:
            here: list[str] = []
            ahead, links = list(reversed(parts)), 0
            while ahead:
                part = ahead.pop()
                if part == "..":
                    del here[-1:]
                elif part not in ("", "."):
                    path = self._into.joinpath(*here, part)
                    if not path.is_symlink():
                        here.append(part)
                        continue
                    links += 1
                    if links > _MOST_LINKS:
                        raise _refused(member, "goes through links that lead in a circle")
                    target = os.readlink(path)  # noqa: PTH115 - as it is written
                    if target.startswith("/"):
                        here.clear()
                    ahead.extend(reversed(target.split("/")))
            self._known[parts] = self._into.joinpath(*here)
        return self._known[parts]

    def _room(self, parts: tuple[str, ...], member: tarfile.TarInfo) -> Path:
        """Where a file or a link goes; what was there is taken away."""
        folder = self._really(parts[:-1], member)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / parts[-1]
        if path.is_symlink():
            self._known.clear()
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)
        return path

    def _folder(self, parts: tuple[str, ...], member: tarfile.TarInfo) -> None:
        path = self._really(parts, member)
        path.mkdir(parents=True, exist_ok=True)
        if path != self._into:
            # A cache may serve all users of a machine, and nothing in a package is secret.
            path.chmod(0o1777 if member.mode & 0o1000 else 0o755)

    def _file(self, path: Path, member: tarfile.TarInfo) -> None:
        data = self._tar.extractfile(member)
        assert data is not None
        with data, path.open("xb") as file:
            shutil.copyfileobj(data, file, _CHUNK)
        path.chmod(member.mode & 0o755 | 0o444)
        # Makefiles and kbuild go by them.
        os.utime(path, (member.mtime, member.mtime))

    def _symlink(self, path: Path, member: tarfile.TarInfo) -> None:
        target = member.linkname
        if not target.startswith("/"):
            depth = len(path.parent.relative_to(self._into).parts)
            for part in target.split("/"):
                depth += (part not in ("", ".")) - 2 * (part == "..")
                if depth < 0:
                    raise _refused(member, f"is a link that leads out of its folder ({target})")
        self._known.clear()
        path.symlink_to(target)

    def _hardlink(self, path: Path, member: tarfile.TarInfo) -> None:
        parts = _parts(member.linkname, member)
        source = self._really(parts[:-1], member) / parts[-1] if parts else self._into
        if source.is_symlink() or not source.is_file():
            raise _refused(member, f"is a link to what is no file of its archive ({member.linkname})")
        path.hardlink_to(source)


def _parts(name: str, member: tarfile.TarInfo) -> tuple[str, ...]:
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if name.startswith("/") or ".." in parts:
        raise _refused(member, f"leads out of its folder ({name})")
    return parts


def _refused(member: tarfile.TarInfo, why: str) -> MachineryError:
    return MachineryError(f"not unpacked, for safety: {member.name} {why}")
