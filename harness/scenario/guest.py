# SPDX-License-Identifier: GPL-2.0-or-later
"""The keys of a scenario that say what the guest is: ``guest``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
)

from harness.arch import GUEST
from harness.scenario.command import Commands
from harness.scenario.devices import AnyDevice, Device
from harness.scenario.devices.disk import ListedDisk
from harness.scenario.devices.generation_id import GenerationId
from harness.scenario.devices.nic import MOST_NICS, ListedNic
from harness.scenario.devices.pmem import Pmem
from harness.scenario.guest_ssh import GuestSsh
from harness.scenario.memory import MemoryBackend, VirtioMem
from harness.scenario.raw import Globals, QemuWords, XmlEdits
from harness.scenario.values import (
    MIB,
    Section,
    Size,
    Text,
    as_tuple,
    firmware_name,
    image_name,
    kernel_configuration,
    kernel_name,
)
from harness.units import format_size

#: The most vCPUs that a guest can have.
MOST_VCPUS = 64
#: A kernel with our image does not come up in less.
LEAST_MEMORY = 128 * MIB
#: What a guest needs beside the noise: kernel, image, agent, page tables.
NOISE_MARGIN = 96 * MIB
#: The debug kernel is larger, and watches each eight bytes of memory with a byte of its own (KASAN).
DEBUG_KERNEL = "debug"
DEBUG_MARGIN = 160 * MIB
DEBUG_SHADOW = 8


_CMDLINE = re.compile(r"[A-Za-z0-9 ._,:;=/@+*%^~!\[\]()\"-]*")
#: The harness says these itself; a second one would win or confuse without a word.
_CMDLINE_OURS = ("freepage.", "console=", "init=", "rdinit=", "root=", "initrd=")
_MODULE = re.compile(r"[a-z0-9][a-z0-9_-]{0,59}")


def _module(text: str) -> str:
    """As the kernel calls it: with no dash in it, whatever its file is called."""
    if not _MODULE.fullmatch(text):
        raise ValueError(f"expected the name of a module, such as igb or ipmi_si, got {text!r}")
    return text.replace("-", "_")


Module: TypeAlias = Annotated[Text, AfterValidator(_module)]


def _cmdline(text: str) -> str:
    """Only what a kernel's command line can hold, and nothing that the harness says itself."""
    if len(text) > 1024:
        raise ValueError("expected at most 1024 characters")
    if not _CMDLINE.fullmatch(text):
        strange = next(c for c in text if not _CMDLINE.fullmatch(c))
        raise ValueError(f'expected letters, digits, spaces and ._,:;=/@+*%^~!()[]"-, got {strange!r}')
    if text.count('"') % 2:
        raise ValueError("expected every quotation mark to have its partner")
    for word in text.split():
        if word == "--" or word.startswith(_CMDLINE_OURS):
            raise ValueError(f"{word!r} is set by the testbed itself")
    return text


_MACHINE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,79}")
_CPU = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*(,[A-Za-z0-9+-][A-Za-z0-9._+=:-]*)*")


def _machine(text: str) -> str:
    if not _MACHINE.fullmatch(text):
        raise ValueError(f"expected a machine type such as pc-q35-7.2, got {text!r}")
    return text


def _cpu(text: str) -> str:
    if len(text) > 2048 or not _CPU.fullmatch(text):
        raise ValueError(f"expected a model and features, such as EPYC,+svm,-xsave, got {text!r}")
    return text


def _memory(size: int) -> int:
    if size < LEAST_MEMORY or size % MIB:
        least = format_size(LEAST_MEMORY)
        raise ValueError(f"expected at least {least} and whole MiB, got {format_size(size)!r}")
    return size


def _dimm(size: int) -> int:
    if size % (128 * MIB):
        raise ValueError(f"expected whole 128MiB, the guest's memory block, got {format_size(size)!r}")
    return size


class Topology(Section):
    """How the guest sees its vCPUs. The product is the most that it can have.

    `vcpus` of them are there when it boots, and `vcpu-add` plugs in others.
    """

    sockets: Annotated[int, Field(ge=1, le=64)] = 1
    """Sockets."""
    dies: Annotated[int, Field(ge=1, le=64)] = 1
    """Dies of each."""
    cores: Annotated[int, Field(ge=1, le=64)] = 1
    """Cores of each die."""
    threads: Annotated[int, Field(ge=1, le=64)] = 1
    """Threads of each core."""

    @property
    def vcpus(self) -> int:
        """The most vCPUs."""
        return self.sockets * self.dies * self.cores * self.threads


