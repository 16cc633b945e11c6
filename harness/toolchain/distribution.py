# SPDX-License-Identifier: GPL-2.0-or-later
"""A Debian guest as people run them: a disk with systemd, sshd and the module, made by mmdebstrap.

The disk is made once for each kernel and module, and kept; every run writes to a copy
of its own.  It boots with the toolchain's kernel and a first stage of ours that
finds the disk (vm-images/guest/stage.c), so that the run's keys and the kernel's
command line get there in the same way as into the small image.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path
from typing import Final

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from harness.arch import GUEST
from harness.errors import InputError, MachineryError
from harness.toolchain import cpio
from harness.toolchain.cache import MIB, Cache, file_digest, key_of, tree_digest
from harness.toolchain.cross import Compilers, compilers
from harness.toolchain.debian_archive import DebianArchive, mirrors
from harness.toolchain.image import GuestImage, load_order, module_entry, program_sources, programs_of
from harness.toolchain.kernel import Kernel
from harness.toolchain.module import MODULE
from harness.toolchain.run import build_environment, find_program, run_program

_BUILD: Final = 2  # changes when what is done below changes


class DistributionRecipe(BaseModel):
    """``vm-images/debian.yaml``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    suite: str
    packages: tuple[str, ...]
    disk: int
    programs: dict[str, str]
    sqlite: tuple[str, ...]
    modules: tuple[str, ...]
    files: dict[str, str]
    scripts: dict[str, str]
    links: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Distribution:
    """The first stage, and the disk that it finds.  Nobody writes to this disk: runs have copies."""

    image: GuestImage
    disk: Path


@dataclasses.dataclass(frozen=True)
class Sources:
    """Of the checkout: the guest's programs, the module, and mmdebstrap's hook."""

    programs: Path
    module: Path
    hook: Path


def read_distribution_recipe(path: Path) -> DistributionRecipe:
    """Read the recipe; errors name the file and the key."""
    try:
        return DistributionRecipe.model_validate(yaml.safe_load(path.read_text("utf-8")))
    except OSError as error:
        raise InputError(f"cannot read the recipe {path}: {error.strerror}") from error
    except (yaml.YAMLError, ValidationError) as error:
        raise InputError(f"{path}: {error}") from error


def build_distribution(
    cache: Cache, kernel: Kernel, module: Path, recipe: DistributionRecipe, sources: Sources
) -> Distribution:
    """The disk and its first stage, for this kernel and this build of the module."""
    modules_dir = kernel.modules_dir
    if modules_dir is None:
        raise InputError(f"the kernel {kernel.release} has no modules: a distribution needs them")
    pool, tools = DebianArchive(cache, recipe.suite, GUEST), compilers(cache)
    packages = pool.packages(recipe.sqlite)
    own = program_sources(sources.programs)
    key = key_of(
        build=_BUILD,
        recipe=recipe.model_dump(mode="json"),
        kernel=kernel.digest,
        module=module.parent.name,
        sqlite=[package.sha256 for package in packages],
        programs=tree_digest(own, sources.programs),
        hook=file_digest(sources.hook),
        compiler=tools.version,
    )

    def build(folder: Path) -> None:
        with cache.events.step("distribution", suite=recipe.suite, kernel=kernel.release) as step:
            work, overlay, root = folder / "work", folder / "overlay", folder / "sqlite"
            for place in (work, overlay, root):
                place.mkdir()
            entries = [
                *programs_of({"/init": "stage"}, sources.programs, work, tools),
                *_first_modules(recipe, kernel, work, tools),
                cpio.character_device("/dev/console", 5, 1),
            ]
            initrd = folder / "initrd.cpio"
            cpio.write_cpio(initrd, cpio.with_parents(entries))
            (folder / "sha256").write_text(file_digest(initrd), encoding="ascii")
            pool.unpack(packages, root)
            for entry in programs_of(recipe.programs, sources.programs, work, tools, _sqlite(root)):
                _write(overlay, entry.path, entry.data, 0o755)
            _lay_out(overlay, recipe)
            _install_module(overlay, kernel.release, modules_dir, module, sources.module)
            _bootstrap(recipe, kernel, sources.hook, overlay, folder / "disk.raw")
            for place in (work, overlay, root):
                shutil.rmtree(place)
            step.note(bytes=(folder / "disk.raw").stat().st_blocks * 512)

    what = f"the Debian guest for {kernel.release}"
    folder = cache.get("distribution", key, build, what=what, space=2048 * MIB)
    initrd = folder / "initrd.cpio"
    image = GuestImage(initrd, (folder / "sha256").read_text("ascii"), initrd.stat().st_size)
    return Distribution(image, folder / "disk.raw")


