# SPDX-License-Identifier: GPL-2.0-or-later
"""A folder that the host shares with the guest."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final, Literal
from uuid import uuid5

from harness.scenario.devices.base import ArrivedGuest, Device, DeviceContext, DeviceUser, HelperProgram

_VIRTIOFSD: Final = "virtiofsd"
_TAG: Final = "freepage"
_PAGES: Final = 256
#: Pages of the file that are read on arrival.
_LOOKS: Final = (0, 17, _PAGES - 1)


class VirtioFs(Device):
    """A folder that the host shares (virtiofs, by virtiofsd), with a file that the guest holds open."""

    qemu_device = "vhost-user-fs-pci"
    programs = (_VIRTIOFSD,)
    needs_lab = True

    device: Literal["virtiofs"] = "virtiofs"
    """Which device."""

    @property
    def guest_modules(self) -> tuple[str, ...]:
        """Its driver."""
        return ("virtiofs",)

    def _folder(self, context: DeviceContext) -> Path:
        return context.shared / f"{context.name}-files"

    def provide(self, context: DeviceContext) -> None:
        """The folder, and the file with the formula."""
        from harness.memory import formula

        folder = self._folder(context)
        folder.mkdir(mode=0o755)
        (folder / "formula").write_bytes(formula.disk_content(0, _PAGES).astype("<u8").tobytes())

    def helpers(self, context: DeviceContext) -> Iterable[HelperProgram]:
        """Virtiofsd, without a sandbox: it is in the lab already, and sees nothing but the folder there."""
        words = ("--fd={fd}", f"--shared-dir={self._folder(context)}", "--sandbox=none", "--cache=never")
        yield HelperProgram(_VIRTIOFSD, words, context.socket("files.sock"))

    def arguments(self, context: DeviceContext) -> tuple[str, ...]:
        """The device, and how QEMU reaches virtiofsd."""
        name = context.name
        return (
            *("-chardev", f"socket,id={name}-files,path={context.socket('files.sock')}"),
            *("-device", f"vhost-user-fs-pci,id={name},chardev={name}-files,tag={_TAG},{context.place}"),
        )

    def boarding(self, guest: DeviceUser) -> None:
        """It is mounted, and a file opened."""
        guest.use("fs", "begin", _TAG)

    def arrived(self, guest: ArrivedGuest) -> Iterable[str]:
        """The open file is right, it can be opened again, and what the guest writes gets to the host."""
        for page in _LOOKS:
            word = uuid5(guest.context.guest, f"{guest.context.host} {page}").hex
            guest.use("fs", "check", word, page)
            said = self._folder(guest.context) / "said"
            if said.read_text("ascii", errors="replace") != word:
                yield "what the guest wrote into a file is not what the host reads there"
