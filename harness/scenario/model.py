# SPDX-License-Identifier: GPL-2.0-or-later
"""The scenario language, key by key: types, defaults, and what each may be.

The words under a key are its description in the JSON Schema as well, and
docs/scenario.md is checked against them.  :mod:`harness.scenario.load` loads files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal, TypeAlias

import yaml
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PrivateAttr,
    field_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from harness.arch import GUEST
from harness.errors import InputError
from harness.scenario.command import Commands
from harness.scenario.copied_disks import refuse_with_copied_disks
from harness.scenario.devices import AnyDevice, Device
from harness.scenario.devices.disk import ListedDisk
from harness.scenario.devices.generation_id import GenerationId
from harness.scenario.devices.nic import ListedNic
from harness.scenario.devices.pmem import Pmem
from harness.scenario.memory import MemoryBackend, VirtioMem
from harness.scenario.mode import (
    Exclusion,
    Mode,
    layered,
    refuse_contradictions,
    refuse_excluded,
    settings_of,
)
from harness.scenario.own_image import refuse_with_own_image
from harness.scenario.plugging import refuse_wrong_plugging
from harness.scenario.raw import Globals, QemuWords, XmlEdits
from harness.scenario.remote import Remote
from harness.scenario.saved_file import SavedFile, Way, demand_way
from harness.scenario.script import Script, actions, count_plugged, needs_controls, restarts
from harness.scenario.several_guests import MOST_GUESTS, refuse_with_several_guests
from harness.scenario.transport import AddressForm, Transport, refuse_wrong_transports
from harness.scenario.values import (
    MIB,
    Rate,
    Section,
    Share,
    Size,
    Text,
    as_tuple,
    firmware_name,
    image_name,
    kernel_configuration,
    kernel_name,
)
from harness.scenario.wire import WireConditions
from harness.scenario.workloads.at_rest import Idle
from harness.scenario.workloads.base import AnyWorkload
from harness.scenario.written import Written
from harness.units import format_size

Arm: TypeAlias = Literal["off", "hint", "info"]
Accelerator: TypeAlias = Literal["auto", "kvm", "tcg"]
VerdictWord: TypeAlias = Literal["pass", "fail", "inconclusive"]

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
_MODULE = re.compile(r"[a-z0-9][a-z0-9_-]{0,59}")
_CMDLINE_OURS = ("freepage.", "console=", "init=", "rdinit=", "root=", "initrd=")


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
    of a disk image with cloud-init in it, with a slash: a distribution's cloud image, with its own kernel and
    boot loader. See docs/image.md. null: what the workload needs."""
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
    nics: Annotated[tuple[ListedNic, ...], BeforeValidator(as_tuple), Field(max_length=1)] = ()
    """Its NIC, where that is not to be virtio's with one pair of queues. A list, of one at present."""
    disks: Annotated[tuple[ListedDisk, ...], BeforeValidator(as_tuple), Field(max_length=8)] = ()
    """Disks beside the one that a workload may bring: short for devices of the kind disk, which come after
    the others. A workload that writes to a disk takes the first that is blank."""
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
    def nic(self) -> ListedNic:
        """The NIC that it has, from whichever of the two lists."""
        listed = (device for device in self.all_devices if isinstance(device, ListedNic))
        return next(listed, ListedNic())

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


#: A capability or parameter, as QEMU names them.
_QemuName: TypeAlias = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,60}$")]

#: What a QEMU or the lab has from its start, and no migration can have otherwise.
_FROM_THE_START = ("clear_bitmap_shift",)


