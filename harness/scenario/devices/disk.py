# SPDX-License-Identifier: GPL-2.0-or-later
"""A disk of the guest's: its bus, its format, what is on it."""

from __future__ import annotations

import os
import subprocess
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
)
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
    """The format of its image."""
    cache: Literal["none", "writeback", "writethrough", "directsync", "unsafe"] = "none"
    """How the host caches it, by QEMU's names."""
    discard: bool = True
    """What the guest discards is given back to the host."""
    iothread: bool = False
    """It is served in a thread of its own; for virtio."""

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
        image = (_IMG,) if self.format != "raw" else ()
        return (*image, _DAEMON) if self.bus == "vhost-user-blk" else image

    @property
    def served_apart(self) -> bool:
        """Whether another process than QEMU serves it."""
        return self.bus == "vhost-user-blk"

    def demand(self, facts: DeviceFacts) -> None:
        """Refuse what QEMU does not migrate, and a file that is not there."""
        super().demand(facts)
        if self.bus == "nvme":
            raise InputError(
                "guest.devices: disk: QEMU does not migrate an nvme: "
                "\"State blocked by non-migratable device 'nvme'\"",
                hint=f"bus: one of {', '.join(bus for bus in _BUSES if bus != 'nvme')}",
            )
        if self.iothread and self.bus not in _THREADS:
            raise InputError(
                f"guest.devices: disk: QEMU serves a disk on {self.bus} in no thread of its own",
                hint=f"iothread: for {' and '.join(_THREADS)}",
            )
        if "/" in self.contents and not Path(self.contents).is_file():
            raise InputError(f"guest.devices: disk: there is no file {self.contents}")

    # The image

    def image(self, context: DeviceContext) -> Path:
        """Its image, which both hosts see."""
        return context.kept / f"{context.name}.{self.format}"

    def provide(self, context: DeviceContext) -> None:
        """Make the image."""
        image, raw = self.image(context), context.kept / f"{context.name}.raw"
        if "/" in self.contents:
            _copy(Path(self.contents), image)
            return
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

    def raw_image(self, context: DeviceContext) -> Path:
        """What is on it now, as the raw image of a disk that nobody writes to at the moment."""
        if self.format == "raw":
            return self.image(context)
        raw = context.kept / f"{context.name}.read"
        raw.unlink(missing_ok=True)
        _convert(context, self.image(context), raw, ("-U", "-f", self.format, "-O", "raw"))
        return raw

    def leave(self, context: DeviceContext) -> None:
        """Remove the images."""
        for path in (self.image(context), context.kept / f"{context.name}.read"):
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

    def arguments(self, context: DeviceContext) -> tuple[str, ...]:
        """The image, the controller, and the disk."""
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
    command = [*context.programs[_IMG], "convert", *options, str(source), str(target)]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        raise MachineryError(f"qemu-img cannot make {target}: {done.stderr.decode(errors='replace').strip()}")


def _copy(source: Path, target: Path) -> None:
    import shutil

    shutil.copyfile(source, target)
