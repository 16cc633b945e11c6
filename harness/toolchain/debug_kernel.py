# SPDX-License-Identifier: GPL-2.0-or-later
"""The debug kernel: Debian's kernel source, with a small configuration and all checks that matter here.

Built once for a source, a configuration and a compiler.  What is kept of it is
what a distribution would package: the kernel, its modules, and of the source
what it takes to build a module against it.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Final

from harness.arch import GUEST
from harness.errors import MachineryError
from harness.toolchain.cache import GIB, Cache, file_digest, key_of
from harness.toolchain.compiler import version_of
from harness.toolchain.debian_archive import DebianArchive
from harness.toolchain.kernel import Kernel
from harness.toolchain.kernel_files import keep_for_modules, lost_options
from harness.toolchain.run import find_program, run_program

_SOURCE: Final = "linux-source"
_BUILD: Final = 1  # changes when what is done below changes

#: Source, objects with debugging information, and packages.
_SPACE: Final = 8 * GIB

_COMPILING: Final = re.compile(r"^  (?:CC|AS|AR|LD|HOSTCC) ")


def debug_kernel(cache: Cache, suite: str, fragment: Path) -> Kernel:
    """The debug kernel of a suite's kernel source; ``fragment`` is merged into the smallest configuration."""
    pool = DebianArchive(cache, suite)
    (meta,) = pool.packages([_SOURCE])
    name = next((name for name in meta.depends if name.startswith(f"{_SOURCE}-")), None)
    if name is None:
        raise MachineryError(f"Debian's package {_SOURCE} depends on no source: {meta.depends}")
    (package,) = pool.packages([name])
    compiler = str(find_program("gcc"))
    key = key_of(
        build=_BUILD,
        source=package.sha256,
        fragment=file_digest(fragment),
        compiler=version_of(cache, compiler),
    )

    def build(folder: Path) -> None:
        work = folder / "build"
        work.mkdir()
        with cache.events.step("debug kernel", source=name, version=package.version):
            for program in ("flex", "bison", "bc", "pahole"):
                find_program(program)  # said now, and not by make in the middle of its output
            pool.unpack([package], work)
            run_program(
                ["tar", "-xf", work / "usr" / "src" / f"{name}.tar.xz"], what=f"unpack {name}", cwd=work
            )
            _Tree(cache, work / name, folder / "build.log").build(fragment, folder)
        shutil.rmtree(work)

    folder = cache.get("debug-kernel", key, build, what="the debug kernel", space=_SPACE)
    release = (folder / "release").read_text("utf-8").strip()
    return Kernel(
        vmlinuz=folder / "boot" / GUEST.image_name(release),
        release=release,
        modules_dir=folder / "lib" / "modules" / release,
        headers=folder / "usr" / "src" / f"linux-headers-{release}",
        digest=key,
    )


class _Tree:
    """A kernel's source in which one build is made."""

    def __init__(self, cache: Cache, source: Path, log: Path) -> None:
        self._cache = cache
        self._source = source
        self._log = log
        self._compiled = 0

    def build(self, fragment: Path, into: Path) -> None:
        """Configure, compile, and put what is kept of it into a folder."""
        self._make("tinyconfig")
        merge = self._source / "scripts" / "kconfig" / "merge_config.sh"
        words: list[str | Path] = [merge, "-m", "-O", self._source, self._source / ".config", fragment]
        run_program(words, what="merge the configuration", cwd=self._source, log=self._log)
        self._make("olddefconfig")
        lost = lost_options(
            fragment.read_text("utf-8").splitlines(), (self._source / ".config").read_text("utf-8")
        )
        if lost:
            raise MachineryError(
                f"this kernel source does not take {', '.join(lost)}", hint=f"{fragment} says what is wanted"
            )
        with self._cache.events.step("compile"):
            self._make(GUEST.kernel.target, "modules")
        release = (self._source / "include" / "config" / "kernel.release").read_text("utf-8").strip()
        self._make("modules_install", f"INSTALL_MOD_PATH={into}", "INSTALL_MOD_STRIP=1", "DEPMOD=true")
        for link in ("build", "source"):
            (into / "lib" / "modules" / release / link).unlink(missing_ok=True)
        (into / "boot").mkdir()
        image = self._source / "arch" / GUEST.kernel.source / "boot" / GUEST.kernel.target
        shutil.copy(image, into / "boot" / GUEST.image_name(release))
        keep_for_modules([self._source], into / "usr" / "src" / f"linux-headers-{release}")
        (into / "release").write_text(f"{release}\n", encoding="utf-8")

    def _make(self, *targets: str) -> None:
        command = ["make", f"-j{os.cpu_count() or 1}", *targets]
        what = f"build the debug kernel ({targets[0]})"
        run_program(command, what=what, cwd=self._source, log=self._log, on_line=self._follow)

    def _follow(self, line: str) -> None:
        if _COMPILING.match(line):
            self._compiled += 1
            self._cache.events.emit("progress", step="compile", done=self._compiled, unit="files")