def _first_modules(
    recipe: DistributionRecipe, kernel: Kernel, work: Path, tools: Compilers
) -> list[cpio.CpioEntry]:
    files = kernel.module_files()
    order = load_order(recipe.modules, files, kernel.builtin())
    listing = "".join(f"{name}\n" for name in order).encode()
    return [
        *(module_entry(name, files[name], work, tools) for name in order),
        cpio.file("/etc/modules.list", listing),
    ]


def _sqlite(root: Path) -> tuple[str, ...]:
    """What make is told to link SQLite out of the unpacked packages."""
    library = next(root.rglob("libsqlite3.a"), None)
    if library is None:
        raise MachineryError("the packages of the recipe have no libsqlite3.a")
    flags = f"-DWITH_SQLITE -I{root / 'usr' / 'include'}"
    return (f"WORKLOAD_FLAGS={flags}", f"WORKLOAD_LIBS={library} -lm")


def _write(overlay: Path, name: str, data: bytes, mode: int) -> None:
    path = overlay / name.lstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(mode)


def _lay_out(overlay: Path, recipe: DistributionRecipe) -> None:
    for name, text in recipe.files.items():
        _write(overlay, name, text.encode(), 0o644)
    for name, text in recipe.scripts.items():
        _write(overlay, name, text.encode(), 0o755)
    for name, target in recipe.links.items():
        path = overlay / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)


def _install_module(overlay: Path, release: str, modules_dir: Path, module: Path, sources: Path) -> None:
    """The kernel's modules, and ours where DKMS would have put it."""
    # /lib is a link to usr/lib in the root: what is laid over it must not be a folder.
    target = overlay / "usr" / "lib" / "modules" / release
    shutil.copytree(modules_dir, target, ignore=shutil.ignore_patterns("build", "source"))
    updates = target / "updates" / "dkms"
    updates.mkdir(parents=True)
    shutil.copyfile(module, updates / f"{MODULE}.ko")
    place = overlay / "usr" / "src" / "freepage-balloon-0.1"
    for path in sources.rglob("*"):
        if path.suffix in (".c", ".h") or path.name in ("Makefile", "Kbuild"):
            copy = place / path.relative_to(sources)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)


def _bootstrap(recipe: DistributionRecipe, kernel: Kernel, hook: Path, overlay: Path, disk: Path) -> None:
    find_program("mke2fs")
    failure: MachineryError | None = None
    for mirror in mirrors():
        command: list[str | Path] = [
            *_apart(),
            *("mmdebstrap", "--quiet", "--variant=minbase", "--format=null"),
            f"--include={','.join(recipe.packages)}",
            f"--customize-hook={hook}",
            *(recipe.suite, "-", mirror),
        ]
        env = build_environment(
            FREEPAGE_OVERLAY=str(overlay),
            FREEPAGE_RELEASE=kernel.release,
            FREEPAGE_DISK=str(disk),
            FREEPAGE_BYTES=str(recipe.disk),
            TMPDIR=str(_room(disk)),
        )
        try:
            run_program(command, what=f"make a guest of Debian {recipe.suite}", cwd=disk.parent, env=env)
        except MachineryError as error:
            failure = error
        else:
            return
    assert failure is not None
    raise failure


def _apart() -> tuple[str, ...]:
    """As root mmdebstrap mounts /proc where everybody sees it, and who copies the cache then copies that.

    As anybody else it makes namespaces of its own.
    """
    return ("unshare", "--mount", "--propagation", "private", "--") if os.geteuid() == 0 else ()


def _room(disk: Path) -> Path:
    """Where the root is put together: on the cache's disk, which has room; a user namespace may enter."""
    room = disk.parent / "work"
    os.chmod(room, 0o755)  # noqa: PTH101, S103 - nothing secret is in there
    return room
