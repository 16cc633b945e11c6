# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's module, built out of tree from the checkout's sources."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from harness.arch import HOST
from harness.errors import InputError, MachineryError
from harness.toolchain.cache import Cache, key_of, tree_digest
from harness.toolchain.compiler import check_unchanged, kernel_compiler, version_of
from harness.toolchain.cross import Compilers, compilers
from harness.toolchain.kernel import Kernel, check_compiler_files
from harness.toolchain.patches import apply_series, patch_at
from harness.toolchain.run import run_program
from harness.toolchain.suite_root import SuiteRoot, suite_root

MODULE = "freepage_balloon"
#: Builds of the module: as it ships, and with controls for tests in debugfs.
SHIPPED, TEST = "shipped", "test"
VARIANTS = (SHIPPED, TEST)

_SOURCES = ("*.c", "*.h", "Makefile", "Kbuild")
_BUILD = 1  # changes when what is done below changes


@dataclasses.dataclass(frozen=True)
class Builder:
    """Runs kbuild: with the machine's own programs, or with those of the kernel's suite."""

    kernel: Kernel
    compiler: str
    version: str
    root: SuiteRoot | None
    tools: Compilers

    def make(
        self, headers: Path, work: Path, options: Sequence[str], log: Path, sources: Path | None = None
    ) -> None:
        """Build in ``work``; with a suite's programs, it has to be below the cache's folder.

        ``sources``: what ``work`` is a copy of, which errors then name.
        """
        inside = self.root.inside if self.root else lambda path: path
        command: list[str | Path] = [
            *("make", "-C", inside(headers), f"M={inside(work)}", f"CC={self.compiler}"),
            *self.tools.kernel_words,
            # Type information is stripped, and making it needs another program.
            *(*options, "CONFIG_DEBUG_INFO_BTF_MODULES=", f"-j{os.cpu_count() or 1}", "modules"),
        ]
        what = f"build the module for {self.kernel.release}"
        told = {inside(work): sources} if sources is not None else {}
        if self.root:
            self.root.run(command, what=what, scratch=work, log=log, told=told)
        else:
            check_compiler_files(headers)
            run_program(command, what=what, cwd=work, log=log, told=told, env=self.tools.environment())


def builder_for(cache: Cache, kernel: Kernel) -> Builder:
    """What builds modules for a kernel, made if need be."""
    tools = compilers(cache)
    if kernel.tools is not None:
        name = kernel.compiler or f"{tools.prefix}gcc"
        root = suite_root(cache, kernel.tools, _compiler_package(name), *tools.packages)
        return Builder(kernel, name, root.digest, root, tools)
    if tools.folder is not None:
        return Builder(kernel, tools.gcc, tools.version, None, tools)
    compiler = kernel_compiler(kernel)
    return Builder(kernel, compiler, version_of(cache, compiler), None, tools)


def _compiler_package(program: str) -> str:
    """Debian's package with a compiler: ``x86_64-linux-gnu-gcc-14`` is in ``gcc-14``, others are cross."""
    target, _, name = program.rpartition("gnu-")
    other = target and f"{target}gnu" != HOST.multiarch
    return f"{name}-{target.replace('_', '-')}gnu" if other else name


def build_module(
    cache: Cache,
    kernel: Kernel,
    sources: Path,
    variant: str = SHIPPED,
    *,
    patches: Sequence[Path] = (),
) -> Path:
    """``freepage_balloon.ko`` for this kernel, warnings switched on; ``build.log`` is beside it.

    ``patches`` (a deliberate fault) are applied to a copy of the sources, -p1 from
    the project's own folder.
    """
    assert variant in VARIANTS
    files = [path for pattern in _SOURCES for path in sources.rglob(pattern)]
    files = [path for path in files if not path.name.endswith(".mod.c")]  # of a build in place
    if not any(path.name in ("Makefile", "Kbuild") for path in files):
        raise MachineryError(f"there is no module to build in {sources}")
    if kernel.headers is None:
        raise InputError(
            f"no headers for the kernel {kernel.release}, so its module cannot be built",
            hint=f"install linux-headers-{kernel.release}, or name its build tree, not {kernel.vmlinuz}",
        )
    headers, digests = kernel.headers, tree_digest(files, sources)
    series = [patch_at(path) for path in patches]
    builder = builder_for(cache, kernel)
    key = key_of(
        build=_BUILD,
        kernel=kernel.digest,
        sources=digests,
        compiler=builder.version,
        variant=variant,
        patches=[patch.digest for patch in series],
    )

    def build(folder: Path) -> None:
        with cache.events.step("module", kernel=kernel.release, variant=variant):
            # Patches name files as they are in the project.
            tree = folder / "build"
            work = tree / sources.name
            for path in files:
                copy = work / path.relative_to(sources)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)
            apply_series(series, tree, lambda name: _file(sources.parent / name))
            options = ["W=1", *(["FREEPAGE_TEST=1"] if variant == TEST else [])]
            # A file that was patched is not the one that somebody would edit.
            builder.make(headers, work, options, folder / "build.log", None if series else sources)
            built = work / f"{MODULE}.ko"
            if not built.exists():
                raise MachineryError(f"building {sources} made no {MODULE}.ko")
            command: list[str | Path] = [
                builder.tools.strip,
                "--strip-debug",
                "-o",
                folder / f"{MODULE}.ko",
                built,
            ]
            run_program(command, what="strip the module", env=builder.tools.environment())
            shutil.rmtree(tree)
            check_unchanged(digests, files, sources)

    return cache.get("module", key, build, what=f"the module for {kernel.release}") / f"{MODULE}.ko"


def _file(path: Path) -> Path | None:
    return path if path.is_file() else None
