# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's initramfs, built from the checkout's sources."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from harness.arch import GUEST
from harness.errors import InputError, MachineryError
from harness.toolchain import cpio
from harness.toolchain.cache import MIB, Cache, file_digest, key_of, tree_digest
from harness.toolchain.compiler import check_unchanged
from harness.toolchain.cross import Compilers, compilers
from harness.toolchain.debian_archive import DebianArchive
from harness.toolchain.kernel import Kernel, module_name, read_module
from harness.toolchain.module import MODULE
from harness.toolchain.recipe import Recipe
from harness.toolchain.run import run_program

_BUILD = 2  # changes when what is done below changes
_LIBRARY_FOLDERS = (
    f"lib/{GUEST.multiarch}",
    f"usr/lib/{GUEST.multiarch}",
    "lib",
    "usr/lib",
    "lib64",
    "usr/lib64",
)


@dataclasses.dataclass(frozen=True)
class GuestImage:
    """An initramfs.  It holds nothing that belongs to one run: keys come in a run's overlay."""

    initrd: Path
    sha256: str
    size: int


def build_image(cache: Cache, kernel: Kernel, module: Path, recipe: Recipe, sources: Path) -> GuestImage:
    """The initramfs for this kernel; ``sources`` holds the guest's own programs."""
    programs = program_sources(sources)
    digests = tree_digest(programs, sources)
    pool, tools = DebianArchive(cache, recipe.suite, GUEST), compilers(cache)
    packages = pool.packages(recipe.packages)
    key = key_of(
        build=_BUILD,
        recipe=recipe.model_dump(mode="json"),
        kernel=kernel.digest,
        module=module.parent.name,  # the key of the module's own entry
        packages=[package.sha256 for package in packages],
        sources=digests,
        compiler=tools.version,
    )

    def build(folder: Path) -> None:
        with cache.events.step("image", kernel=kernel.release) as step:
            root, work = folder / "root", folder / "build"
            root.mkdir()
            work.mkdir()
            pool.unpack(packages, root)
            entries = [
                *programs_of(recipe.programs, sources, work, tools),
                *binaries_of(recipe.binaries, root),
                *_modules(recipe, kernel, module, work, tools),
                *_plain(recipe),
            ]
            initrd = folder / "initrd.cpio"
            cpio.write_cpio(initrd, cpio.with_parents(entries))
            size = initrd.stat().st_size
            if size > recipe.size_limit:
                raise MachineryError(
                    f"the image is {size} bytes, more than the {recipe.size_limit} of its recipe"
                )
            (folder / "sha256").write_text(file_digest(initrd), encoding="ascii")
            shutil.rmtree(root)
            shutil.rmtree(work)
            check_unchanged(digests, programs, sources)
            step.note(bytes=size)

    folder = cache.get("image", key, build, what="the guest's image", space=200 * MIB)
    initrd = folder / "initrd.cpio"
    return GuestImage(initrd, (folder / "sha256").read_text("ascii"), initrd.stat().st_size)


def program_sources(sources: Path) -> list[Path]:
    """All that the guest's programs are made of."""
    patterns = ("Makefile", "*.c", "*.h")
    return [path for pattern in patterns for path in sources.rglob(pattern) if "tests" not in path.parts]


def programs_of(
    programs: Mapping[str, str], sources: Path, work: Path, tools: Compilers, words: Sequence[str] = ()
) -> list[cpio.CpioEntry]:
    """Programs of our own: path in the guest to the name that the sources' Makefile has for it.

    ``words``: what make is told beside, as the Makefile describes it.
    """
    folder = work / "programs"
    targets = [folder / name for name in dict.fromkeys(programs.values())]
    command: list[str | Path] = ["make", "-C", sources, f"-j{os.cpu_count() or 1}", f"O={folder}"]
    command += [*tools.make_words, *words, *targets]
    run_program(command, what="compile the guest's programs", cwd=work, env=tools.environment())
    return [cpio.file(target, (folder / name).read_bytes(), 0o755) for target, name in programs.items()]


def binaries_of(binaries: Mapping[str, str], root: Path) -> list[cpio.CpioEntry]:
    """Programs out of packages, and the closure of the libraries that they need."""
    entries: dict[str, cpio.CpioEntry] = {}
    wanted: list[Path] = []
    for target, source in binaries.items():
        path = file_in_root(root, source)
        if path is None:
            raise MachineryError(f"the image's recipe names {source}, which none of its packages has")
        entries[target] = cpio.file(target, path.read_bytes(), 0o755)
        wanted.append(path)
    while wanted:
        interpreter, libraries = needed_by(wanted.pop())
        # The interpreter is loaded already when a library asks for it by name.
        libraries = [name for name in libraries if not name.startswith("ld-linux")]
        for target in (
            *([interpreter] if interpreter else []),
            *(f"/lib/{GUEST.multiarch}/{name}" for name in libraries),
        ):
            if target in entries:
                continue
            path = _library(root, target)
            entries[target] = cpio.file(target, path.read_bytes(), 0o755)
            wanted.append(path)
    return list(entries.values())


