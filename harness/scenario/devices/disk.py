# SPDX-License-Identifier: GPL-2.0-or-later
"""A disk of the guest's: its bus, its format, what is on it."""

from __future__ import annotations

import json
import os
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from harness.errors import InputError, MachineryError
from harness.scenario.devices.base import (
    ArrivedGuest,
    Device,
    DeviceContext,
    DeviceFacts,
    DeviceUser,
    HelperProgram,
    Plugged,
    demand_slot,
)
from harness.scenario.devices.libvirt_disk import disk_element, target_of
from harness.scenario.values import MIB, Size, Text

_IMG, _DAEMON = "qemu-img", "qemu-storage-daemon"
_PAGE: Final = 4096
_GENERATION: Final = "generation"

#: QEMU's names of the controller (empty: none is needed) and of the disk; the guest's modules.
_BUSES: Final = {
    "virtio-blk": ("", "virtio-blk-pci", ("virtio_blk",)),
    "virtio-scsi": ("virtio-scsi-pci", "scsi-hd", ("virtio_scsi", "sd_mod")),
    "sata": ("ich9-ahci", "ide-hd", ("ahci", "sd_mod")),
    "usb": ("qemu-xhci", "usb-storage", ("xhci_pci", "usb_storage", "sd_mod")),
    "nvme": ("", "nvme", ("nvme",)),
    "vhost-user-blk": ("", "vhost-user-blk-pci", ("virtio_blk",)),
}
#: Those that can have a thread of their own.
_THREADS: Final = ("virtio-blk", "virtio-scsi")


def _contents(text: str) -> str:
    if text in ("blank", "formula") or "/" in text:
        return text
    raise ValueError(f"expected blank, formula, or a path with a slash in it, got {text!r}")