class Migration(Section):
    """How the guest is moved."""

    to: Way = "host"
    """Where it goes. host: to the other host at once. By way of a file, which the other host restores:
    file: QEMU migrates to it while the guest runs. save: libvirt stops and saves the guest (virsh save).
    savevm: a snapshot in a qcow2 image, of a guest that stands still (QEMU's snapshot-save).
    background-snapshot: QEMU saves the guest as it is at one moment while it writes on; what it does after
    that is lost. See docs/files.md."""
    mapped_ram: Annotated[bool, Mode("mapped-ram")] = False
    """to: file: each page has its own place in the file; a page of zeros is left out."""
    direct_io: Annotated[bool, Mode(qemu_parameter="direct-io")] = False
    """to: file, with mapped_ram and multifd: past the kernel's page cache."""
    file: SavedFile = SavedFile()
    """The file through which it goes, and what is done to it on its way."""
    over: Transport = "tcp"
    """By what it goes from one QEMU to the other. tcp: the network between the hosts. unix: a Unix socket.
    fd: a pair of sockets, whose descriptors both QEMUs are given (QMP's getfd). pipe: those of a pipe. exec:
    a program on each side, and a pipe between them. pipe and exec go one way, so without return-path. All
    but tcp past libvirt, in a lab, and without a tap."""
    address: AddressForm = "uri"
    """How QEMU is told where to. uri: by a text, such as tcp:HOST:PORT. channels: by a list of channels, as
    QEMU has it since 8.2; past libvirt."""
    bandwidth: Rate | None = None
    """Limit of the migration's own making; null: as fast as it goes."""
    downtime_limit_ms: Annotated[int, Field(ge=1, le=2_000_000)] = 300
    """The longest pause that QEMU may plan for."""
    multifd: Annotated[
        int,
        Field(ge=0, le=255),
        Mode(
            "multifd",
            flag="PARALLEL",
            parameter="PARALLEL_CONNECTIONS",
            qemu_parameter="multifd-channels",
            both_sides=True,
            excludes=(Exclusion("trace", "with multifd QEMU does not trace single pages"),),
        ),
    ] = 0
    """Parallel channels; 0: one stream."""
    zero_pages: Annotated[
        Literal["none", "legacy", "multifd"] | None, Mode(qemu_parameter="zero-page-detection")
    ] = None
    """Who looks for pages of zeros: nobody, the migration's thread, the multifd threads; null:
    QEMU's default."""
    xbzrle: Annotated[bool, Mode("xbzrle", flag="COMPRESSED", parameter="COMPRESSION", value="xbzrle")] = (
        False
    )
    """Send what has changed in a page, not the page, where it has been sent before."""
    auto_converge: Annotated[bool, Mode("auto-converge", flag="AUTO_CONVERGE")] = False
    """Slow the guest down as long as it writes faster than the migration sends."""
    tls: Annotated[Literal[False, True, "psk"], Mode(flag="TLS", past_libvirt_for=("psk",))] = False
    """Encrypt the migration, with certificates of the run's own. psk: with a key that both sides share,
    which libvirt has no word for."""
    postcopy: Annotated[
        Literal[False, True, "libvirt"], Mode("postcopy-ram", flag="POSTCOPY", past_libvirt_for=(True, None))
    ] = False
    """Allow a switch to postcopy, which a script makes (postcopy-start). With arm hint nothing is left out
    then. true: past libvirt. libvirt: by libvirt, which always lets the guest run on the destination."""
    postcopy_preempt: Annotated[bool, Mode("postcopy-preempt")] = False
    """Send what the destination asks for over a connection of its own, past what is being pushed. With
    postcopy."""
    clear_bitmap_shift: Annotated[int, Field(ge=6, le=31)] | None = None
    """So many pages, as a power of two, are cleared in KVM's bitmap at a time; null: QEMU's default, 18."""
    capabilities: Annotated[Mapping[_QemuName, bool], Field(max_length=64)] = {}
    """QEMU's capabilities, by its own names: what query-migrate-capabilities of the QEMUs in use lists. What
    libvirt has no flag for, QEMU is told itself, past libvirt. See docs/modes.md."""
    parameters: Annotated[Mapping[_QemuName, bool | int | float | str | None], Field(max_length=64)] = {}
    """QEMU's parameters, by its own names and in its own units: what query-migrate-parameters of the QEMUs
    in use lists; null: QEMU's own value."""
    timeout_s: Annotated[int, Field(ge=1, le=86400)] = 300
    """Seconds until the migration must have completed."""
    stuck_s: Annotated[int, Field(ge=1, le=86400)] = 60
    """Seconds without any progress (bytes, bitmap syncs, status), or without an answer of QEMU's, after
    which the migration counts as stuck: a failure. While a script keeps the stream from going on it does not
    count."""

    def switches_on(self, capability: str) -> bool:
        """Whether one of QEMU's capabilities is asked for, by a key of its own or by QEMU's name."""
        return any(setting.mode.capability == capability for _, setting in settings_of(self))

    @property
    def hands_over(self) -> bool:
        """Whether no memory is sent, but the files that it is in are handed to the other QEMU."""
        return self.parameters.get("mode") == "cpr-transfer"

    @model_validator(mode="after")
    def _says_one_thing(self) -> Migration:
        refuse_contradictions(self)
        return self


