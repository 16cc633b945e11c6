# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs on the host that serve a guest's device: the machine's own, or Debian's, which is not installed.

One of Debian's is unpacked into the cache with all that it needs, and started by the loader of its
own suite, so it runs whatever this machine is.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.arch import HOST
from harness.errors import InputError, MachineryError
from harness.toolchain.cache import MIB, Cache, key_of
from harness.toolchain.debian_archive import DebianArchive

_BUILD: Final = 1  # changes when what is done below changes
_FOLDERS: Final = (f"usr/lib/{HOST.multiarch}", f"lib/{HOST.multiarch}", f"usr/lib/{HOST.multiarch}/swtpm")
_LOADER: Final = "ld-linux*.so.*"
#: How long a program may take to say which options it has.
_HELP_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class HostProgram:
    """A program: where it is installed, an option that it must have, and the Debian package that has it."""

    places: tuple[str, ...]
    option: str
    suite: str
    package: str

    def installed(self) -> Path | None:
        """The machine's own, if it knows the option."""
        for place in self.places:
            found = shutil.which(place)
            if found is not None and self.option in _help_of(found):
                return Path(found)
        return None


PROGRAMS: Final = {
    "dnsmasq": HostProgram(("dnsmasq", "/usr/sbin/dnsmasq"), "--dhcp-range", "bookworm", "dnsmasq-base"),
    "swtpm": HostProgram(("swtpm",), "socket", "bookworm", "swtpm"),
    # The one that QEMU had of its own, until 8.0, cannot be migrated.
    "virtiofsd": HostProgram(
        ("virtiofsd", "/usr/libexec/virtiofsd", "/usr/lib/virtiofsd"),
        "--migration-mode",
        "trixie",
        "virtiofsd",
    ),
}


def host_program(cache: Cache, name: str) -> tuple[str, ...]:
    """The words that start a program.

    Raises :class:`harness.errors.InputError` where there is none, and Debian's cannot be had.
    """
    program = PROGRAMS[name]
    own = program.installed()
    if own is not None:
        return (str(own),)
    try:
        folder = _unpacked(cache, name, program)
    except MachineryError as error:
        raise InputError(
            f"{name} is not installed, and Debian's package {program.package} cannot be had: {error.message}",
            hint=f"install a {name} that knows '{program.option}'",
        ) from error
    loader = next((path for path in sorted(folder.rglob(_LOADER)) if path.is_file()), None)
    binary = next(
        (path for path in sorted(folder.rglob(name)) if path.is_file() and path.parent.name != name), None
    )
    if loader is None or binary is None:
        raise MachineryError(f"Debian's package {program.package} has no {name}, or its suite no loader")
    libraries = ":".join(str(folder / place) for place in _FOLDERS)
    return (str(loader), "--library-path", libraries, str(binary))


def _unpacked(cache: Cache, name: str, program: HostProgram) -> Path:
    pool = DebianArchive(cache, program.suite)
    packages = pool.closure([program.package])
    key = key_of(build=_BUILD, packages=[package.sha256 for package in packages])

    def build(folder: Path) -> None:
        with cache.events.step("host program", program=name):
            pool.unpack(packages, folder)
            for waste in ("usr/share/doc", "usr/share/locale", "usr/share/man"):
                shutil.rmtree(folder / waste, ignore_errors=True)

    return cache.get("program", key, build, what=name, space=200 * MIB)


def _help_of(path: str) -> str:
    command = [path, "--help"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_HELP_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (done.stdout + done.stderr).decode(errors="replace")
