# SPDX-License-Identifier: GPL-2.0-or-later
"""Which compiler makes what, and whether what it made is what was there to be made."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from harness.errors import MachineryError
from harness.toolchain.cache import Cache, tree_digest
from harness.toolchain.kernel import Kernel
from harness.toolchain.run import find_program, run_program, search_path


def kernel_compiler(kernel: Kernel) -> str:
    """The compiler that made the kernel if it is here, else the machine's own."""
    if kernel.compiler and shutil.which(kernel.compiler, path=search_path()):
        return kernel.compiler
    return str(find_program("gcc"))


def version_of(cache: Cache, compiler: str) -> str:
    """What the compiler says it is, asked once for each change of its file: a part of all keys."""
    path = find_program(compiler).resolve()
    state = path.stat()
    mark = f"{path} {state.st_size} {state.st_mtime_ns}"
    known = cache.recall("compilers")
    versions: dict[str, object] = known if isinstance(known, dict) else {}
    if mark not in versions:
        said = run_program(
            [compiler, "-dumpfullversion", "-dumpmachine"], what="ask the compiler's version"
        ).strip()
        versions = {**versions, mark: said}
        cache.remember("compilers", versions)
    return str(versions[mark])


def check_unchanged(digests: dict[str, str], files: Iterable[Path], sources: Path) -> None:
    """What was built has to be what its key says, even if somebody edits it meanwhile."""
    try:
        same = tree_digest(files, sources) == digests
    except FileNotFoundError:
        same = False
    if not same:
        raise MachineryError(f"{sources} was changed while it was being built", hint="build it again")