class Measure(Section):
    """What the guest gets done around its migration. Costs the time of both windows."""

    before_s: Annotated[float, Field(ge=0, le=3600)] = 2.0
    """Seconds for which the guest is watched before the migration begins; the run takes as much longer."""
    after_s: Annotated[float, Field(ge=0, le=3600)] = 2.0
    """Seconds for which it is watched after it was resumed."""
    every_ms: Annotated[int, Field(ge=1, le=1000)] = 10
    """Milliseconds between two samples, by the guest's clock."""


_Words: TypeAlias = Annotated[
    tuple[Annotated[Text, Field(min_length=1)], ...], BeforeValidator(as_tuple), Field(max_length=16)
]


class Expect(Section):
    """What must come out. An expectation that is not met is a failure."""

    verdict: VerdictWord = "pass"
    """The verdict that this scenario is written to show. It changes nothing in the verdict; the result says
    both. A run that ends with it is as expected, and the command ends with 0."""
    rule: Annotated[Text, Field(pattern=r"^[a-z0-9-]{1,60}$")] | None = None
    """verdict: fail: the rule by which it must fail; null: any."""
    skipping: bool | None = None
    """Whether pages must have been skipped at all. true: in the arms info and hint, and it is a failure if
    none was. null: in those arms, and it is inconclusive if none was."""
    skipped_percent_min: Annotated[float, Field(ge=0, le=100)] | None = None
    """Arm info: at least so many of all compared pages must have been skipped, in percent."""
    skipped_percent_max: Annotated[float, Field(ge=0, le=100)] | None = None
    """Arm info: at most so many, in percent."""
    sent_over_floor_max: Annotated[float, Field(gt=0)] | None = None
    """Arm info: (bytes sent - head) / floor may be at most this; see docs/result.md."""
    refused: Annotated[Text, Field(min_length=1)] | None = None
    """Arm info: words that must be in the device's reason for asking the guest nothing."""
    requests_min: Annotated[int, Field(ge=0)] | None = None
    """Arm info: the guest must have been asked at least so often."""
    requests_max: Annotated[int, Field(ge=0)] | None = None
    """Arm info: at most so often."""
    invalid_max: Annotated[int, Field(ge=0)] | None = None
    """Arm info: the device may have found at most so many buffers of the driver's to break the protocol."""
    rounds_min: Annotated[int, Field(ge=1)] | None = None
    """The last migration must have made so many passes over memory; with fewer, what was to be tested did not
    happen, and the verdict is inconclusive."""
    rounds_max: Annotated[int, Field(ge=1)] | None = None
    """The last migration may have made at most so many passes over memory."""
    syncs_max: Annotated[int, Field(ge=1)] | None = None
    """QEMU may have synchronised the dirty bitmap at most so often in the last migration."""
    total_ms_max: Annotated[int, Field(ge=1)] | None = None
    """The last migration may have taken at most so many milliseconds, without the holds."""
    downtime_ms_max: Annotated[int, Field(ge=0)] | None = None
    """The guest may have been down for at most so many milliseconds at the last switch-over, by QEMU."""
    converged: Literal[True] | None = None
    """true: the last migration must come to its switch-over within migration.timeout_s. One that does not is
    then a failure, and no error: it is cancelled, and the guest is asked for its checks where it is."""
    throttled: bool | None = None
    """Whether QEMU must have slowed the guest down in each move that completes, or limited what it may write:
    a run in which it did not is inconclusive. null: where auto-converge or dirty-limit is on; false: it need
    not."""
    throttle_percent_min: Annotated[int, Field(ge=1, le=99)] | None = None
    """auto-converge must have had the guest's vCPUs sleep for so much of the time in the last migration, in
    percent, at its most."""
    status: Literal["completed", "cancelled", "failed"] | None = None
    """The last word of the source's QEMU on the last migration."""
    statuses: Annotated[tuple[Text, ...], BeforeValidator(as_tuple), Field(max_length=16)] = ()
    """Statuses of QEMU's that the source must have had in the last migration, in this order; others may come
    between them: `[wait-unplug, active]`."""
    qemu_says: _Words = ()
    """Each must be in a line that one of the QEMUs of the last migration has written to its log."""
    qemu_says_not: _Words = ()
    """None of them may be in one."""
    runs_on: Literal["source", "destination"] | None = None
    """Where the guest runs in the end, of the last migration's two sides."""
    qemu_growth_max: Size | None = None
    """The source's QEMU may have so much more memory of its own after each migration that was given up, from
    the third on. With less than six of them the verdict is inconclusive."""
    qemu_files_growth_max: Annotated[int, Field(ge=0)] | None = None
    """The source's QEMU may have so many more files and sockets open after each of those."""
    guest_free_min: Share | None = None
    """So much free memory the guest must have in the end: a size, or a share of what was free before the
    first migration."""

    @property
    def of_a_switch_over(self) -> str | None:
        """A key that says something of a migration that has arrived; None: no such key is given."""
        given = (key for key in _OF_A_SWITCH_OVER if getattr(self, key) is not None)
        return "skipping" if self.skipping else next(given, None)