class Guest(Section):
    """The virtual machine under test."""

    memory: Annotated[Size, AfterValidator(_memory)] = 1024 * MIB
    """Its memory: at least 128MiB, in whole MiB. The machine needs it twice, and 512MiB more."""
    vcpus: Annotated[int, Field(ge=1, le=64)] = 1
    """Virtual CPUs, when it boots."""
    topology: Topology | None = None
    """Sockets, dies, cores and threads; null: as libvirt chooses, and no more vCPUs than `vcpus`."""
    image: Annotated[Text, AfterValidator(image_name)] | None = None
    """small: an initramfs with what a test needs. debian: a distribution on a disk of its own. Or the path
    of a disk image with cloud-init or an ssh server in it, with a slash: a distribution's cloud image, with
    its own kernel and boot loader. See docs/image.md. null: what the workload needs."""
    ssh: GuestSsh | None = None
    """How the agent comes into the guest of such an image by ssh; null: by cloud-init. See docs/image.md."""
    machine: Annotated[Text, AfterValidator(_machine)] = GUEST.board.types[0]
    """Machine type: pc, q35, or any version of them that both QEMUs have, such as pc-q35-7.2. See
    docs/machine.md."""
    cpu: Annotated[Text, AfterValidator(_cpu)] | None = None
    """CPU model and features, as QEMU's -cpu is told them: Skylake-Client, max, or EPYC,+svm,-xsave. What is
    named with a + and the accelerator lacks is refused; what the model itself has and the accelerator
    lacks is left out, and said. null: a plain model under TCG, the host's under KVM. See docs/machine.md."""
    firmware: Annotated[Text, AfterValidator(firmware_name)] = "seabios"
    """seabios: QEMU's own. ovmf: UEFI with a flash for its variables, out of Debian's package ovmf. ovmf-smm:
    the same, which guards its variables by SMM; for q35. Or the path of an image for QEMU's -bios, with a
    slash in it. See docs/machine.md."""
    nodes: Annotated[int, Field(ge=1, le=16)] = 1
    """NUMA nodes, each a RAMBlock of its own, of equal size as far as whole MiB go. There must be at
    least as many vcpus."""
    dimm: Annotated[Size, AfterValidator(_dimm)] | None = None
    """Memory beside `memory` that is plugged in once the guest has booted: whole 128MiB, a RAMBlock of
    its own."""
    shared: Annotated[Size, AfterValidator(_dimm)] | None = None
    """Memory beside `memory` in one file that both hosts map, a DIMM that is there when the guest boots:
    whole 128MiB. It is not migrated but stays where it is (QEMU's x-ignore-shared). libvirt has no such
    option, so the migration does not go through libvirt. There is no dimm, huge pages or remote with it."""
    memory_backend: MemoryBackend | None = None
    """What QEMU makes its memory of; null: shared files in the lab. See docs/machine.md."""
    virtio_mem: VirtioMem | None = None
    """Memory that comes and goes while it runs (virtio-mem); see docs/machine.md."""
    below_4g: Annotated[Size, AfterValidator(_memory)] | None = None
    """Where the PCI hole begins: no more of its memory than this is mapped below 4 GiB. null: the
    machine's own limit (3 GiB to 3.5 GiB on pc, 2 GiB to 2.75 GiB on q35)."""
    hugepages: bool = False
    """Back its memory with huge pages of the host, which has to have reserved them (sysctl
    vm.nr_hugepages). For root."""
    traffic: Literal[False, True, "sparse"] = False
    """Have the lab send it datagrams as fast as it takes them, from boot to the end: the NIC, not a
    vCPU, writes them into its memory. sparse: twenty small ones a second, into pages to
    which no vCPU writes meanwhile."""
    vhost: bool = False
    """Have the host's kernel serve its NIC (vhost-net), which then writes into its memory, and keeps a
    dirty log of its own. Under KVM only: --nested has both."""
    kernel: Annotated[Text, Field(min_length=1), AfterValidator(kernel_name)] = "default"
    """default, trixie, newest: Debian's cloud kernel of the image's suite, and of newer ones. generic: its
    kernel for real machines, with drivers for USB, sound, SATA and so on. rt: with PREEMPT_RT. 16k: with
    pages of 16 KiB, for --arch aarch64. debug: with lockdep, KASAN and their like. Or a path, with a
    slash in it: of a vmlinuz, a build tree, or a source tree, which is built (docs/kernel.md)."""
    kernel_config: Annotated[Text, Field(min_length=1), AfterValidator(kernel_configuration)] = "defconfig"
    """Where the kernel is a source tree, what it is built with: defconfig or tinyconfig, which the tree
    has, or the path of a .config, with a slash in it. What a guest of the testbed needs comes on top.
    See docs/kernel.md."""
    module: Literal["shipped", "test"] = "shipped"
    """The balloon driver as it ships; or test: the build with controls for tests, for holds and
    misbehaviour. See docs/module.md."""
    generation_id: Literal["none", "kept", "changed"] = "none"
    """kept, changed: a VM generation id in the guest's memory (vmgenid); changed: the destination's QEMU
    says another one, and writes it. Short for the device generation-id."""
    devices: Annotated[tuple[AnyDevice, ...], BeforeValidator(as_tuple), Field(max_length=16)] = ()
    """More devices, each with its own keys. The guest uses each before it is migrated and on its new host."""
    nics: Annotated[tuple[ListedNic, ...], BeforeValidator(as_tuple), Field(max_length=MOST_NICS)] = ()
    """Its NICs, where there is not to be one of virtio's with one pair of queues. Each is on a network of
    its own; the first is the one that ssh, traffic and workloads use. The guest uses each before it is
    migrated and on its new host, where QEMU has to announce it."""
    disks: Annotated[tuple[ListedDisk, ...], BeforeValidator(as_tuple), Field(max_length=8)] = ()
    """Disks beside the one that a workload may bring: short for devices of the kind disk, which come after
    the others. A workload that writes to a disk takes the first that is blank."""
    freed_is_filled: bool = True
    """Have the C library overwrite what its QEMU frees, and what it allocates and does not clear (glibc's
    MALLOC_PERTURB_), as QEMU's own tests do: who uses that all the same goes wrong at once, and not by
    chance. Not while it is measured (measure)."""
    kvm_dirty: Literal["bitmap", "bitmap-without-manual-protect", "ring"] = "bitmap"
    """Under KVM, how it logs what is written. bitmap: its bitmap with manual protection, which is what QEMU
    takes where it can. bitmap-without-manual-protect: as kernels before 5.2 have it, which QEMU need not
    clear. ring: a ring for each vCPU. See docs/nested.md."""
    modules: Annotated[tuple[Module, ...], BeforeValidator(as_tuple), Field(max_length=32)] = ()
    """Modules of its kernel that it loads, with all that they need, beside those of its devices: drivers for
    what qemu_args or xml bring along. For image small, which has no modprobe."""
    cmdline: Annotated[Text, AfterValidator(_cmdline)] = ""
    """Words appended to the kernel's command line. What the testbed says itself (console=, init=, root=,
    freepage., ...) is refused."""
    commands: Commands = Commands()
    """Commands that the guest runs around its migrations."""
    xml: XmlEdits = ()
    """Edits of the domain's XML, where no other key says it; see docs/machine.md."""
    qemu_args: QemuWords = ()
    """Words that are appended to QEMU's command line, on both hosts; in each, @HOST@ stands for the host's
    name, source or destination. See docs/machine.md."""
    globals: Globals = ()
    """Properties of QEMU's devices, driver.property=value each, as its -global has them."""
    boot_timeout_s: Annotated[int, Field(ge=1, le=86400)] = 180
    """Seconds until the guest must have said that it is ready."""

    @property
    def own_image(self) -> bool:
        """Whether it boots from a disk image of the user's."""
        return self.image is not None and "/" in self.image

    @property
    def all_memory(self) -> int:
        """What it has in the end, in bytes: with what is plugged in."""
        device = self.virtio_mem.size if self.virtio_mem is not None else 0
        nvdimms = sum(one.size for one in self.devices if isinstance(one, Pmem))
        return self.memory + (self.dimm or 0) + (self.shared or 0) + device + nvdimms

    @property
    def copied_memory(self) -> int:
        """Bytes of it that are in no file, so that the oracle has to copy them."""
        backend = self.memory_backend
        return 0 if backend is None or backend.shared else self.all_memory

    @property
    def most_vcpus(self) -> int:
        """How many vCPUs it can have."""
        return self.vcpus if self.topology is None else self.topology.vcpus

    @property
    def all_devices(self) -> tuple[Device, ...]:
        """Those of the list, after what other keys are short for."""
        short = () if self.generation_id == "none" else (GenerationId(at_destination=self.generation_id),)
        return (*short, *self.devices, *self.disks, *self.nics)

    @property
    def all_disks(self) -> tuple[ListedDisk, ...]:
        """Its disks, wherever the scenario lists them."""
        return tuple(one for one in self.all_devices if isinstance(one, ListedDisk))

    @property
    def all_nics(self) -> tuple[ListedNic, ...]:
        """The NICs that it has, from whichever of the two lists; the first is what runs need."""
        return tuple(one for one in self.all_devices if isinstance(one, ListedNic)) or (ListedNic(),)

    @property
    def nic(self) -> ListedNic:
        """The first of them."""
        return self.all_nics[0]

    @property
    def work_disk(self) -> int | None:
        """The number of the device that a workload writes to, if the scenario names one."""
        numbers = (
            number
            for number, device in enumerate(self.all_devices)
            if isinstance(device, ListedDisk) and device.contents == "blank"
        )
        return next(numbers, None)

    @property
    def as_written(self) -> Mapping[str, str]:
        """The words at which nobody has looked before QEMU or libvirt gets them, by their keys."""
        given = {"xml": [one.at for one in self.xml], "qemu_args": self.qemu_args, "globals": self.globals}
        return {
            f"guest.{key}.{number}": word for key, words in given.items() for number, word in enumerate(words)
        }

    @property
    def kept_by_kernel(self) -> int:
        """Bytes that its kernel keeps for checks of its own; Debian's kernels have none."""
        return DEBUG_MARGIN + self.memory // DEBUG_SHADOW if self.kernel == DEBUG_KERNEL else 0
