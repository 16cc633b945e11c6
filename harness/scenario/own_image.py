# SPDX-License-Identifier: GPL-2.0-or-later
"""What does not go together with a disk image of the user's: it has a kernel and a boot loader of its own."""

from __future__ import annotations

from typing import Any

from pydantic_core import PydanticCustomError

from harness.scenario.script import actions, needs_controls


def refuse_with_own_image(scenario: Any) -> None:
    """Raise an error of pydantic's, at the key, for what the testbed cannot do in somebody else's image.

    ``scenario``: a whole one; its module imports this one.
    """
    guest, workload = scenario.guest, scenario.workload
    if not guest.own_image:
        if guest.ssh is not None:
            _refuse(("guest", "ssh"), "is for the path of an image in guest.image: all others have the agent")
        return
    if guest.ssh is not None:
        _refuse_with_ssh(scenario)
    of_guest = {
        "kernel": (guest.kernel != "default", "the image has its own kernel"),
        "cmdline": (bool(guest.cmdline), "the image's boot loader says it"),
        "module": (guest.module == "test", "the image's kernel has no such build"),
        "virtio_mem": (guest.virtio_mem is not None, "the image's kernel is not told to use it"),
        "shared": (guest.shared is not None, "the image's kernel is not told to use it"),
    }
    for device in guest.devices:
        words = " ".join(device.kernel_words)
        of_guest["devices"] = (bool(words), f"{device.device} needs {words!r}, which its boot loader says")
        if words:
            break
    for key, (given, why) in of_guest.items():
        if given:
            _refuse(("guest", key), f"does not go together with the path of an image: {why}")
    lacks = {
        workload.image != "small": "its programs are in the image debian only",
        workload.needs_compiler: "its compiler and sources are in the image small only",
        workload.own_program is not None: "it is put into the image small only",
        workload.reads_disk: "it has a disk of its own",
        workload.writes_disk and guest.work_disk is None: "expected a blank disk for it in guest.disks",
    }
    for given, why in lacks.items():
        if given:
            _refuse(
                ("workload", "kind"), f"{workload.kind} does not go together with the path of an image: {why}"
            )
    if needs_controls(scenario.script) or any(action.needs_kernel for action in actions(scenario.script)):
        _refuse(("script",), "has an action for which the kernel would have to be ours")


def _refuse_with_ssh(scenario: Any) -> None:
    """What the way in by ssh, which is gone once, does not know."""
    if scenario.guests > 1:
        _refuse(("guest", "ssh"), "does not go together with several guests (guests)")
    if scenario.remote is not None:
        _refuse(("guest", "ssh"), "is of a lab: the testbed is not in the network of a remote host's guest")
    if any(nic.comes_later for nic in scenario.guest.all_nics[:1]):
        _refuse(("guest", "ssh"), "needs the guest's first NIC when it boots")
    for index, entry in enumerate(scenario.script):
        for place, action in enumerate(entry.do):
            if action.restarts:
                words = f"{action.action} does not go together with guest.ssh: nobody starts the agent again"
                _refuse(("script", index, "do", place, "action"), words)


def _refuse(path: tuple[str | int, ...], words: str) -> None:
    raise PydanticCustomError("at", "{words}", {"path": path, "words": words})