#: Keys of ``expect`` about the memory, the numbers or the record of a migration that has arrived.
_OF_A_SWITCH_OVER = (
    *("skipped_percent_min", "skipped_percent_max", "sent_over_floor_max", "refused"),
    *("requests_min", "requests_max", "invalid_max", "rounds_min", "rounds_max", "syncs_max"),
    *("total_ms_max", "downtime_ms_max", "converged"),
)


class Move(Section):
    """One of several migrations of the same guest. Each that completes takes it to the other host."""

    ends: Literal["completed", "cancelled", "failed"] = "completed"
    """How it has to end. failed: refused by QEMU or libvirt, or given up. Where the last one is not to
    complete, no memory of it is compared: it has to end so, and the guest to go on where it is, whole."""
    reason: Annotated[Text, Field(min_length=1)] | None = None
    """failed: words that must be in the reason which the user is given."""
    check: bool = True
    """Whether the guest is asked for its pages before the next one begins; after the last it always is."""
    guest: Literal["running", "paused", "stays-paused", "suspended"] = "running"
    """paused: the guest stands still from before this one, and through it; over one that does not complete
    into the next, if that says so as well. On its new host it goes on. stays-paused: it does not, but moves
    on without having run there; nobody asks it anything before that. suspended: it has suspended itself to
    its memory (ACPI S3) as the migration begins, and is woken up where it is in the end."""
    migration: Migration | None = None
    """How this one is made: what is said here counts, in place of what the scenario's `migration` says, and
    for this one alone."""

    @field_serializer("migration")
    def _as_written(self, migration: Migration | None) -> object:
        # What was not said is not this move's: read back, it would count.
        return None if migration is None else migration.model_dump(mode="json", exclude_unset=True)

    @model_validator(mode="after")
    def _can_change(self) -> Move:
        for key in _FROM_THE_START:
            if self.migration is not None and key in self.migration.model_fields_set:
                words = "expected in the scenario's migration: it is the same for all moves"
                raise PydanticCustomError("in-entry", words, {"path": ("migration", key)})
        return self


Moves: TypeAlias = Annotated[tuple[Move, ...], BeforeValidator(as_tuple), Field(min_length=1, max_length=16)]


