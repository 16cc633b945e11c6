# SPDX-License-Identifier: GPL-2.0-or-later
"""What a nested machine is made of: this host's QEMU, Debian's kernel, a first file system.

The kernel is Debian's full one (the cloud flavour has no 9p); nothing is
installed.  Its few modules that the machine needs are in the first file system,
so that it needs none of the host's.  Everything after that is this host's own
root, and virtme-ng's init, which makes the usual mounts there.
"""

from __future__ import annotations

import lzma
import re
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.arch import HOST
from harness.errors import InputError, MachineryError
from harness.toolchain import cpio
from harness.toolchain.cache import MIB, Cache, file_digest, key_of
from harness.toolchain.debian_archive import DebianArchive
from harness.toolchain.image import load_order
from harness.toolchain.kernel import Kernel, read_module
from harness.toolchain.recipe import read_recipe
from harness.toolchain.run import run_program, search_path
from harness.toolchain.sources import sources
from harness.toolchain.system_packages import how_to_install

#: Names Debian's current kernel, all modules included.
KERNEL_PACKAGE: Final = f"linux-image-{HOST.debian}"

#: For the machine itself, for the lab's network, for guests.
MODULES: Final = (
    "virtio_pci",
    "virtio_net",
    "virtio_console",
    "virtio_rng",
    "9pnet_virtio",
    "9p",
    "overlay",
    "tun",
    "vhost_net",
    "vhost_vsock",
    "bridge",
    "veth",
    "sch_tbf",
    "kvm_amd",
    "kvm_intel",
)

QEMU: Final = HOST.qemu_binary
_PROGRAMS: Final = ("cat", "echo", "insmod", "mkdir", "mount", "rm", "sh", "switch_root", "umount")
_FOLDERS: Final = ("dev", "proc", "sys", "lower", "upper", "newroot")
_INIT: Final = Path(__file__).with_name("init.sh")
_FORM: Final = 1  # changes when what is done below changes


@dataclass(frozen=True, slots=True)
class Parts:
    """All that a nested machine boots."""

    qemu: Path
    qemu_version: str
    kernel: Path
    kernel_release: str
    initrd: Path
    #: virtme-ng's init, at its place on this host, where the machine finds it too.
    init: Path


def machine_parts(cache: Cache) -> Parts:
    """Find or make everything.  Raises :class:`MachineryError` that says what to install."""
    qemu, version = _qemu(cache)
    init = _virtme_init()
    folder, release = _boot_files(cache)
    return Parts(qemu, version, folder / "vmlinux", release, folder / "initrd.cpio", init)


# --- programs of this host


def _qemu(cache: Cache) -> tuple[Path, str]:
    """This host's QEMU: with 9p, which the QEMUs under test are built without."""
    found = shutil.which(QEMU, path=search_path())
    if found is None:
        raise MachineryError(
            f"a nested machine needs {QEMU}, and there is none",
            hint=how_to_install("qemu-system-x86"),
        )
    path = Path(found).resolve()
    state = path.stat()
    mark = f"{path} {state.st_size} {state.st_mtime_ns}"
    known = cache.recall("nested-qemu")
    if not isinstance(known, dict) or known.get("mark") != mark:
        said = run_program([path, "-version"], what=f"ask {path} for its version", seconds=20)
        version = re.search(r"version (\S+)", said)
        devices = run_program([path, "-device", "help"], what=f"ask {path} for its devices", seconds=20)
        known = {
            "mark": mark,
            "version": version[1] if version else "unknown",
            "has_9p": '"virtio-9p-pci"' in devices,
        }
        cache.remember("nested-qemu", known)
    if not known["has_9p"]:
        raise MachineryError(
            f"{path} cannot share folders with a machine (it has no virtio-9p-pci)",
            hint=how_to_install("qemu-system-x86"),
        )
    return path, str(known["version"])


def _virtme_init() -> Path:
    try:
        from virtme.resources import find_guest_tools
    except ImportError as error:
        raise MachineryError("a nested machine needs virtme-ng", hint="pip install virtme-ng") from error
    tools = find_guest_tools()
    path = Path(tools or "", "bin", "virtme-ng-init")
    if tools is None or not path.is_file():
        raise MachineryError(
            f"this virtme-ng has no virtme-ng-init ({path})",
            hint="install it from a wheel: pip install virtme-ng",
        )
    return path.resolve()


# --- kernel and first file system


def _boot_files(cache: Cache) -> tuple[Path, str]:
    suite = read_recipe(sources() / "vm-images" / "image.yaml").suite
    pool = DebianArchive(cache, suite)
    (meta,) = pool.packages([KERNEL_PACKAGE])
    name = next((name for name in meta.depends if name.startswith("linux-image-")), None)
    if name is None:
        raise MachineryError(f"Debian's package {KERNEL_PACKAGE} depends on no kernel: {meta.depends}")
    release = name.removesuffix("-unsigned").removeprefix("linux-image-")
    packages = pool.packages([name, "busybox-static"])
    key = key_of(
        form=_FORM,
        packages=[package.sha256 for package in packages],
        init=file_digest(_INIT),
        modules=MODULES,
        programs=_PROGRAMS,
    )

    def build(folder: Path) -> None:
        with cache.events.step("nested-kernel", release=release):
            root = folder / "root"
            root.mkdir()
            pool.unpack(packages, root)
            image = (root / "boot" / HOST.image_name(release)).read_bytes()
            (folder / "vmlinux").write_bytes(unpacked_kernel(image) or image)
            cpio.write_cpio(folder / "initrd.cpio", cpio.with_parents(_entries(root, release)))
            shutil.rmtree(root)

    return cache.get("nested", key, build, what="the nested machine's kernel", space=600 * MIB), release


def _entries(root: Path, release: str) -> list[cpio.CpioEntry]:
    kernel = Kernel(Path(), release, root / "lib" / "modules" / release, None, "")
    files = kernel.module_files()
    try:
        order = load_order(MODULES, files, kernel.builtin())
    except InputError as error:
        raise MachineryError(
            f"Debian's kernel {release} is not what a nested machine needs: {error}"
        ) from error
    return [
        cpio.file("/init", _INIT.read_bytes(), 0o755),
        cpio.character_device("/dev/console", 5, 1),
        *(cpio.directory(f"/{name}") for name in _FOLDERS),
        cpio.file("/bin/busybox", (root / "bin" / "busybox").read_bytes(), 0o755),
        *(cpio.symlink(f"/bin/{name}", "busybox") for name in _PROGRAMS),
        *(cpio.file(f"/modules/{name}.ko", read_module(files[name])) for name in order),
        cpio.file("/modules/order", "".join(f"{name}\n" for name in order).encode()),
    ]


def unpacked_kernel(image: bytes) -> bytes | None:
    """The ELF file inside a bzImage; None if it is compressed in a way that is not known here.

    Under emulation the kernel's own unpacking takes several seconds; QEMU starts the
    ELF file as it is, by the kernel's PVH entry.
    """
    if image[0x202:0x206] != b"HdrS":
        return None
    start = ((image[0x1F1] or 4) + 1) * 512
    offset, length = struct.unpack_from("<II", image, 0x248)
    payload = image[start + offset : start + offset + length]
    try:
        # After the compressed data: its size, four bytes that a decompressor need not like.
        kernel = lzma.LZMADecompressor().decompress(payload)
    except lzma.LZMAError:
        return None
    return kernel if kernel.startswith(b"\x7fELF") else None
