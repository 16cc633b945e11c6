# SPDX-License-Identifier: GPL-2.0-or-later
"""A disk that a device beside the guest's own has: half of it holds the formula, half is the guest's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from harness.scenario.devices.base import DeviceUser

if TYPE_CHECKING:
    from harness.scenario.devices.base import ArrivedGuest, DeviceContext

_PAGE: Final = 4096
_PAGES: Final = 4096
#: A note: which generation the page in the middle is in.
_GENERATION: Final = "generation"


def image_path(context: DeviceContext) -> Path:
    """The image, which both hosts see."""
    return context.shared / f"{context.name}.raw"


def make_image(context: DeviceContext) -> None:
    """The first half follows the formula; the rest is a hole."""
    from harness.memory import formula

    with image_path(context).open("xb") as file:
        file.write(formula.disk_content(0, _PAGES // 2).astype("<u8").tobytes())
        os.truncate(file.fileno(), _PAGES * _PAGE)


def block_node(context: DeviceContext) -> tuple[str, ...]:
    """QEMU's arguments for the image, which is then called ``NAME-disk``."""
    path = str(image_path(context)).replace(",", ",,")
    return ("-blockdev", f"driver=file,node-name={context.name}-disk,filename={path},discard=unmap")


def write_first(guest: DeviceUser) -> None:
    """Have the guest read the disk, and write to it for the first time."""
    _read_and_write(guest, 0)


def check_disk(guest: ArrivedGuest) -> str | None:
    """Have the guest read the disk and what it wrote, and write again; what the image then lacks."""
    from harness.memory import formula

    generation = int(guest.notes[_GENERATION])
    _read_and_write(guest, generation)
    with image_path(guest.context).open("rb") as file:
        file.seek(_PAGES // 2 * _PAGE)
        found = file.read(_PAGE)
    key = formula.DISK_SEED, _PAGES // 2, generation + 1
    if found != formula.endless(*key, 0, _PAGE // 8).astype("<u8").tobytes():
        return "what the guest was told is written is not in the image"
    return None


def _read_and_write(guest: DeviceUser, generation: int) -> None:
    at = guest.context.guest.int % (_PAGES // 2) if not generation else generation * 100
    guest.use("disk", "check", guest.context.pci_address, _PAGES, at, generation)
    guest.notes[_GENERATION] = str(generation + 1)
