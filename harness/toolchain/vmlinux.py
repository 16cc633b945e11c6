# SPDX-License-Identifier: GPL-2.0-or-later
"""The ELF file inside a kernel's image: QEMU starts it as it is, and nothing has to unpack itself.

A kernel takes a second to unpack itself, under an emulated KVM ten.
"""

from __future__ import annotations

import lzma
import struct
from pathlib import Path
from typing import Final

from harness.toolchain.cache import MIB, Cache, key_of
from harness.toolchain.kernel import Kernel

_NAME: Final = "vmlinux"
_FORM: Final = 1  # changes when what is done below changes
#: The head of an ELF note of Xen's with the number 18: the 32-bit entry of PVH, of 4 or 8 bytes.
_PVH_NOTES: Final = tuple(struct.pack("<III4s", 4, size, 18, b"Xen") for size in (4, 8))


def bootable_vmlinux(cache: Cache, kernel: Kernel) -> Path | None:
    """The kernel's ELF file, unpacked once; None where QEMU could not start it.

    That is so where the kernel has no PVH entry, or is compressed in a way that is not known here.
    """

    def build(folder: Path) -> None:
        found = unpacked_kernel(kernel.vmlinuz.read_bytes())
        # That there is none is worth keeping, too.
        if found is not None and any(note in found for note in _PVH_NOTES):
            (folder / _NAME).write_bytes(found)

    key = key_of(form=_FORM, kernel=kernel.digest)
    path = cache.get("vmlinux", key, build, what="the guest's kernel, unpacked", space=100 * MIB) / _NAME
    return path if path.exists() else None


def unpacked_kernel(image: bytes) -> bytes | None:
    """The ELF file inside a bzImage; None if it is compressed in a way that is not known here."""
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
