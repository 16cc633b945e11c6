# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's kernel: what one is, and one that the user names by its path."""

from __future__ import annotations

import dataclasses
import gzip
import lzma
import re
from pathlib import Path

from harness.arch import GUEST, Architecture
from harness.errors import InputError
from harness.toolchain.cache import file_digest, key_of
from harness.toolchain.run import run_program


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A kernel to boot a guest with, and what it takes to build a module for it."""

    vmlinuz: Path
    release: str
    modules_dir: Path | None
    headers: Path | None
    digest: str
    compiler: str | None = None
    #: The Debian suite whose programs its module is built with; None: the machine's own.
    tools: str | None = None

    def builtin(self) -> frozenset[str]:
        """The modules that are part of the kernel itself."""
        listing = self.modules_dir / "modules.builtin" if self.modules_dir else None
        if listing is None or not listing.exists():
            return frozenset()
        return frozenset(module_name(Path(line)) for line in listing.read_text("utf-8").split())

    def module_files(self) -> dict[str, Path]:
        """Every loadable module by name."""
        if self.modules_dir is None:
            return {}
        return {module_name(path): path for path in self.modules_dir.rglob("*.ko*") if path.is_file()}


def module_name(path: Path) -> str:
    """A module's name from its file's: ``virtio-rng.ko.xz`` is ``virtio_rng``."""
    return path.name.split(".ko", 1)[0].replace("-", "_")


def read_module(path: Path) -> bytes:
    """A module's ELF file, uncompressed."""
    if path.suffix == ".xz":
        return lzma.decompress(path.read_bytes())
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes())
    if path.suffix == ".zst":
        raise InputError(f"{path} is compressed with zstd", hint="unpack it: unzstd FILE")
    return path.read_bytes()


def kernel_release(vmlinuz: Path, architecture: Architecture = GUEST) -> str:
    """What ``uname -r`` will say, as the image says it."""
    release = architecture.kernel.release(vmlinuz.read_bytes())
    if release is None:
        raise InputError(
            f"{vmlinuz} is not {architecture.kernel.noun}", hint="name a vmlinuz, or a kernel's build tree"
        )
    return release


def named_kernel(path: Path) -> Kernel:
    """The kernel that the user names: a vmlinuz, a build tree, or a folder with boot/ and lib/modules/."""
    path = path.absolute()
    if not path.exists():
        raise InputError(f"there is no kernel at {path}")
    if path.is_dir():
        vmlinuz, root, headers = _from_folder(path)
    else:
        vmlinuz, root, headers = path, path.parent.parent if path.parent.name == "boot" else Path("/"), None
    try:
        release = kernel_release(vmlinuz)
    except OSError as error:
        raise InputError(f"cannot read the kernel {vmlinuz}: {error.strerror}") from error
    modules = next(
        (d for d in (root / "lib" / "modules" / release, Path("/lib/modules") / release) if d.is_dir()), None
    )
    if headers is None:
        headers = _headers_of(root, release, modules)
    digest = key_of(
        vmlinuz=file_digest(vmlinuz),
        modules=_folder_state(modules) if modules else None,
        symbols=file_digest(headers / "Module.symvers") if headers else None,
    )
    compiler = kernel_compiler_name(headers) if headers else None
    return Kernel(vmlinuz, release, modules, headers, digest, compiler)


def _from_folder(path: Path) -> tuple[Path, Path, Path | None]:
    built = path / "arch" / GUEST.kernel.source / "boot" / GUEST.kernel.target
    if built.exists():
        if not (path / "Module.symvers").exists():
            raise InputError(
                f"{path} is a kernel's build tree without Module.symvers: no module can be built against it",
                hint="build its modules as well (make modules)",
            )
        return built, path, path
    found = sorted((path / "boot").glob(GUEST.image_name("*")))
    if len(found) != 1:
        what = "no vmlinuz" if not found else f"{len(found)} kernels"
        raise InputError(
            f"{path} holds {what} in boot/", hint="name the vmlinuz itself, or a kernel's build tree"
        )
    return found[0], path, None


def _headers_of(root: Path, release: str, modules: Path | None) -> Path | None:
    candidates = [root / "usr" / "src" / f"linux-headers-{release}"]
    if modules is not None:
        candidates.append(modules / "build")
    return next((path for path in candidates if (path / "Module.symvers").exists()), None)


def _folder_state(folder: Path) -> str:
    """Which files a folder has, by size and time: reading all of a distribution's modules takes seconds."""
    files = sorted(path for path in folder.rglob("*.ko*") if path.is_file())
    state = [(str(path.relative_to(folder)), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return key_of(files=state)


def kernel_compiler_name(headers: Path) -> str | None:
    """The name of the compiler that made the kernel: ``gcc-12``."""
    config = headers / ".config"
    match = (
        re.search(r'^CONFIG_CC_VERSION_TEXT="(\S+)', config.read_text("utf-8"), re.M)
        if config.exists()
        else None
    )
    return match[1] if match else None


def check_compiler_files(headers: Path) -> None:
    """Kbuild's own programs must run here: they come from the kernel's suite, not the host's."""
    modpost = headers / "scripts" / "mod" / "modpost"
    if modpost.exists():
        run_program(
            [modpost],
            what="run the kernel's own build programs (are they of a newer Debian than this machine?)",
        )
