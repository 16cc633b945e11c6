# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a script plugs the guest's own disks and NIC in and out in an order that there can be."""

from __future__ import annotations

from typing import Any

from pydantic_core import PydanticCustomError


def refuse_wrong_plugging(scenario: Any) -> None:
    """Raise an error of pydantic's, at its place, for what is plugged in twice, or not there, or never.

    ``scenario``: a whole one; its module imports this one.
    """
    lists = {"disk": scenario.guest.disks, "nic": scenario.guest.nics}
    for number, one in enumerate(scenario.guest.devices):
        if getattr(one, "plugged", "always") != "always":
            _refuse(("guest", "devices", number, "plugged"), f"expected in guest.{one.device}s")
    there = {(kind, n): one.plugged for kind, devices in lists.items() for n, one in enumerate(devices)}
    present = {place: plugged != "later" for place, plugged in there.items()}
    used = set()
    for index, entry in enumerate(scenario.script):
        for number, action in enumerate(entry.do):
            if (wanted := action.plugs) is None:
                continue
            path = ("script", index, "do", number, "device")
            *place, plugs = wanted
            key = (place[0], place[1])
            name = f"guest.{place[0]}s[{place[1]}]"
            if key not in there:
                _refuse(path, f"there is no {name}")
            if there[key] == "always":
                _refuse(path, f"{name} is there always: expected plugged: at-boot or later")
            if plugs == present[key]:
                _refuse(path, f"{name} is {'plugged in' if plugs else 'not there'} already")
            present[key] = plugs
            used.add(key)
    for (kind, number), plugged in there.items():
        if plugged != "always" and (kind, number) not in used:
            action = "device-add" if plugged == "later" else "device-del"
            _refuse(("guest", f"{kind}s", number, "plugged"), f"no {action} of the script is about it")


def _refuse(path: tuple[str | int, ...], words: str) -> None:
    raise PydanticCustomError("at", "{words}", {"path": path, "words": words})
