# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest of the user's own image is given: cloud-init's NoCloud, on a disk beside its own.

The disk has the label ``cidata``.  cloud-init takes from it the guest's address, its keys and a script
for the end of each boot, which starts the agent; the agent and all else that the guest is to run is on
the same disk (vm-images/seed).  Nothing is installed.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final
from uuid import UUID

from harness.errors import GuestLost
from harness.events import Deadline
from harness.guest.ssh import Keys
from harness.hosts.interface import Nic
from harness.hosts.netns import PREFIX
from harness.plan.plan import RunPlan
from harness.toolchain.module import MODULE
from harness.toolchain.sources import sources

_LABEL: Final = "cidata"
_EVERY_BOOT: Final = "/var/lib/cloud/scripts/per-boot/freepage"
_LEVEL: Final = 3  # of ISO 9660's interchange: names of up to 30 characters


def write_seed(path: Path, plan: RunPlan, keys: Keys, guest: UUID, nics: Sequence[Nic]) -> None:
    """Write the disk.  ``path`` must not exist yet."""
    # Only such a guest pays for it.
    import pycdlib

    named = [(f"eth{number}", nic) for number, nic in enumerate(nics)]
    files = {
        "meta-data": _json({"instance-id": str(guest), "local-hostname": "guest"}),
        "user-data": b"#cloud-config\n" + _json(_user_data(keys)),
        "network-config": _json(
            {"version": 2, "ethernets": {name: _ethernet(name, nic) for name, nic in named}}
        ),
        **programs_and_start(plan),
    }
    disk = pycdlib.PyCdlib()
    disk.new(interchange_level=_LEVEL, vol_ident=_LABEL, rock_ridge="1.09", joliet=3)
    for name, content in files.items():
        disk.add_fp(
            io.BytesIO(content),
            len(content),
            f"/{name.upper().replace('-', '_')}.;1",
            rr_name=name,
            joliet_path=f"/{name}",
            file_mode=0o100755,
        )
    with path.open("xb") as file:
        path.chmod(0o600)
        disk.write_fp(file)
    disk.close()


def programs_and_start(plan: RunPlan) -> dict[str, bytes]:
    """What the guest runs, by the names of its files: one folder, with the script that starts it."""
    assert plan.guest_programs is not None
    return {
        "driver": plan.driver.encode() + b"\n",
        "start": (sources() / "vm-images" / "seed" / "start").read_bytes(),
        **{program.name: program.read_bytes() for program in sorted(plan.guest_programs.iterdir())},
    }


def _json(value: Mapping[str, object]) -> bytes:
    """YAML, as all JSON is."""
    return json.dumps(value, indent=1).encode()


def _user_data(keys: Keys) -> dict[str, object]:
    authorized = [keys.authorized_keys().decode().strip()]
    return {
        "disable_root": False,
        "users": ["default", {"name": "root", "ssh_authorized_keys": authorized}],
        "ssh_deletekeys": True,
        "ssh_keys": {
            "ed25519_private": keys.host_key().decode(),
            "ed25519_public": keys.host_public().decode(),
        },
        "write_files": [
            {
                "path": _EVERY_BOOT,
                "permissions": "0755",
                "content": (sources() / "vm-images" / "seed" / "every-boot").read_text("utf-8"),
            }
        ],
        # Of what it does by itself: nothing that writes much to its disk.
        "package_update": False,
        "growpart": {"mode": "off"},
        "resize_rootfs": False,
    }


def _ethernet(name: str, nic: Nic) -> dict[str, object]:
    return {
        "match": {"macaddress": nic.mac},
        "set-name": name,
        "dhcp4": False,
        # Nothing in the guest waits for it.
        "optional": True,
        "addresses": [f"{nic.address}/{PREFIX}"],
    }


@contextlib.contextmanager
def silence_explained(plan: RunPlan, deadline: Deadline) -> Iterator[None]:
    """A guest that says nothing may have an image that knows nothing of the seed."""
    try:
        yield
    except GuestLost as error:
        if not plan.own_image or not deadline.expired:
            raise
        if not plan.seeded:
            raise GuestLost(
                f"{error.message}: the agent that was copied into the guest of guest.image says nothing",
                hint="its kernel needs a second serial port, ttyS1; a slow guest needs a longer "
                "guest.boot_timeout_s (docs/image.md)",
            ) from error
        raise GuestLost(
            f"{error.message}: no agent came up in the guest of guest.image",
            hint="the image needs cloud-init with the datasource NoCloud, and its kernel a port ttyS1; one "
            "without cloud-init is entered by guest.ssh; a slow guest needs a longer guest.boot_timeout_s "
            "(docs/image.md)",
        ) from error


def demand_driver(plan: RunPlan, said: Mapping[str, object]) -> None:
    """Raise unless a guest of the user's own image has the balloon driver that the arm is about."""
    if plan.own_image and plan.driver == "info" and said["driver"] != "info":
        raise plan.resolved.scenario.wrong(
            "arm",
            f"info: the kernel {said['release']} of guest.image has no module {MODULE}",
            hint="--arm hint or --arm off; or install the module in the image (docs/module.md)",
        )