def needed_by(path: Path) -> tuple[str | None, list[str]]:
    """The interpreter and the shared libraries that an ELF file names itself."""
    text = run_program(
        ["readelf", "--wide", "--program-headers", "--dynamic", path], what=f"read {path.name}"
    )
    interpreter = re.search(r"Requesting program interpreter: ([^\]]+)\]", text)
    return (interpreter[1] if interpreter else None), re.findall(
        r"\(NEEDED\)\s+Shared library: \[([^\]]+)\]", text
    )


def _library(root: Path, target: str) -> Path:
    name = Path(target).name
    for place in (target, *(f"{folder}/{name}" for folder in _LIBRARY_FOLDERS)):
        path = file_in_root(root, place)
        if path is not None:
            return path
    raise MachineryError(
        f"the image needs {name}, which none of its packages has", hint="add its package to the recipe"
    )


def file_in_root(root: Path, name: str) -> Path | None:
    """A file of the unpacked packages, links followed as if ``root`` were the file system's root."""
    path = root / name.lstrip("/")
    for _ in range(8):
        if not path.is_symlink():
            return path if path.is_file() else None
        target = path.readlink()
        path = (
            root / target.relative_to("/")
            if target.is_absolute()
            else Path(os.path.normpath(path.parent / target))
        )
    return None


def _modules(
    recipe: Recipe, kernel: Kernel, module: Path, work: Path, tools: Compilers
) -> list[cpio.CpioEntry]:
    files, builtin = kernel.module_files(), kernel.builtin()
    order = load_order(recipe.modules, files, builtin)
    drivers = [name for name in load_order(recipe.drivers, files, builtin) if name not in order]
    for name in (*recipe.drivers, MODULE):
        if name in builtin:
            raise InputError(
                f"{name} is built into the kernel {kernel.release}: a guest cannot choose its driver"
            )
    # What the drivers need but nobody else does (none today) has to be loaded before them.
    order += [name for name in drivers if name not in recipe.drivers]
    entries = [module_entry(name, files[name], work, tools) for name in (*order, *recipe.drivers)]
    entries += [module_entry(name, files[name], work, tools) for name in recipe.optional if name in files]
    entries.append(module_entry(MODULE, module, work, tools))
    entries.append(cpio.file("/etc/modules.list", "".join(f"{name}\n" for name in order).encode()))
    return entries


def module_entry(name: str, path: Path, work: Path, tools: Compilers) -> cpio.CpioEntry:
    """A module as the image has it: uncompressed, without what only a debugger reads."""
    plain = work / f"{name}.ko"
    plain.write_bytes(read_module(path))
    command: list[str | Path] = [tools.strip, "--strip-debug", plain]
    run_program(command, what=f"strip {path.name}", env=tools.environment())
    return cpio.file(f"/lib/modules/{name}.ko", plain.read_bytes())


def module_depends(data: bytes) -> list[str]:
    """What a module's file says that it needs (``depends=`` of its .modinfo section)."""
    match = re.search(rb"\0depends=([a-zA-Z0-9_,-]*)\0", data)
    names = match[1].decode().split(",") if match else []
    return [module_name(Path(name)) for name in names if name]


def module_asks_first(data: bytes) -> list[str]:
    """What a module would like to have before it (``softdep=pre:``): maybe a name of several modules."""
    found = re.findall(rb"\0softdep=pre: ([a-zA-Z0-9_ -]*?)(?: post:[^\0]*)?\0", data)
    return [module_name(Path(name)) for line in found for name in line.decode().split()]


def load_order(names: Sequence[str], files: dict[str, Path], builtin: Iterable[str]) -> list[str]:
    """These modules and what they need, each after what it needs itself."""
    order: list[str] = []
    present = frozenset(builtin)

    def visit(name: str) -> None:
        if name in order or name in present:
            return
        if name not in files:
            raise InputError(f"the kernel has no module {name}, which a guest needs")
        data = read_module(files[name])
        for other in module_depends(data):
            visit(other)
        for wanted in module_asks_first(data):
            # A cipher or checksum is asked for as crypto-NAME; the portable form of it is NAME_generic.
            portable = f"{wanted.removeprefix('crypto_')}_generic"
            found = next((one for one in (wanted, portable) if one in files), None)
            if found is not None:
                visit(found)
        order.append(name)

    for name in names:
        visit(name)
    return order


def _plain(recipe: Recipe) -> list[cpio.CpioEntry]:
    return [
        # The kernel opens its console before init has mounted anything.
        cpio.character_device("/dev/console", 5, 1),
        *(cpio.directory(name, mode) for name, mode in recipe.directories.items()),
        *(cpio.symlink(name, target) for name, target in recipe.links.items()),
        *(cpio.file(name, text.encode()) for name, text in recipe.files.items()),
    ]
