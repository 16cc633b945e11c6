# SPDX-License-Identifier: GPL-2.0-or-later
"""What a run is made of, once nothing is left to decide."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from harness import __version__
from harness.faults.injection import NO_INJECTION, Injection
from harness.guest.login import Login
from harness.hosts.libvirtd import libvirt_version
from harness.plan.by_hand import NOT_BY_HAND, ByHand
from harness.plan.machines import Binaries
from harness.toolchain.cache import file_digest
from harness.toolchain.qemu_names import file_of

if TYPE_CHECKING:
    from harness.plan.machine import MachineBoard
    from harness.plan.machines import Machines
    from harness.scenario.resolve import ResolvedScenario
    from harness.toolchain import GuestImage, Kernel, QemuBinary
    from harness.toolchain.ovmf import GuestFirmware


@dataclass(frozen=True, slots=True)
class Tools:
    """What the user names instead of what the toolchain would build."""

    #: QEMUs by canonical names (harness/toolchain/qemu_names.py).
    source_qemu: str | None = None
    destination_qemu: str | None = None
    #: A kernel's name, or an absolute path.
    kernel: str | None = None
    qemu_source: Path | None = None
    #: A deliberate fault, by its id in the catalogue: what is under test is then wrong, and nobody who
    #: judges it is told.
    fault: str | None = None
    #: Go on from a guest that was booted before, where there may be one (harness/plan/warming.py).
    warm: bool = False

    @property
    def qemu_files(self) -> tuple[Path, ...]:
        """The programs among the QEMUs: what is not the toolchain's to get."""
        files = (file_of(name) for name in (self.source_qemu, self.destination_qemu) if name is not None)
        return tuple(path for path in files if path is not None)

    def options(self) -> list[str]:
        """The same again, as options of the command: for the replay."""
        tree = None if self.qemu_source is None else str(self.qemu_source.resolve())
        named = (
            ("--source-qemu", self.source_qemu),
            ("--destination-qemu", self.destination_qemu),
            ("--qemu-source", tree),
        )
        words = [word for option, name in named if name is not None for word in (option, name)]
        words += ["--kernel", self.kernel] if self.kernel else []
        words += ["--warm"] if self.warm else []
        return [*words, "--fault", self.fault] if self.fault else words


@dataclass(frozen=True, slots=True)
class GuestDisk:
    """The guest's disk.

    ``private``: the run writes to a disk of its own; else nobody writes.  Without a
    ``path`` that is a blank one of ``size`` bytes; else a copy.
    """

    path: Path | None
    private: bool
    size: int = 0
    kind: Literal["raw", "qcow2"] = "raw"
    #: It is an image of the user's, from which the guest boots as a machine does.
    own: bool = False

    @property
    def distribution(self) -> bool:
        """Whether the guest's system is on it."""
        return self.private and self.path is not None


@dataclass(frozen=True, slots=True)
class RunPlan:
    """One run: the resolved scenario, and every binary that it uses."""

    resolved: ResolvedScenario
    tools: Tools
    accelerator_reason: str
    source_qemu: QemuBinary
    destination_qemu: QemuBinary
    kernel: Kernel
    image: GuestImage
    #: Where the hosts are.
    machines: Machines
    #: ``time.monotonic()`` when the command began: a run is measured from there.
    began: float
    #: How the deliberate fault gets into what is under test; none in an ordinary run.
    injection: Injection = NO_INJECTION
    #: Unpacked over the image: what the workload needs beside it.
    archive: Path | None = None
    disk: GuestDisk | None = None
    #: A folder with the programs for a guest of the user's own image, on a seed disk or by ssh.
    guest_programs: Path | None = None
    #: How they come into it by ssh; None: on a seed disk.
    login: Login | None = None
    #: Unpacked over the image as well: modules that the scenario's devices need.
    device_modules: Path | None = None
    #: Programs on the host that serve devices: the words that start each, by its name.
    programs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    #: Loaded into both QEMUs: see harness/toolchain/preload.py.
    preload: Path | None = None
    #: Firmware in place of QEMU's own choice.
    firmware: GuestFirmware | None = None
    #: The guest's machine as the QEMUs make it; None: they were not asked.
    board: MachineBoard | None = None
    #: Where a person wants the run to stand still.
    hand: ByHand = NOT_BY_HAND

    @property
    def binaries(self) -> Binaries:
        """What both hosts run."""
        return Binaries(self.source_qemu, self.destination_qemu, self.kernel)

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file of this machine that the hosts read."""
        qemus = (self.source_qemu, self.destination_qemu)
        named = (
            self.kernel.vmlinuz,
            self.image.initrd,
            self.archive,
            self.device_modules,
            self.preload,
            self.guest_programs,
        )
        firmware = [place for qemu in qemus for place in qemu.firmware]
        firmware += [qemu.emulator.parent for qemu in qemus if qemu.emulator is not None]
        firmware += [qemu.folder for qemu in qemus if qemu.folder is not None]
        firmware += self.firmware.files if self.firmware is not None else ()
        firmware += [self.disk.path] if self.disk is not None and self.disk.path is not None else []
        return (*(path for path in named if path is not None), *(qemu.path for qemu in qemus), *firmware)

    @property
    def own_image(self) -> bool:
        """Whether the guest boots from a disk image of the user's, with a kernel of its own."""
        return self.disk is not None and self.disk.own

    @property
    def seeded(self) -> bool:
        """Whether cloud-init in that image starts the agent, from a disk beside its own."""
        return self.own_image and self.login is None

    @property
    def driver(self) -> str:
        """Which balloon driver the guest loads: the peer's arm is measured with the peer's driver."""
        return "stock" if self.resolved.scenario.arm == "hint" else "info"

    def versions(self, kernel: str) -> Mapping[str, object]:
        """Versions and hashes of every binary, for the result; ``kernel``: the release that the guest ran."""
        return {
            "source_qemu": _describe(self.source_qemu),
            "destination_qemu": _describe(self.destination_qemu),
            "kernel": {
                "path": None if self.own_image else self.kernel.vmlinuz,
                "release": kernel,
                "sha256": None if self.own_image else file_digest(self.kernel.vmlinuz),
            },
            "image": {"path": self.image.initrd, "sha256": self.image.sha256},
            "libvirt": libvirt_version(),
            "host_kernel": os.uname().release,
            "freepage": __version__,
        }


def _describe(qemu: QemuBinary) -> dict[str, object]:
    return {"path": qemu.path, "version": qemu.version, "sha256": qemu.sha256, "flavour": qemu.flavour}