class Scenario(Section):
    """One scenario. Only ``name`` must be given; everything else has a default."""

    name: Annotated[Text, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]
    """Small letters, digits and dashes, at most 40; names the run's folder."""
    summary: Text = ""
    """One line for lists."""
    arm: Arm = "info"
    """off: plain migration; hint: upstream's free page hint; info: free page info."""
    accelerator: Accelerator = "auto"
    """auto: KVM where it was shown to run guests, TCG otherwise."""
    guest: Guest = Guest()
    """The virtual machine under test."""
    guests: Annotated[int, Field(ge=1, le=MOST_GUESTS)] = 1
    """So many of that guest, each with a seed of its own, which all move at the same time between the same
    two hosts; each is judged by itself. See [guests.md](guests.md) for what does not go together with it."""
    workload: AnyWorkload = Idle()
    """What the guest does with its memory."""
    migration: Migration = Migration()
    """How it is moved."""
    moves: Annotated[tuple[Move, ...], BeforeValidator(as_tuple), Field(min_length=1, max_length=16)] = (
        Move(),
    )
    """The migrations of the guest, one after the other: there and back, cancelled and tried again."""
    script: Script = ()
    """What happens during them."""
    wire: WireConditions | None = None
    """The network between the hosts of the lab: delay, loss, reordering, a rate. null: as good as it is."""
    tap: bool | None = None
    """Have the migration's stream pass through a tap, which needs no patched QEMU: the verdict then knows
    which page was sent how often and how, and what the destination must hold. Costs the stream's size on
    disk while the run lasts. null: where the source's QEMU keeps no record of its own, and a tap changes
    nothing that the script is about; see [stream.md](stream.md). Not with shared memory, files or remote."""
    strict: bool = True
    """Hold the guest at every request and take digests, so that "unchanged since the
    request" is a fact; see docs/oracle.md. false: it is inferred from the device's own dirty log."""
    trace: Literal["pages"] | None = None
    """pages: QEMU traces each page that arrives, so that "freepage explain" can say in which round
    each was sent. Slow, and not with multifd."""
    walk: bool = True
    """Walk the guest's free lists from outside, at every request and answer: the second witness of what is
    free, and what the floor counts by; see docs/walk.md. false: for a kernel that cannot be walked."""
    measure: Measure | None = None
    """Watch the guest before, during and after its migration; null: do not."""
    remote: Remote | None = None
    """Two machines of the user's own, in place of the lab; see docs/remote.md. null: the lab."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    """Of the workload's contents and everything else that is random. null: a new one each run, which the
    result and the run folder's scenario.yaml tell."""
    expect: Expect = Expect()
    """What must come out."""

    _written: Written = PrivateAttr(default_factory=Written)

    def written_in(self, written: Written) -> Scenario:
        """The same, which knows from now on where each of its keys was written."""
        self._written = written
        return self

    def wrong(self, key: str, text: str, *, hint: str | None = None) -> InputError:
        """An error about a key (``guest.cpu``, ``guest.xml.0``), with its place in the file."""
        return self._written.wrong(key, text, hint=hint)

    def migration_of(self, number: int) -> Migration:
        """How one of the moves is made, counted from 1."""
        return layered(self.migration, self.moves[number - 1].migration)

    @property
    def migrations(self) -> tuple[Migration, ...]:
        """How each of the moves is made."""
        return tuple(self.migration_of(number) for number in range(1, len(self.moves) + 1))

    @model_validator(mode="after")
    def _modes_go_together(self) -> Scenario:
        refuse_excluded(self, self.migration, "migration")
        for number, move in enumerate(self.moves, 1):
            if move.migration is None:
                continue
            how, place = self.migration_of(number), f"moves[{number - 1}].migration"
            try:
                refuse_contradictions(how)
            except PydanticCustomError as error:
                context = error.context or {}
                where = ("moves", number - 1, "migration", *context.get("path", ()))
                words = {"words": error.message(), "path": where}
                raise PydanticCustomError("at", "{words}", words) from None
            refuse_excluded(self, how, place)
        return self

    @model_validator(mode="after")
    def _goes_that_way(self) -> Scenario:
        for how in self.migrations:
            demand_way(self, how)
        for index, move in enumerate(self.moves):
            if move.guest != "running" and self.migration_of(index + 1).to == "background-snapshot":
                words = "expected running: a background snapshot is of a guest that writes on"
                raise PydanticCustomError("at", words, {"path": ("moves", index, "guest")})
        if len({how.file.compression for how in self.migrations if how.to == "save"}) > 1:
            words = "expected the same for all moves: libvirt is told once"
            path = {"path": ("migration", "file", "compression")}
            raise PydanticCustomError("at", words, path)
        return self

    @model_validator(mode="after")
    def _fits(self) -> Scenario:
        if self.guest.vcpus < self.guest.nodes:
            path = {"path": ("guest", "nodes")}
            raise PydanticCustomError("at", "expected at least as many vcpus as nodes", path)
        most, plugged = self.guest.most_vcpus, count_plugged(self.script)
        if not self.guest.vcpus <= most <= MOST_VCPUS:
            raise PydanticCustomError(
                "at",
                "expected a product from {vcpus} (vcpus) to {most}, got {got}",
                {
                    "path": ("guest", "topology"),
                    "vcpus": self.guest.vcpus,
                    "most": MOST_VCPUS,
                    "got": most,
                },
            )
        if self.guest.vcpus + plugged > most:
            raise PydanticCustomError(
                "at",
                "the script needs {wanted} vCPUs, and there can be {most}",
                {"path": ("guest", "topology"), "wanted": self.guest.vcpus + plugged, "most": most},
            )
        if self.guest.vcpus < self.guest.nic.queues:
            devices = [device.device for device in self.guest.devices]
            listed = ("nics", 0) if self.guest.nics else ("devices", devices.index("nic"))
            where = {"path": ("guest", *listed, "queues")}
            raise PydanticCustomError("at", "expected at most as many queues as vcpus", where)
        noise, margin = noise_bytes(self), self.guest.kept_by_kernel or NOISE_MARGIN
        if noise + margin > self.guest.memory:
            raise PydanticCustomError(
                "at",
                "{what} does not fit into a guest of {memory}, which needs {margin} for itself",
                {
                    "path": ("workload", "noise"),
                    "what": format_size(noise),
                    "memory": format_size(self.guest.memory),
                    "margin": format_size(margin),
                },
            )
        low, high = self.expect.skipped_percent_min, self.expect.skipped_percent_max
        if low is not None and high is not None and low > high:
            path = {"path": ("expect", "skipped_percent_min")}
            raise PydanticCustomError("at", "expected at most skipped_percent_max", path)
        return self

    @model_validator(mode="after")
    def _of_an_own_image(self) -> Scenario:
        refuse_with_own_image(self)
        refuse_with_copied_disks(self)
        refuse_wrong_plugging(self)
        refuse_with_several_guests(self)
        refuse_wrong_transports(self)
        return self

    @model_validator(mode="after")
    def _disk_is_large_enough(self) -> Scenario:
        number = self.guest.work_disk if self.workload.writes_disk else None
        if number is not None:
            disk = self.guest.all_devices[number]
            assert isinstance(disk, ListedDisk)
            if disk.size < self.workload.disk_bytes:
                context = {"path": ("workload", "disk"), "size": format_size(disk.size)}
                raise PydanticCustomError("at", "the disk of the scenario has only {size}", context)
        return self

    @model_validator(mode="after")
    def _shared(self) -> Scenario:
        """It takes the slot for DIMMs, and files that both hosts see."""
        guest = self.guest
        others = {"guest.dimm": guest.dimm, "guest.hugepages": guest.hugepages, "remote": self.remote}
        for name, value in others.items():
            if guest.shared is not None and value:
                path = {"path": ("guest", "shared"), "name": name}
                raise PydanticCustomError("at", "does not go together with {name}", path)
        return self

    @model_validator(mode="after")
    def _backed(self) -> Scenario:
        """There is one slot for what is plugged in, and remote hosts have files of their own."""
        guest = self.guest
        memory: dict[str, object] = {"guest.dimm": guest.dimm, "guest.shared": guest.shared}
        remote: dict[str, object] = {"remote": self.remote}
        others = {"virtio_mem": memory | remote | {"guest.hugepages": guest.hugepages}}
        others["memory_backend"] = remote | {"guest.shared": guest.shared, "guest.hugepages": guest.hugepages}
        backend = guest.memory_backend
        if backend is not None and backend.offset is not None:
            nodes = guest.nodes > 1
            others["memory_backend"] |= memory | {"guest.nodes": nodes, "guest.virtio_mem": guest.virtio_mem}
        for key, values in others.items():
            for name, value in values.items():
                if getattr(guest, key) is not None and value:
                    path = {"path": ("guest", key), "name": name}
                    raise PydanticCustomError("at", "does not go together with {name}", path)
        if guest.virtio_mem is None and any(action.needs_virtio_mem for action in actions(self.script)):
            path = {"path": ("guest", "virtio_mem")}
            raise PydanticCustomError("at", "expected one: the script resizes it", path)
        return self

    @model_validator(mode="after")
    def _memory_can_be_handed_over(self) -> Scenario:
        """QEMU's mode cpr-transfer, on one kernel, of memory that has a descriptor to be handed over."""
        if not any(how.hands_over for how in self.migrations):
            return self
        words, guest = "mode: cpr-transfer in the migration's parameters", self.guest
        backend = guest.memory_backend
        if backend is None or backend.type != "memfd" or not backend.shared:
            path = {"path": ("guest", "memory_backend"), "words": words}
            text = "expected type: memfd, shared: {words} hands memory over by its descriptor"
            raise PydanticCustomError("at", text, path)
        others: dict[tuple[str, ...], object] = {
            ("guest", "dimm"): guest.dimm,
            ("guest", "virtio_mem"): guest.virtio_mem,
            ("remote",): self.remote,
            ("trace",): self.trace,
        }
        for way in self.migrations:
            others["migration", "to"] = way.hands_over and way.to != "host"
            for path_of, value in others.items():
                if value:
                    where = {"path": path_of, "words": words}
                    raise PydanticCustomError("at", "does not go together with {words}", where)
        return self

    @model_validator(mode="after")
    def _backends_are_there(self) -> Scenario:
        if not any(disk.room for disk in self.guest.all_disks):
            for index, entry in enumerate(self.script):
                for place, action in enumerate(entry.do):
                    if action.needs_room:
                        where = {"path": ("script", index, "do", place, "action"), "word": action.action}
                        raise PydanticCustomError(
                            "at", "{word} needs a disk of guest.disks with a room", where
                        )
        served = {device.device for device in self.guest.all_devices if device.served_apart}
        for index, entry in enumerate(self.script):
            for place, action in enumerate(entry.do):
                if action.needs_backend is not None and action.needs_backend not in served:
                    here = {
                        "path": ("script", index, "do", place, "device"),
                        "name": action.needs_backend,
                        "served": ", ".join(sorted(served)) or "none",
                    }
                    words = "no program beside QEMU serves a device {name} of this guest, but {served}"
                    raise PydanticCustomError("at", words, here)
        return self

    @property
    def tap_obstacle(self) -> str | None:
        """Why no tap can listen; None: one can.  It needs connections between the hosts of a lab."""
        others = {
            f"migration.to: {self.migration.to}": any(how.to != "host" for how in self.migrations),
            "a migration that goes over anything but tcp": any(how.over != "tcp" for how in self.migrations),
            "guest.shared": self.guest.shared,
            "mode: cpr-transfer": any(how.hands_over for how in self.migrations),
            "script: postcopy-recover": any(one.connects_anew for one in actions(self.script)),
            "remote": self.remote,
        }
        return next((name for name, value in others.items() if value), None)

    @model_validator(mode="after")
    def _tapped(self) -> Scenario:
        if self.tap and (name := self.tap_obstacle):
            raise PydanticCustomError(
                "at", "does not go together with {name}", {"path": ("tap",), "name": name}
            )
        return self

    @model_validator(mode="after")
    def _rule_is_of_a_failure(self) -> Scenario:
        if self.expect.rule is not None and self.expect.verdict != "fail":
            path = {"path": ("expect", "rule")}
            raise PydanticCustomError("at", "expected only with verdict: fail", path)
        return self

    @model_validator(mode="after")
    def _postcopy_is_allowed(self) -> Scenario:
        if self.migration.postcopy_preempt and not any(
            how.switches_on("postcopy-ram") for how in self.migrations
        ):
            path = {"path": ("migration", "postcopy_preempt")}
            raise PydanticCustomError("at", "expected only with postcopy: true", path)
        for index, entry in enumerate(self.script):
            if entry.move <= len(self.moves) and self.migration_of(entry.move).switches_on("postcopy-ram"):
                continue
            for place, action in enumerate(entry.do):
                if action.needs_postcopy:
                    here = {"path": ("script", index, "do", place, "action"), "word": action.action}
                    raise PydanticCustomError("at", "{word} needs migration.postcopy: true", here)
        return self

    @model_validator(mode="after")
    def _libvirt_lets_the_guest_run(self) -> Scenario:
        switched = set()
        for index, entry in enumerate(self.script):
            if entry.move > len(self.moves):
                continue
            by_libvirt = self.migration_of(entry.move).postcopy == "libvirt"
            for place, action in enumerate(entry.do):
                words = action.not_by_libvirt if by_libvirt else action.needs_libvirt
                if words is not None:
                    text = "does not go with" if by_libvirt else "goes only with"
                    here = {"path": ("script", index, "do", place, "action"), "words": words, "text": text}
                    raise PydanticCustomError("at", "{text} postcopy: libvirt: {words}", here)
                if by_libvirt and action.action == "postcopy-start":
                    switched.add(entry.move)
        for number, how in enumerate(self.migrations, 1):
            if how.postcopy == "libvirt" and number not in switched:
                path = {"path": ("migration", "postcopy"), "number": number}
                text = "libvirt lets the guest run at once: expected a postcopy-start in move {number}"
                raise PydanticCustomError("at", text, path)
        return self

    @model_validator(mode="after")
    def _moves_fit(self) -> Scenario:
        if self.moves[-1].ends != "completed" and (key := self.expect.of_a_switch_over) is not None:
            words = (
                "expected only where the last of the moves completes: it is of a migration that has arrived"
            )
            raise PydanticCustomError("at", words, {"path": ("expect", key)})
        for index, move in enumerate(self.moves):
            if move.guest == "stays-paused":
                follows = self.moves[index + 1] if index + 1 < len(self.moves) else None
                if move.ends != "completed" or follows is None or follows.guest == "running":
                    path = {"path": ("moves", index, "guest")}
                    words = "expected only before a move of a guest that is paused as well, and completed"
                    raise PydanticCustomError("at", words, path)
            if move.guest == "suspended" and self.workload.kind == "clocks":
                words = "does not go with the workload clocks: what they show of such a time is Linux' affair"
                raise PydanticCustomError("at", words, {"path": ("moves", index, "guest")})
            if move.reason is not None and move.ends != "failed":
                path = {"path": ("moves", index, "reason")}
                raise PydanticCustomError("at", "expected only with ends: failed", path)
        if needs_controls(self.script) and self.guest.module != "test":
            where = {"path": ("guest", "module")}
            raise PydanticCustomError("at", "expected test: the script holds the module's walk", where)
        if self.walk and restarts(self.script):
            walk = {"path": ("walk",)}
            raise PydanticCustomError("at", "expected false: the script starts another kernel", walk)
        for index, entry in enumerate(self.script):
            if entry.move > len(self.moves):
                raise PydanticCustomError(
                    "at",
                    "there is no move {move}, only {moves}",
                    {"path": ("script", index, "move"), "move": entry.move, "moves": len(self.moves)},
                )
            if index and entry.move < self.script[index - 1].move:
                path = {"path": ("script", index, "move")}
                raise PydanticCustomError("at", "expected entries in the order of the moves", path)
        return self

    @property
    def memory_of_both(self) -> int:
        """Bytes of RAM that all guests have on both hosts."""
        return 2 * self.guests * self.guest.all_memory

    @property
    def copied_memory(self) -> int:
        """Bytes that the oracle has to copy, of all guests."""
        return self.guests * self.guest.copied_memory

    @property
    def bad_wire(self) -> WireConditions | None:
        """What the network between the hosts is like at first; None: a plain one, which nobody changes."""
        changed = any(action.changes_wire for action in actions(self.script))
        return self.wire or (WireConditions() if changed else None)

    def to_yaml(self) -> str:
        """The scenario as a file that :func:`load_scenario` reads back to the same value."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def noise_bytes(scenario: Scenario) -> int:
    """How much the workload fills, in whole pages; a share is of the memory that the kernel leaves."""
    return scenario.workload.noise_bytes(scenario.guest.memory - scenario.guest.kept_by_kernel)
