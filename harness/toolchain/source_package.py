# SPDX-License-Identifier: GPL-2.0-or-later
"""Unpacks a Debian source package without dpkg: upstream's tarballs, Debian's, and Debian's patches.

As ``dpkg-source --extract`` does for the formats that the archive has today, "3.0 (quilt)" and
"3.0 (native)"; all others are refused in words.  The maintainer's signature is not looked at: each file
was held against the archive's signed index before, and the .dsc file is one of them.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path
from typing import Final

from debian.deb822 import Dsc

from harness.errors import MachineryError
from harness.toolchain.run import run_program
from harness.toolchain.unpacking import unpack_tarball

_FORMATS: Final = ("3.0 (quilt)", "3.0 (native)")
#: What a tarball of a source package is, by its name.
_TARBALL: Final = re.compile(
    r"_[^/]*?(?:\.(?P<part>orig|debian)(?:-(?P<component>[A-Za-z0-9][A-Za-z0-9-]*))?)?\.tar\.(?:gz|bz2|lzma|xz)$"
)
# As dpkg applies them: exactly, or not at all.
_PATCH: Final = ("patch", "--batch", "--forward", "--fuzz=0", "--unified", "-p1")
_PATCH_MORE: Final = ("--remove-empty-files", "--no-backup-if-mismatch", "--quiet")


def unpack_source(dsc: Path, into: Path) -> None:
    """The patched source whose .dsc file lies beside its other files; ``into`` must not be there yet."""
    described = Dsc(dsc.read_bytes())
    form = str(described.get("Format", "1.0"))
    if form not in _FORMATS:
        raise MachineryError(f"{dsc.name}: a source package of the format {form} is not known here")
    names = sorted(str(entry["name"]) for entry in described.get("Checksums-Sha256", ()))
    found = {name: match for name in names if (match := _TARBALL.search(name))}
    main = [name for name, match in found.items() if match["part"] != "debian" and not match["component"]]
    if len(main) != 1 or any("/" in name for name in names):
        raise MachineryError(f"{dsc.name} names no tarball, or several: {', '.join(names)}")
    _unpack_top(dsc.parent / main[0], into)
    for name, match in found.items():
        if match["component"]:
            component = into / match["component"]
            if component.is_dir() and not component.is_symlink():
                shutil.rmtree(component)
            _unpack_top(dsc.parent / name, component)
    debian = [name for name, match in found.items() if match["part"] == "debian"]
    if debian:
        shutil.rmtree(into / "debian", ignore_errors=True)
        unpack_tarball(dsc.parent / debian[0], into)
        _apply(into)


def _unpack_top(tarball: Path, into: Path) -> None:
    """What lies in the only folder of a tarball, or all of it where there is no such folder."""
    with tempfile.TemporaryDirectory(prefix="unpack.", dir=into.parent) as name:
        folder = Path(name) / "all"
        folder.mkdir()
        unpack_tarball(tarball, folder)
        tops = list(folder.iterdir())
        alone = len(tops) == 1 and tops[0].is_dir() and not tops[0].is_symlink()
        (tops[0] if alone else folder).rename(into)


def _apply(tree: Path) -> None:
    patches = tree / "debian" / "patches"
    series = patches / "series"
    if not series.is_file() or series.is_symlink():
        return
    for line in series.read_text("utf-8", errors="replace").splitlines():
        # Options behind a name are quilt's; dpkg does not know them either.
        words = line.partition("#")[0].split()
        if not words:
            continue
        patch = patches / words[0]
        if not patch.resolve().is_relative_to(tree.resolve()) or not patch.is_file():
            raise MachineryError(f"the source package's series names {words[0]}, which is no file of it")
        run_program([*_PATCH, *_PATCH_MORE, "-i", patch], what=f"apply Debian's patch {words[0]}", cwd=tree)