class ListedDisk(Device):
    """A disk. The guest reads and writes it, unless the workload ``journal`` works on it."""

    most = 8
    needs_lab = True

    device: Literal["disk"] = "disk"
    """Which device."""
    bus: Literal["virtio-blk", "virtio-scsi", "sata", "usb", "nvme", "vhost-user-blk"] = "virtio-blk"
    """Where it hangs. vhost-user-blk: qemu-storage-daemon serves it. Debian's cloud kernel has drivers for
    the first two and the last; QEMU does not migrate nvme, which is refused."""
    size: Annotated[Size, Field(ge=MIB, le=1 << 40)] = 16 * MIB
    """How large it is; of a file, as large as that."""
    contents: Annotated[Text, Field(min_length=1), AfterValidator(_contents)] = "blank"
    """blank; formula: each page can be computed, and is checked; or the path of a file of that format, which
    is copied."""
    format: Literal["raw", "qcow2"] = "raw"
    """The format of its image. On vhost-user-blk only raw: qemu-storage-daemon does not read the tables of
    another format again when the guest comes."""
    cache: Literal["none", "writeback", "writethrough", "directsync", "unsafe"] = "none"
    """How the host caches it, by QEMU's names."""
    discard: bool = True
    """What the guest discards is given back to the host."""
    iothread: bool = False
    """It is served in a thread of its own; for virtio."""
    storage: Literal["shared", "copied", "copied-top"] = "shared"
    """shared: both hosts see one image. copied: each has an image of its own, and libvirt copies the disk
    with the guest, over NBD (VIR_MIGRATE_NON_SHARED_DISK); both are compared, whole. copied-top: of a qcow2
    image that lies on one which both hosts see, only the upper one (VIR_MIGRATE_NON_SHARED_INC)."""
    room: Annotated[Size, Field(ge=MIB, le=1 << 40)] | None = None
    """Its image is in a file system in memory that has so much room and no more, and which a script can
    fill up (disk-fill). Several such disks of a host share one, which has the sum of their rooms. null: in
    the run folder."""
    plugged: Plugged = "always"
    """When it is there. always: all the time. at-boot: until a script unplugs it (device-del). later: from
    when a script plugs it in (device-add). For machine type pc."""

    @property
    def qemu_devices(self) -> tuple[str, ...]:
        """Controller and disk."""
        controller, disk, _ = _BUSES[self.bus]
        return tuple(name for name in (controller, disk) if name)

    @property
    def guest_modules(self) -> tuple[str, ...]:
        """Drivers of both."""
        return _BUSES[self.bus][2]

    @property
    def host_programs(self) -> tuple[str, ...]:
        """What makes images in other formats, and what serves vhost-user."""
        image = (_IMG,) if self.format != "raw" or self.is_copied else ()
        return (*image, _DAEMON) if self.bus == "vhost-user-blk" else image

    @property
    def served_apart(self) -> bool:
        """Whether another process than QEMU serves it."""
        return self.bus == "vhost-user-blk"

    @property
    def is_copied(self) -> bool:
        """Whether each host has an image of its own."""
        return self.storage != "shared"

    @property
    def by_libvirt(self) -> str | None:
        """The key for which libvirt has to know the disk; None: QEMU alone is told of it."""
        if self.is_copied:
            return "storage"
        return None if self.plugged == "always" else "plugged"

    @property
    def comes_later(self) -> bool:
        """Whether a script plugs it in."""
        return self.plugged == "later"

    def demand(self, facts: DeviceFacts) -> None:
        """Refuse what QEMU does not migrate, and a file that is not there."""
        super().demand(facts)
        demand_slot(self, self.plugged, facts)
        if self.bus == "nvme":
            raise InputError(
                "guest.devices: disk: QEMU does not migrate an nvme: "
                "\"State blocked by non-migratable device 'nvme'\"",
                hint=f"bus: one of {', '.join(bus for bus in _BUSES if bus != 'nvme')}",
            )
        if self.served_apart and self.format != "raw":
            raise InputError(
                f"guest.devices: disk: format: {self.format} does not go together with vhost-user-blk: each "
                "host's qemu-storage-daemon has opened the image before the guest comes, and does not see "
                "what the other one has changed in its tables since",
                hint="format: raw, or another bus",
            )
        if self.iothread and self.bus not in _THREADS:
            raise InputError(
                f"guest.devices: disk: QEMU serves a disk on {self.bus} in no thread of its own",
                hint=f"iothread: for {' and '.join(_THREADS)}",
            )
        if (key := self.by_libvirt) is not None and (self.bus != "virtio-blk" or self.iothread):
            raise InputError(
                f"guest.devices: disk: {key}: libvirt has to know the disk, and is told of those on "
                "virtio-blk without a thread of their own",
                hint="bus: virtio-blk, iothread: false; or leave out what needs libvirt",
            )
        if self.room is not None and self.cache in ("none", "directsync"):
            raise InputError(
                f"guest.devices: disk: room: not each kernel opens a file in memory past the page cache, "
                f"as cache: {self.cache} wants",
                hint="cache: writeback",
            )
        if self.storage == "copied-top" and self.format != "qcow2":
            raise InputError(
                f"guest.devices: disk: storage: copied-top: an image in {self.format} lies on no other",
                hint="format: qcow2, or storage: copied",
            )
        if "/" in self.contents and not Path(self.contents).is_file():
            raise InputError(f"guest.devices: disk: there is no file {self.contents}")

    # The image

    def image(self, context: DeviceContext) -> Path:
        """Its image, which both hosts see, or the host's own."""
        own = f"-{context.host}" if self.is_copied else ""
        return self._folder(context) / f"{context.name}{own}.{self.format}"

    def _folder(self, context: DeviceContext) -> Path:
        if self.room is None:
            return context.kept
        return self.room_in(context.rooms, context.host, context.first_host)

    def _below(self, context: DeviceContext) -> Path:
        """What the image lies on, if that is not copied."""
        return context.kept / f"{context.name}-below.{self.format}"

    def provide(self, context: DeviceContext) -> None:
        """Make the image."""
        image, raw = self.image(context), context.kept / f"{context.name}-made.raw"
        if self.storage == "copied-top":
            image = self._below(context)
        if "/" in self.contents:
            _copy(Path(self.contents), image)
        else:
            self._make(context, raw, image)
        if self.storage == "copied-top":
            self._lay_on(context)

    def make_ready(self, context: DeviceContext, *, first: bool) -> None:
        """On its way to another host the disk is copied to an image in which nothing is."""
        if first or not self.is_copied:
            return
        image = self.image(context)
        image.unlink(missing_ok=True)
        if self.storage == "copied-top":
            self._lay_on(context)
            return
        _image(context, "create", "-q", "-f", self.format, str(image), str(self._virtual_size(context)))

    def _virtual_size(self, context: DeviceContext) -> int:
        if "/" not in self.contents:
            return self.size
        said = _image(context, "info", "-U", "-f", self.format, "--output=json", self.contents)
        return int(json.loads(said)["virtual-size"])

    def _lay_on(self, context: DeviceContext) -> None:
        below = str(self._below(context))
        words = ("-q", "-f", self.format, "-b", below, "-F", self.format, str(self.image(context)))
        _image(context, "create", *words)

    def _make(self, context: DeviceContext, raw: Path, image: Path) -> None:
        with raw.open("xb") as file:
            if self.contents == "formula":
                from harness.memory import formula

                pages = self.size // _PAGE
                for first in range(0, pages, 4096):
                    words = formula.disk_content(first, min(4096, pages - first))
                    file.write(words.astype("<u8").tobytes())
            os.truncate(file.fileno(), self.size)
        if self.format != "raw":
            _convert(context, raw, image, ("-f", "raw", "-O", self.format))
            raw.unlink()
        else:
            _move_sparse(raw, image)

    def raw_image(self, context: DeviceContext) -> Path:
        """What is on it now, as the raw image of a disk that nobody writes to at the moment."""
        if self.format == "raw":
            return self.image(context)
        raw = self._read_place(context)
        raw.unlink(missing_ok=True)
        _convert(context, self.image(context), raw, ("-U", "-f", self.format, "-O", "raw"))
        return raw

    def _read_place(self, context: DeviceContext) -> Path:
        return context.kept / f"{context.name}-{context.host}.read"

    def leave(self, context: DeviceContext) -> None:
        """Remove the images, of both hosts."""
        # What is in a room goes with that.
        for path in context.kept.glob(f"{context.name}[-.]*"):
            if path.suffix in (".raw", ".qcow2", ".read"):
                path.unlink(missing_ok=True)

    # QEMU

    def _node(self, context: DeviceContext, path: Path, *, locking: bool = True) -> tuple[str, str]:
        """Two layers of blocks: the file, and the format."""
        name = context.name
        direct = "on" if self.cache in ("none", "directsync") else "off"
        cache = f"cache.direct={direct},cache.no-flush={'on' if self.cache == 'unsafe' else 'off'}"
        discard = f"discard={'unmap' if self.discard else 'ignore'}"
        file = str(path).replace(",", ",,")
        locks = "" if locking else ",locking=off"
        return (
            f"driver=file,node-name={name}-file,filename={file},{cache},{discard}{locks}",
            f"driver={self.format},node-name={name}-disk,file={name}-file,{cache},{discard}",
        )

    def helpers(self, context: DeviceContext) -> Iterable[HelperProgram]:
        """The daemon that serves vhost-user; both hosts' have the image open, and one of them is idle."""
        if self.bus != "vhost-user-blk":
            return
        file, disk = self._node(context, self.image(context), locking=False)
        export = f"vhost-user-blk,id={context.name},node-name={context.name}-disk,writable=on"
        words = ("--blockdev", file, "--blockdev", disk, "--export", export + ",addr.type=fd,addr.str={fd}")
        yield HelperProgram(_DAEMON, words, context.socket("blk.sock"))

    def xml(self, context: DeviceContext) -> ET.Element | None:
        """The disk, where libvirt has to know it."""
        if self.by_libvirt is None:
            return None
        image = self.image(context)
        return disk_element(context, image, self.format, cache=self.cache, discard=self.discard)

    def reattach(self, element: ET.Element, context: DeviceContext) -> None:
        """Its image on this host."""
        for source in element.findall("source"):
            source.set("file", str(self.image(context)))

    @property
    def only_of_one_guest(self) -> str | None:
        """The room is the host's, and not the guest's."""
        return None if self.room is None else "a host has one file system for disks with a room"

    def room_in(self, rooms: Path, host: str, first_host: str) -> Path:
        """The small file system of a host that its image is in."""
        return rooms / (host if self.is_copied else first_host)

    def copied_target(self, context: DeviceContext) -> str | None:
        """What libvirt calls the disk, if it copies it."""
        return target_of(context) if self.is_copied else None

    def arguments(self, context: DeviceContext) -> tuple[str, ...]:
        """The image, the controller, and the disk; nothing if libvirt tells QEMU of it."""
        if self.by_libvirt is not None:
            return ()
        name = context.name
        controller, disk, _ = _BUSES[self.bus]
        if self.bus == "vhost-user-blk":
            return (
                *("-chardev", f"socket,id={name}-blk,path={context.socket('blk.sock')}"),
                *("-device", f"{disk},id={name},chardev={name}-blk,{context.place}"),
            )
        words: list[str] = []
        for node in self._node(context, self.image(context)):
            words += ["-blockdev", node]
        thread = ""
        if self.iothread:
            words += ["-object", f"iothread,id={name}-thread"]
            thread = f",iothread={name}-thread"
        if controller:
            words += ["-device", f"{controller},id={name},{context.place}{thread}"]
            place, thread = f"bus={name}.0", ""
        else:
            place = context.place
        write_cache = "off" if self.cache in ("writethrough", "directsync") else "on"
        inner = f"{name}-hd" if controller else name
        words += [
            "-device",
            f"{disk},id={inner},{place},drive={name}-disk,write-cache={write_cache}{thread}",
        ]
        return tuple(words)

    # What the guest does

    def _use(self, guest: DeviceUser, generation: int) -> None:
        kind = self.contents if "/" not in self.contents else "any"
        pages = self.size // _PAGE if kind != "any" else 1
        at = guest.context.guest.int % max(1, pages // 2)
        guest.use("disk", "check", guest.context.pci_address, pages, at, generation, kind)
        guest.notes[_GENERATION] = str(generation + 1)

    def boarding(self, guest: DeviceUser) -> None:
        """It reads right, and is written to; a file of the user's is only read."""
        if not guest.context.at_work:
            self._use(guest, 0)

    def arrived(self, guest: ArrivedGuest) -> Iterable[str]:
        """It reads right, has what was written before, and is written again."""
        if not guest.context.at_work:
            self._use(guest, int(guest.notes[_GENERATION]))
        return ()


def _convert(context: DeviceContext, source: Path, target: Path, options: tuple[str, ...]) -> None:
    _image(context, "convert", *options, str(source), str(target))


def _image(context: DeviceContext, *words: str) -> bytes:
    done = subprocess.run([*context.programs[_IMG], *words], capture_output=True, check=False)
    if done.returncode:
        text = done.stderr.decode(errors="replace").strip()
        raise MachineryError(f"qemu-img {words[0]} failed: {text}")
    return done.stdout


def _move_sparse(source: Path, target: Path) -> None:
    """What is a hole stays one, on another file system as well."""
    if source.parent == target.parent:
        source.rename(target)
        return
    subprocess.run(["cp", "--sparse=always", "--", str(source), str(target)], check=True)
    source.unlink()


def _copy(source: Path, target: Path) -> None:
    import shutil

    shutil.copyfile(source, target)
