# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's cloud kernels, unpacked: of the image's own suite, and of newer ones.

Nothing is installed.  The headers and kbuild's programs are unpacked into the
same folder, and the absolute paths in them are made relative, so that a module
can be built against them wherever the cache lies.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from harness.arch import GUEST, HOST
from harness.errors import MachineryError
from harness.toolchain.cache import MIB, Cache, key_of
from harness.toolchain.debian_archive import DebianArchive, Package
from harness.toolchain.kernel import Kernel, kernel_compiler_name

#: What a kernel and its headers are cut into depends on the suite.
_PARTS: Final = (
    "linux-base-",
    "linux-binary-",
    "linux-headers-",
    "linux-image-",
    "linux-kbuild-",
    "linux-modules-",
)

#: How the names of headers end that several kernels share.
_COMMON: Final = ("-common", "-common-rt")

# Changes when what is done to the unpacked packages changes.
_UNPACKING: Final = 2


def debian_kernel(cache: Cache, suite: str, image: str, tools: str | None = None) -> Kernel:
    """The kernel that a suite's package ``image`` names at present, with its headers.

    ``tools``: the suite whose programs a module for it is built with, where the
    machine's own cannot be relied on to run the kernel's.
    """
    pool, here = DebianArchive(cache, suite, GUEST), DebianArchive(cache, suite, HOST)
    packages = _packages(pool, here, [image, image.replace("linux-image-", "linux-headers-", 1)])
    prefix = "linux-headers-"
    release = next(
        (
            name.removeprefix(prefix)
            for name in (package.name for package in packages)
            if re.match(rf"{prefix}[0-9]", name) and not name.endswith(_COMMON)
        ),
        None,
    )
    if release is None:
        raise MachineryError(f"Debian {suite}'s {image} leads to no kernel")
    key = key_of(packages=[package.sha256 for package in packages], unpacking=_UNPACKING)

    def build(folder: Path) -> None:
        with cache.events.step("kernel", release=release):
            for package in packages:
                # Kbuild's own programs run here, whatever the kernel is for.
                (here if _runs_here(package.name) else pool).unpack([package], folder)
            _make_relocatable(folder, release)

    folder = cache.get("kernel", key, build, what=f"kernel {release}", space=400 * MIB)
    modules = _existing(folder, f"lib/modules/{release}", f"usr/lib/modules/{release}")
    headers = folder / "usr" / "src" / f"linux-headers-{release}"
    return Kernel(
        vmlinuz=_existing(
            folder,
            f"boot/{GUEST.image_name(release)}",
            f"{modules.relative_to(folder)}/{GUEST.kernel.file}",
        ),
        release=release,
        modules_dir=modules,
        headers=headers,
        digest=key,
        compiler=kernel_compiler_name(headers),
        tools=tools,
    )


def _runs_here(name: str) -> bool:
    return name.startswith("linux-kbuild-")


def _packages(pool: DebianArchive, here: DebianArchive, wanted: list[str]) -> list[Package]:
    """The packages that a kernel and its headers are cut into."""
    found: dict[str, Package] = {}
    while wanted:
        programs = [name for name in wanted if _runs_here(name)]
        rest = [name for name in wanted if not _runs_here(name)]
        found |= {package.name: package for package in (*pool.packages(rest), *here.packages(programs))}
        names = {name.removesuffix("-unsigned") for package in found.values() for name in package.depends}
        wanted = sorted(name for name in names - found.keys() if name.startswith(_PARTS))
    return [found[name] for name in sorted(found)]


def _existing(folder: Path, *places: str) -> Path:
    for place in places:
        if (folder / place).exists():
            return folder / place
    raise MachineryError(f"the kernel's packages have none of {', '.join(places)}")


def _make_relocatable(folder: Path, release: str) -> None:
    makefile = folder / "usr" / "src" / f"linux-headers-{release}" / "Makefile"
    text = makefile.read_text("utf-8")
    text = re.sub(r"^include /usr/src/", "include ../", text, flags=re.MULTILINE)
    here = "$(patsubst %/,%,$(dir $(realpath $(lastword $(MAKEFILE_LIST)))))"
    text = re.sub(
        rf"^KBUILD_OUTPUT=/usr/src/.*{re.escape(release)}$",
        f"KBUILD_OUTPUT := {here}",
        text,
        flags=re.MULTILINE,
    )
    makefile.write_text(text, encoding="utf-8")
    for name in ("build", "source"):
        for modules in ("lib", "usr/lib"):
            link = folder / modules / "modules" / release / name
            if link.is_symlink() and link.readlink().is_absolute():
                target = folder / link.readlink().relative_to("/")
                link.unlink()
                link.symlink_to(os.path.relpath(target, link.parent))
