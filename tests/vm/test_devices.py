# SPDX-License-Identifier: GPL-2.0-or-later
"""A device that is defined in this file, in a guest that is migrated.

The test starts this file as a program: there the class is known, and the command is the usual one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from harness.report.result import Result
from harness.scenario.devices import DEVICES, ArrivedGuest, Device, DeviceContext
from tests.vm.conftest import LONGEST

with DEVICES.temporary():

    class Rng(Device):
        """A source of random numbers (virtio-rng)."""

        qemu_device = "virtio-rng-pci"

        device: Literal["rng"] = "rng"
        """Which device."""
        virtio_name: str = "virtio-rng"
        """What QEMU calls it among its virtio devices."""

        def xml(self, context: DeviceContext) -> ET.Element:  # noqa: ARG002
            element = ET.Element("rng", {"model": "virtio"})
            ET.SubElement(element, "backend", {"model": "builtin"})
            return element

        def arrived(self, guest: ArrivedGuest) -> Iterable[str]:
            """The small image has no driver for it, so QEMU is asked and not the guest."""
            said = guest.execute("x-query-virtio")
            assert isinstance(said, list)
            names = [device["name"] for device in said]
            if self.virtio_name not in names:
                yield f"the {guest.context.host} has no {self.virtio_name}, but {', '.join(names)}"


SCENARIO = """\
name: rng
accelerator: tcg
guest: {memory: 256MiB, devices: [{device: rng}]}
"""


def test_a_device_of_this_file_is_migrated(folder: Path, repository: Path) -> None:
    scenario, out = folder / "rng.yaml", folder / "run"
    scenario.write_text(SCENARIO)
    command = [sys.executable, __file__, "run", str(scenario), "--json", "--out", str(out)]
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=LONGEST, check=False, env=environment)
    assert done.returncode == 0
    assert Result.from_json(done.stdout.decode()).verdict == "pass"
    for name in ("source.command", "destination.command"):
        assert '"driver":"virtio-rng-pci","rng":"objua-freepage-0"' in (out / name).read_text()
    events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    looked = [event["data"] for event in events if event["data"].get("step") == "devices"][-1]
    assert (looked["devices"], looked["findings"]) == (["rng"], 0)


if __name__ == "__main__":
    from harness.cli import main

    DEVICES.add(Rng)
    main()
