# SPDX-License-Identifier: GPL-2.0-or-later
"""What does not go together with a disk that libvirt copies."""

from __future__ import annotations

from typing import Any

from pydantic_core import PydanticCustomError

from harness.scenario.devices.disk import ListedDisk
from harness.scenario.mode import goes_past_libvirt


def refuse_with_copied_disks(scenario: Any) -> None:
    """Raise an error of pydantic's, at the disk, for a migration that libvirt does not copy disks with.

    ``scenario``: a whole one; its module imports this one.
    """
    copied = _places(scenario.guest)
    if not copied:
        return
    shared = ("guest.shared",) if scenario.guest.shared else ()
    for number, how in enumerate(scenario.migrations, 1):
        past = (*goes_past_libvirt(how), *shared, *scenario.past_libvirt(number))
        reasons = {
            f"migration.to: {how.to}, which leaves disks where they are": how.to != "host",
            f"{', '.join(past)}: libvirt copies disks, and it goes past libvirt": bool(past),
            "migration.postcopy: libvirt, which refuses it": how.postcopy == "libvirt",
        }
        for words, given in reasons.items():
            if given:
                text = "does not go together with {words}"
                raise PydanticCustomError("at", text, {"path": copied[0], "words": words})


def _places(guest: Any) -> list[tuple[str | int, ...]]:
    return [
        ("guest", key, number, "storage")
        for key in ("disks", "devices")
        for number, device in enumerate(getattr(guest, key))
        if isinstance(device, ListedDisk) and device.is_copied
    ]
