# SPDX-License-Identifier: GPL-2.0-or-later
"""Options of the balloon that every guest has."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final, Literal

from harness.scenario.devices.base import (
    ArrivedGuest,
    Device,
    DeviceContext,
    DeviceError,
    DeviceUser,
)

_BALLOON: Final = "virtio-balloon-device"
#: Its number among virtio's devices, and bits of what its driver agrees to.
_NUMBER: Final = 5
_DEFLATE_ON_OOM, _REPORTING = 1 << 2, 1 << 5
#: So many bytes the guest gives to the host, and takes back.
_GIVEN: Final = 16 << 20


class BalloonOptions(Device):
    """Options of the balloon that every guest has. What is left out stays as QEMU has it."""

    device: Literal["balloon"] = "balloon"
    """Which device."""
    free_page_reporting: bool = False
    """The guest gives free memory back to the host, at any time."""
    deflate_on_oom: bool = False
    """The guest takes memory back out of the balloon rather than to end a process."""

    def arguments(self, context: DeviceContext) -> tuple[str, ...]:  # noqa: ARG002
        """Properties of the one balloon that there is."""
        options = {"free-page-reporting": self.free_page_reporting, "deflate-on-oom": self.deflate_on_oom}
        return tuple(
            word for name, on in options.items() if on for word in ("-global", f"{_BALLOON}.{name}=on")
        )

    def _missing(self, guest: DeviceUser) -> Iterable[str]:
        (agreed,) = struct.unpack("<Q", bytes.fromhex(guest.use("virtio", "features", _NUMBER)))
        if self.free_page_reporting and not agreed & _REPORTING:
            yield "the guest's driver and the balloon have not agreed on free page reporting"
        if self.deflate_on_oom and not agreed & _DEFLATE_ON_OOM:
            yield "the guest's driver and the balloon have not agreed on deflate-on-oom"

    def boarding(self, guest: DeviceUser) -> None:
        """Its driver and it agree on what was asked for."""
        for text in self._missing(guest):
            raise DeviceError(text)

    def arrived(self, guest: ArrivedGuest) -> Iterable[str]:
        """They still agree, and the guest gives memory to the host and takes it back."""
        yield from self._missing(guest)
        whole = _actual(guest)
        for wanted in (whole - _GIVEN, whole):
            guest.execute("balloon", {"value": wanted})
            if not guest.wait_until(lambda wanted=wanted: _actual(guest) == wanted):  # type: ignore[misc]
                text = f"the guest was asked to have {wanted} bytes, and has {_actual(guest)}"
                raise DeviceError(text, silent=True)


def _actual(guest: ArrivedGuest) -> int:
    said = guest.execute("query-balloon")
    actual = said.get("actual") if isinstance(said, dict) else None
    if not isinstance(actual, int):
        raise DeviceError(f"QEMU says of the balloon: {said}")
    return actual
