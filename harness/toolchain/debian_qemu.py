# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU as Debian ships it: a suite's binary packages with all their libraries, in a folder of their own.

Nothing is installed and no package's script is run.  A suite's programs need that
suite's C library, so its own dynamic loader starts QEMU and is told where the
libraries are.  The loader is copied beside the program: QEMU takes the loader for
itself (``/proc/self/exe``), and looks for its firmware and modules below a folder
``qemu-bundle`` there (``get_relocated_path()``), which stands for the unpacked
packages.  Else it would load the modules of a QEMU that this machine has
installed, and abort: they are of another build.

    launcher = debian_qemu(cache, "bookworm")     # a program, to be started as any QEMU is
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from harness.arch import GUEST, HOST
from harness.errors import MachineryError
from harness.toolchain.cache import MIB, Cache, key_of
from harness.toolchain.debian_archive import DebianArchive, Package
from harness.toolchain.image import file_in_root, needed_by
from harness.toolchain.run import run_program

#: Debian's suites that have a QEMU of 7.2 or later, with what each is not whole without.
SUITES: Final[dict[str, tuple[str, ...]]] = {
    "bookworm": (),
    "bookworm-backports": ("bookworm",),
    "trixie": (),
    "trixie-backports": ("trixie",),
    "forky": (),
    "sid": (),
}

#: Changes when what is done to the unpacked packages changes.
_UNPACKING: Final = 3
#: No program reads these.
_PAPERS: Final = ("doc", "iso-codes", "locale", "man", "xml")
_LIBRARIES: Final = (f"usr/lib/{HOST.multiarch}", f"lib/{HOST.multiarch}")
_FOUND: Final = re.compile(r"^\s*(?P<name>\S+) => (?P<path>.+?)(?: \(0x[0-9a-f]+\))?$", re.MULTILINE)

# The paths are relative to the script: the cache may be moved or copied.  libvirt asks a QEMU about
# itself in an empty environment.
_LAUNCHER: Final = """\
#!/bin/sh
# {what}
here=$(PATH=/usr/bin:/bin readlink -f -- "$0") || exit 126
root=${{here%/*}}/root
exec "$root/{loader}" --inhibit-cache --argv0 "$0" --library-path "{libraries}" "$root/{program}" "$@"
"""


def debian_qemu(cache: Cache, suite: str) -> Path:
    """The program that starts a suite's QEMU, fetched and unpacked if need be.

    ``suite``: one of :data:`SUITES`.  Raises :class:`MachineryError` for what the archive has not.
    """
    pool = DebianArchive(cache, suite, base=SUITES[suite])
    packages = pool.closure([GUEST.board.qemu_package])
    key = key_of(packages=[package.sha256 for package in packages], unpacking=_UNPACKING)

    def build(folder: Path) -> None:
        with cache.events.step("unpack QEMU", suite=suite, packages=len(packages)):
            root = folder / "root"
            root.mkdir()
            pool.unpack(packages, root)
            for name in _PAPERS:
                shutil.rmtree(root / "usr" / "share" / name, ignore_errors=True)
            make_links_relative(root)
            launcher = folder / GUEST.qemu_binary
            launcher.write_text(_launcher(root, suite, packages), encoding="utf-8")
            launcher.chmod(0o755)

    folder = cache.get("debian-qemu", key, build, what=f"Debian {suite}'s QEMU", space=800 * MIB)
    return folder / GUEST.qemu_binary


def _launcher(root: Path, suite: str, packages: Sequence[Package]) -> str:
    program = Path("usr/bin", GUEST.qemu_binary)
    if not (root / program).is_file():
        raise MachineryError(f"Debian {suite}'s {GUEST.board.qemu_package} has no {GUEST.qemu_binary}")
    interpreter, _ = needed_by(root / program)
    # Where /lib64 is a link to /usr/lib64, the link is of a package that is of no other use.
    places = (interpreter, f"/usr{interpreter}") if interpreter else ()
    loader = next((path for path in (file_in_root(root, place) for place in places) if path), None)
    if loader is None:
        raise MachineryError(f"Debian {suite}'s packages have no {interpreter}, which starts {program.name}")
    # As the kernel shows it, a process is called as its program; the copy is what QEMU takes for that.
    copy = program.with_name(f"{program.name}.ld.so")
    shutil.copyfile(loader, root / copy)
    (root / copy).chmod(0o755)
    (root / copy.with_name("qemu-bundle")).symlink_to(os.path.relpath(root, (root / copy).parent))
    demand_own_libraries(root, copy, program)
    version = next(package.version for package in packages if package.name == GUEST.board.qemu_package)
    return _LAUNCHER.format(
        what=f"Debian {suite}'s QEMU, {version}, with its own libraries.",
        loader=copy,
        program=program,
        libraries=":".join(f"$root/{name}" for name in _LIBRARIES),
    )


def make_links_relative(root: Path) -> None:
    """Have links between the packages lead to each other, and not to this machine's files."""
    for folder, folders, files in os.walk(root):
        for link in (Path(folder, name) for name in (*folders, *files)):
            if link.is_symlink() and link.readlink().is_absolute():
                target = root / link.readlink().relative_to("/")
                link.unlink()
                link.symlink_to(os.path.relpath(target, link.parent))


def demand_own_libraries(root: Path, loader: Path, program: Path) -> None:
    """Raise :class:`MachineryError` unless the loader finds all libraries of a program below ``root``."""
    folders = ":".join(str(root / name) for name in _LIBRARIES)
    command: list[str | Path] = [root / loader, "--inhibit-cache", "--library-path", folders, "--list"]
    said = run_program([*command, root / program], what=f"ask {program.name} for its libraries")
    foreign = foreign_libraries(said, root)
    if foreign:
        raise MachineryError(f"Debian's packages leave {program.name} without {', '.join(foreign)}")


def foreign_libraries(said: str, root: Path) -> list[str]:
    """Of what ``ld.so --list`` says: the libraries that are nowhere, or not below ``root``."""
    found = _FOUND.finditer(said)
    return [match["name"] for match in found if not Path(match["path"]).is_relative_to(root)]
