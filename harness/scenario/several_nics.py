# SPDX-License-Identifier: GPL-2.0-or-later
"""What the guest's NICs cannot be: more queues than vCPUs, and what only the first of several can be."""

from __future__ import annotations

from typing import Any

from pydantic_core import PydanticCustomError

from harness.scenario.devices.nic import ListedNic


def refuse_wrong_nics(guest: Any) -> None:
    """Raise an error of pydantic's, at its place.  ``guest``: a whole section; its module imports others."""
    nics = guest.all_nics
    for key in ("devices", "nics"):
        for index, one in enumerate(getattr(guest, key)):
            if not isinstance(one, ListedNic):
                continue
            if guest.vcpus < one.queues:
                _refuse((key, index, "queues"), "expected at most as many queues as vcpus")
            if one.served_apart and one is not nics[0]:
                _refuse((key, index, "backend"), "vhost-user is for the first of several NICs")
    if len(nics) > 1 and guest.image == "debian":
        words = "expected small, or a path: a distribution gives one NIC an address, and not always the first"
        _refuse(("image",), words)


def _refuse(path: tuple[str | int, ...], words: str) -> None:
    raise PydanticCustomError("at", "{words}", {"path": ("guest", *path), "words": words})
