# SPDX-License-Identifier: GPL-2.0-or-later
"""A TPM, which swtpm emulates."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final, Literal

from harness.scenario.devices.base import ArrivedGuest, Device, DeviceContext, DeviceUser, HelperProgram

_SWTPM: Final = "swtpm"
#: A note: what the register has to hold.
_REGISTER: Final = "register"
_DIGEST: Final = 32


class Tpm(Device):
    """A TPM 2.0, emulated by swtpm, whose state travels with the guest."""

    programs = (_SWTPM,)
    needs_lab = True

    device: Literal["tpm"] = "tpm"
    """Which device."""
    model: Literal["crb", "tis"] = "crb"
    """Its interface to the guest."""

    @property
    def qemu_devices(self) -> tuple[str, ...]:
        """QEMU's name of the interface."""
        return (f"tpm-{self.model}",)

    @property
    def guest_modules(self) -> tuple[str, ...]:
        """Its driver, which Debian's kernels have built in."""
        return (f"tpm_{self.model}",)

    def helpers(self, context: DeviceContext) -> Iterable[HelperProgram]:
        """Swtpm, with a folder of its own on each host: what it knows comes with the guest."""
        folder = context.socket("tpm")
        folder.mkdir(mode=0o700, exist_ok=True)
        words = ("socket", "--tpm2", "--tpmstate", f"dir={folder}", "--ctrl", "type=unixio,fd={fd}")
        yield HelperProgram(_SWTPM, (*words, "--flags", "not-need-init"), context.socket("tpm.sock"))

    def arguments(self, context: DeviceContext) -> tuple[str, ...]:
        """The TPM, and how QEMU reaches swtpm."""
        name = context.name
        return (
            *("-chardev", f"socket,id={name}-tpm,path={context.socket('tpm.sock')}"),
            *("-tpmdev", f"emulator,id={name}-tpmdev,chardev={name}-tpm"),
            *("-device", f"tpm-{self.model},id={name},tpmdev={name}-tpmdev"),
        )

    def _extend(self, guest: DeviceUser, occasion: str) -> bytes:
        """Extend the register; what it held before.  What it must hold then is noted."""
        digest = hashlib.sha256(f"{guest.context.guest} {occasion}".encode()).digest()
        both = bytes.fromhex(guest.use("tpm", "extend", digest.hex()))
        before, after = both[:_DIGEST], both[_DIGEST:]
        guest.notes[_REGISTER] = hashlib.sha256(before + digest).hexdigest()
        guest.notes["after"] = after.hex()
        return before

    def boarding(self, guest: DeviceUser) -> None:
        """A register is extended for the first time."""
        self._extend(guest, "boarding")

    def arrived(self, guest: ArrivedGuest) -> Iterable[str]:
        """The register holds what it must, and can be extended."""
        wanted = guest.notes[_REGISTER]
        before = self._extend(guest, guest.context.host).hex()
        if before != wanted:
            yield f"its register held {before} on arrival, and must hold {wanted}"
        if guest.notes["after"] != guest.notes[_REGISTER]:
            yield "its register was extended wrongly"
