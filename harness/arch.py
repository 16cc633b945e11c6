# SPDX-License-Identifier: GPL-2.0-or-later
"""What differs between processor architectures, one entry for each.

    HOST.system_calls.futex     # of the machine that we run on
    GUEST.qemu_binary           # "qemu-system-aarch64", if guests are to be emulated as such
    named("x86_64").board.console

A guest has the architecture of its host, unless :data:`ARCH_VARIABLE` names another one (``--arch``).  A
new architecture is one :class:`Architecture` that is passed to :func:`register`; the modules that
build, boot and walk a guest read it from there.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from harness.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """The machine that QEMU makes, and what libvirt and the guest's kernel call its parts."""

    #: What people call it.
    noun: str
    #: Machine types; the first is the default.
    types: tuple[str, ...]
    #: For each of them, what the names of its versions look like, as a regular expression.
    versions: tuple[str, ...]
    #: The console as the kernel calls it, and the kind of serial port that libvirt is asked for.
    console: str
    serial: str
    #: The port of the guest's agent, as the guest calls it.
    control: str = "ttyS1"
    #: What libvirt is told that QEMU lacks, though it believes otherwise.
    lacks: tuple[str, ...] = ()
    #: Features that libvirt is asked for.
    features: tuple[str, ...]
    #: The CPU of an emulated guest, with what is added to it.
    cpu: str
    cpu_features: tuple[str, ...]
    #: Words of the kernel's command line that it takes to boot here.
    cmdline: str
    #: Words with which the kernel prints from its first line on.
    early_console: str
    #: The CPU of an emulated machine in which there is KVM.
    nesting_cpu: str
    #: Debian's package with QEMU for this machine.
    qemu_package: str
    #: Debian's packages with its firmware, and the files that are loaded out of them.
    firmware_packages: tuple[str, ...]
    firmware_files: tuple[str, ...]

    def family(self, machine: str) -> str | None:
        """The one of :attr:`types` that a machine is a version of; None: it is no board of these.

        What a board is like goes by this, and never by the whole name: ``pc-q35-7.2`` is a ``q35``.
        """
        pairs = zip(self.types, self.versions, strict=True)
        return next((name for name, like in pairs if machine == name or re.fullmatch(like, machine)), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelImage:
    """A Linux kernel for this architecture, as its source and Debian name its parts."""

    #: The folder below ``arch/`` in the source, and the image that ``make`` builds in its ``boot/``.
    source: str
    target: str
    #: How the image's file is called in ``boot/``, before the release.
    file: str
    #: What people call an image of this kind.
    noun: str
    #: The release (``uname -r``) in an image; None: it is no such image.
    release: Callable[[bytes], str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class PageTables:
    """How the MMU's tables are laid out, for the walk from outside."""

    #: Log2 of the size of the smallest page, and how many bits of an address each level takes.
    page_shift: int
    index_bits: int
    #: Log2 of the sizes of pages that a kernel can be built for.
    page_shifts: tuple[int, ...] = (12,)
    #: How many levels there may be, and up to which one an entry may map memory itself.
    levels: tuple[int, ...]
    largest_leaf: int
    #: An entry with this bit is in use.
    present: int
    #: Above the last level: an entry maps memory if these bits of it are ``leaf_value``.
    leaf_mask: int
    leaf_value: int
    #: The address in an entry, and log2 of the end of physical memory.
    address: int
    physical_bits: int
    #: Whether the topmost bit that is translated is repeated above it (else: all zeros or all ones there).
    sign_extended: bool
    #: Where the kernel's image counts its addresses from, wherever it was put.
    image: int
    #: Names of the kernel's topmost table, the first is the one of today.
    roots: tuple[str, ...]
    #: All zones that there are; with fewer, which one is missing depends on the configuration.
    zones: tuple[str, ...]
    #: The NUMBER of VMCOREINFO by which the image has moved in memory, and whether it is added or taken away.
    moved: str = "phys_base"
    moved_up: bool = True

    def of_pages(self, size: int) -> PageTables:
        """Those of a kernel with pages of this size: a table is one page.

        Raises :class:`ValueError` if there are no such pages.
        """
        shift = size.bit_length() - 1
        if shift not in self.page_shifts or size != 1 << shift:
            raise ValueError(f"pages of {size} bytes")
        address = self.address & ~(size - 1)
        return replace(self, page_shift=shift, index_bits=shift - 3, address=address)

    def canonical(self, virtual: int, levels: int) -> bool:
        """Whether the processor accepts this as an address, with so many levels of tables."""
        translated = self.page_shift + self.index_bits * levels - self.sign_extended
        return virtual >> translated in (0, (1 << (64 - translated)) - 1)

    def maps_memory(self, entry: int, level: int) -> bool:
        """Whether an entry that is in use maps memory, and not a table of the level below."""
        return level == 1 or (level <= self.largest_leaf and entry & self.leaf_mask == self.leaf_value)


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemCalls:
    """Numbers of system calls; None where there is no such call."""

    sendmsg: int
    poll: int | None
    ppoll: int
    futex: int
    userfaultfd: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """One architecture.  ``name``: as ``uname -m``, QEMU and libvirt say it."""

    name: str
    #: As Debian's packages and its folders for libraries say it.
    debian: str
    multiarch: str
    page_size: int
    board: Board
    kernel: KernelImage
    page_tables: PageTables
    system_calls: SystemCalls

    @property
    def qemu_binary(self) -> str:
        """The name of QEMU's program."""
        return f"qemu-system-{self.name}"

    @property
    def qemu_target(self) -> str:
        """What QEMU's ``configure`` calls that program."""
        return f"{self.name}-softmmu"

    @property
    def qemu_fuzzer(self) -> str:
        """The name of QEMU's fuzzer."""
        return f"qemu-fuzz-{self.name}"

    def image_name(self, release: str) -> str:
        """The name of a kernel's file in ``boot/``."""
        return f"{self.kernel.file}-{release}"


def _bzimage_release(head: bytes) -> str | None:
    """From the boot header; see Documentation/arch/x86/boot.rst."""
    if len(head) < 0x210 or head[0x202:0x206] != b"HdrS":
        return None
    (pointer,) = struct.unpack_from("<H", head, 0x20E)
    text = head[pointer + 0x200 :].split(b"\0", 1)[0] if pointer else b""
    return text.decode("ascii", "replace").split(" ", 1)[0]


X86_64: Final = Architecture(
    name="x86_64",
    debian="amd64",
    multiarch="x86_64-linux-gnu",
    page_size=4096,
    board=Board(
        noun="a PC",
        types=("pc", "q35"),
        versions=(r"pc-i440fx-.+", r"pc-q35-.+"),
        console="ttyS0",
        serial="isa-serial",
        features=("acpi", "apic"),
        # A plain model: what "max" adds (five-level page tables, say) makes emulation slower.
        cpu="qemu64",
        # Without these the guest waits for entropy before its first key exchange.
        cpu_features=("rdrand", "rdseed"),
        # Whether the timer works is not tested: on a busy host, emulated, its ticks come too late for that.
        cmdline="no_timer_check",
        early_console="console=ttyS0 earlyprintk=ttyS0",
        # Nested paging: without it every change of a page table would be an exit.
        nesting_cpu="EPYC,+svm,+npt",
        qemu_package="qemu-system-x86",
        firmware_packages=("seabios", "qemu-system-data"),
        # What `-machine pc` or `q35` with a `-kernel` and no VGA loads.
        firmware_files=("bios-256k.bin", "kvmvapic.bin", "linuxboot_dma.bin"),
    ),
    kernel=KernelImage(
        source="x86",
        target="bzImage",
        file="vmlinuz",
        noun="an x86 kernel (bzImage)",
        release=_bzimage_release,
    ),
    page_tables=PageTables(
        page_shift=12,
        index_bits=9,
        levels=(4, 5),
        # 4 KiB, 2 MiB, 1 GiB.
        largest_leaf=3,
        present=1 << 0,
        leaf_mask=1 << 7,
        leaf_value=1 << 7,
        address=0x000F_FFFF_FFFF_F000,
        physical_bits=52,
        sign_extended=True,
        # __START_KERNEL_map
        image=0xFFFF_FFFF_8000_0000,
        roots=("init_top_pgt", "swapper_pg_dir"),
        zones=("DMA", "DMA32", "Normal", "Movable", "Device"),
    ),
    # Where the tables of asm-generic do not apply.
    system_calls=SystemCalls(sendmsg=46, poll=7, ppoll=271, futex=202, userfaultfd=323),
)


def _image_release(image: bytes) -> str | None:
    """From the banner; see Documentation/arch/arm64/booting.rst for the head, which has no version."""
    if image[0x38:0x3C] != b"ARM\x64":
        return None
    # The format string of the same words ("Linux version %s") is there, too.
    match = re.search(rb"Linux version ([0-9][!-~]*) ", image)
    return match[1].decode("ascii") if match else None


AARCH64: Final = Architecture(
    name="aarch64",
    debian="arm64",
    multiarch="aarch64-linux-gnu",
    page_size=4096,
    board=Board(
        noun="an Arm machine",
        types=("virt",),
        versions=(r"virt-.+",),
        console="ttyAMA0",
        serial="system-serial",
        control="ttyAMA1",
        # QEMU 9.0 has lost the option -no-acpi, which libvirt before 9.2 gives every guest without ACPI.
        lacks=("no-acpi",),
        # Not ACPI, which takes UEFI here: the kernel is told of its machine by a device tree.
        features=(),
        # A plain model: what "max" adds (pointer authentication, say) makes emulation slower. It has pages of
        # every size: a Cortex-A57 has none of 16 KiB, and a kernel that is built for them says nothing there.
        cpu="neoverse-n1",
        cpu_features=(),
        cmdline="",
        early_console="console=ttyAMA0 earlycon",
        nesting_cpu="max",
        qemu_package="qemu-system-arm",
        firmware_packages=("qemu-system-data",),
        # With a `-kernel` it loads none.
        firmware_files=(),
    ),
    kernel=KernelImage(
        source="arm64",
        target="Image",
        file="vmlinuz",
        noun="an arm64 kernel (Image)",
        release=_image_release,
    ),
    page_tables=PageTables(
        page_shift=12,
        index_bits=9,
        page_shifts=(12, 14, 16),
        levels=(4, 3, 2, 5),
        # 4 KiB, 2 MiB, 1 GiB; with larger pages two of these kinds, or three with LPA2.
        largest_leaf=3,
        present=1 << 0,
        # An entry of an upper level is a table if its second bit is set, else a block.
        leaf_mask=1 << 1,
        leaf_value=0,
        # With LPA2, or LPA of 64 KiB pages, lower bits of an entry are the topmost of the address: of memory
        # above 256 TiB, which no guest has.
        address=0x0000_FFFF_FFFF_F000,
        physical_bits=48,
        # The topmost bit chooses between two tables of their own: TTBR0 and TTBR1.
        sign_extended=False,
        # Addresses of the image are as far from memory's as that number says, wherever it was put.
        image=0,
        moved="kimage_voffset",
        moved_up=False,
        roots=("swapper_pg_dir",),
        zones=("DMA", "DMA32", "Normal", "Movable", "Device"),
    ),
    system_calls=SystemCalls(sendmsg=211, poll=None, ppoll=73, futex=98, userfaultfd=282),
)

_KNOWN: Final[dict[str, Architecture]] = {one.name: one for one in (X86_64, AARCH64)}


def register(architecture: Architecture) -> None:
    """Make an architecture known by its name; one of that name is replaced."""
    _KNOWN[architecture.name] = architecture


def forget(name: str) -> None:
    """Make it unknown again; for tests."""
    del _KNOWN[name]


def named(name: str) -> Architecture:
    """The architecture that ``uname -m`` calls so.  Raises :class:`harness.errors.InputError`."""
    if name not in _KNOWN:
        raise InputError(f"guests on {name} are not known here", hint=f"known are {', '.join(known())}")
    return _KNOWN[name]


def host() -> Architecture:
    """That of this machine; on one that is not known, x86-64, whose guests can be emulated everywhere."""
    return _KNOWN.get(os.uname().machine, X86_64)


def guest() -> Architecture:
    """That of the guests: the machine's own, unless the environment names another one that is known.

    One that is not known is refused where a run begins (:func:`demand_guest`): whoever imports this must
    not fail.
    """
    return _KNOWN.get(os.environ.get(ARCH_VARIABLE, ""), HOST)


def known() -> tuple[str, ...]:
    """The names of all architectures."""
    return tuple(sorted(_KNOWN))


def foreign_endings(mine: Architecture) -> tuple[str, ...]:
    """How the names of Debian's kernels for all other architectures end."""
    return tuple(f"-{one.debian}" for one in _KNOWN.values() if one is not mine)


def demand_guest() -> None:
    """Raise :class:`harness.errors.InputError` if the environment names an architecture that is not known."""
    if wanted := os.environ.get(ARCH_VARIABLE):
        named(wanted)


#: The variable of the environment that chooses the guests' architecture.  It is part of nearly everything
#: (page tables, packages, boards), so a process has guests of one architecture, as do those that it starts.
ARCH_VARIABLE: Final = "FREEPAGE_ARCH"
#: That of this machine, and that of the guests, when the process was started.
HOST: Final = host()
GUEST: Final = guest()
