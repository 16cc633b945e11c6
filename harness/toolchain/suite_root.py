# SPDX-License-Identifier: GPL-2.0-or-later
"""A Debian suite's compiler and kbuild's needs, in a folder of their own.

The build programs in a suite's kernel headers need that suite's C library, so
a newer suite's module cannot be built with the machine's own.  The folder is
made of packages that are unpacked, as the guest's are: no package's script is
run, nothing is installed, and no root is needed.  Commands enter it by chroot,
in a mount namespace (and, for an ordinary user, a user namespace) of their own.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from harness.errors import MachineryError
from harness.toolchain.cache import MIB, Cache, key_of
from harness.toolchain.debian_archive import DebianArchive
from harness.toolchain.run import run_program

#: What ``make modules`` against Debian's headers runs, beside the compiler.
_PACKAGES: Final = (
    "base-files",
    "bash",
    "binutils",
    "coreutils",
    "dash",
    "diffutils",
    "findutils",
    "grep",
    "libelf1t64",
    "make",
    "mawk",
    "perl-base",
    "sed",
    "sparse",
)

#: Where the cache's folders are seen from inside: our own, and those behind it.  All are empty there.
_PLACES: Final = (Path("/mnt"), Path("/media"), Path("/srv"))

# Arguments: the folder, the cache's folders, --, what to run.  What is mounted goes with the namespace.
_ENTER: Final = """\
set -e
root=$1
shift
for place in mnt media srv; do
	[ "$1" != -- ] || break
	mount --rbind "$1" "$root/$place"
	shift
done
shift
mount --rbind /dev "$root/dev"
mount --rbind /proc "$root/proc"
exec chroot "$root" /usr/bin/env -i PATH=/usr/bin:/usr/sbin LC_ALL=C.UTF-8 "$@"
"""

# Changes when what is done to the unpacked packages changes.
_UNPACKING = 1


@dataclasses.dataclass(frozen=True)
class SuiteRoot:
    """A suite's programs; paths below the cache may be used inside by :meth:`inside`."""

    folder: Path
    caches: tuple[Path, ...]
    digest: str

    def inside(self, path: Path) -> Path:
        """What a path of the cache is called inside of the folder."""
        for place, cache in zip(_PLACES, self.caches, strict=False):
            if path.is_relative_to(cache):
                return place / path.relative_to(cache)
        raise AssertionError(f"{path} is in no cache")

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        what: str,
        scratch: Path,
        log: Path | None = None,
        told: Mapping[Path, Path] | None = None,
    ) -> str:
        """Run a command inside of the folder; ``scratch`` (below the cache) is for its temporary files."""
        user = [] if os.geteuid() == 0 else ["--map-root-user"]
        enter = ["unshare", "--mount", *user, "sh", "-c", _ENTER, "sh", str(self.folder)]
        enter += [*map(str, self.caches), "--"]
        words = [*enter, f"TMPDIR={self.inside(scratch)}", *map(str, argv)]
        return run_program(words, what=what, log=log, told=told)


def suite_root(cache: Cache, suite: str, compiler: str, *more: str) -> SuiteRoot:
    """The folder for a suite, with this compiler (a package's name, ``gcc-14``) and more packages in it."""
    pool = DebianArchive(cache, suite)
    packages = pool.closure([*_PACKAGES, compiler, *more])
    key = key_of(packages=[package.sha256 for package in packages], unpacking=_UNPACKING)

    def build(folder: Path) -> None:
        with cache.events.step("suite", suite=suite, packages=len(packages)):
            # First what the others' files go through: /bin, /lib and their like are links there.
            first = [package for package in packages if package.name == "base-files"]
            pool.unpack([*first, *(package for package in packages if package not in first)], folder)
            for name in ("dev", "mnt", "proc"):
                (folder / name).mkdir(exist_ok=True)
            awk = folder / "usr" / "bin" / "awk"
            if not awk.is_symlink():
                awk.symlink_to("mawk")  # what the alternatives' script would do
            if not (folder / "lib64").is_symlink():
                raise MachineryError(f"Debian {suite} is laid out in a way that this does not know")

    folder = cache.get("suite", key, build, what=f"the build programs of {suite}", space=800 * MIB)
    return SuiteRoot(folder, cache.layers[: len(_PLACES)], key)
