# SPDX-License-Identifier: GPL-2.0-or-later
"""The archive with a compiler and sources in it, for guests that compile.

The kernel unpacks one archive after the other, so this one goes behind the guest's
image, and only guests that need it carry its weight.  What is compiled, and by which
command line, comes from the source package's own makefile, asked what it would do.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from harness.arch import GUEST
from harness.errors import InputError, MachineryError
from harness.toolchain import cpio
from harness.toolchain.cache import MIB, Cache, key_of
from harness.toolchain.debian_archive import DebianArchive
from harness.toolchain.image import binaries_of
from harness.toolchain.run import run_program

_BUILD = 1  # changes when what is done below changes
#: What the guest's program reads; see vm-images/guest/workloads/compile.c.
_PLACE = "/build"
#: Sources that a compiler of C reads, and what they include.
_WANTED = (".c", ".h", ".in")


class CompileRecipe(BaseModel):
    """``vm-images/compile.yaml``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    suite: str
    packages: tuple[str, ...]
    binaries: dict[str, str]
    source: str


def read_compile_recipe(path: Path) -> CompileRecipe:
    """Read the recipe; errors name the file and the key."""
    try:
        return CompileRecipe.model_validate(yaml.safe_load(path.read_text("utf-8")))
    except OSError as error:
        raise InputError(f"cannot read the recipe {path}: {error.strerror}") from error
    except (yaml.YAMLError, ValidationError) as error:
        raise InputError(f"{path}: {error}") from error


def build_compile_archive(cache: Cache, recipe: CompileRecipe) -> Path:
    """The archive; the program that calls the compiler is in the guest's image."""
    pool = DebianArchive(cache, recipe.suite)
    packages, source = pool.packages(recipe.packages), pool.source(recipe.source)
    key = key_of(
        build=_BUILD,
        recipe=recipe.model_dump(mode="json"),
        packages=[package.sha256 for package in packages],
        source=list(source.files),
    )

    def build(folder: Path) -> None:
        with cache.events.step("compile image", source=f"{source.name} {source.version}") as step:
            root, fetched = folder / "root", folder / "source"
            for place in (root, fetched):
                place.mkdir()
            pool.unpack(packages, root)
            tree = fetched / "tree"
            pool.unpack_source(source, tree)
            entries = [
                *binaries_of(recipe.binaries, root),
                *_build_tree(tree),
            ]
            archive = folder / "compile.cpio"
            cpio.write_cpio(archive, cpio.with_parents(entries))
            for place in (root, fetched):
                shutil.rmtree(place)
            step.note(bytes=archive.stat().st_size)

    what = "the compiler for guests that compile"
    return cache.get("compile", key, build, what=what, space=1024 * MIB) / "compile.cpio"


def _build_tree(tree: Path) -> Iterator[cpio.CpioEntry]:
    """The sources, the headers that their makefile generates, and what it would have compiled how."""
    run_program(
        ["sh", "./configure", f"--target={GUEST.name}", "CC=gcc"],
        what="configure the sources to compile",
        cwd=tree,
    )
    said = run_program(["make", "-n", "lib/libc.a"], what="ask what there is to compile", cwd=tree)
    commands = [line for line in said.splitlines() if re.search(r" -c -o \S+ \S+\.c$", line)]
    if not commands:
        raise MachineryError(f"the makefile of {tree} compiles nothing that could be told")
    generated = [
        str(path)
        for path in re.findall(r"> (\S+/(?:alltypes|syscall|version)\.h)", said)
        if not Path(path).is_absolute()
    ]
    run_program(["make", *dict.fromkeys(generated)], what="make the generated headers", cwd=tree)
    flags = shlex.split(commands[0])[1:]
    flags = [
        word for word in flags[: flags.index("-c")] if not word.startswith("-W") or word.startswith("-Wa,")
    ]
    files = [shlex.split(line)[-1] for line in commands]
    yield cpio.file(f"{_PLACE}/flags", "".join(f"{word}\n" for word in flags).encode())
    yield cpio.file(f"{_PLACE}/list", "".join(f"{name}\n" for name in files).encode())
    for path in sorted(tree.rglob("*")):
        if path.is_file() and not path.is_symlink() and path.suffix in _WANTED:
            yield cpio.file(f"{_PLACE}/src/{path.relative_to(tree)}", path.read_bytes())
