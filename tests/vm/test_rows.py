# SPDX-License-Identifier: GPL-2.0-or-later
"""Each key of the guest's, and each value of it, is in a small guest that boots, migrates and is judged.

The rows come out of the language's own declarations (:mod:`harness.hunt.language`, and the registry of
devices), so a new kind of device, or a new word for a key, is a row by itself.  As many rows as go together
are put into one guest.  What this machine or QEMU cannot do is in :data:`REFUSED`: such a row has to be
refused in those words, before a guest boots.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.errors import InputError
from harness.hunt import language
from harness.hunt.company import Companions
from harness.hunt.drawing import valid
from harness.plan.device_facts import demand_modules
from harness.scenario.devices import DEVICES
from harness.scenario.load import load_scenario
from harness.testing import Freepage
from harness.testing.outcome import WrongInput
from harness.toolchain import Toolchain

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

Tree = dict[str, Any]

#: What a row needs beside what the language demands: dotted keys.
NEEDS: Mapping[str, Tree] = {
    "guest.virtio_mem": {"guest.memory": "256MiB"},
    "guest.firmware=ovmf": {"guest.memory": "512MiB"},
    "guest.firmware=ovmf-smm": {"guest.memory": "512MiB", "guest.machine": "q35"},
    "guest.memory_backend.offset": {"guest.memory_backend.type": "file"},
    "guest.topology": {"script": [{"at": "start", "do": [{"action": "vcpu-add", "count": 1}]}]},
    "guest.modules": {"guest.kernel": "generic"},
    "iommu.model=virtio": {"guest.kernel": "trixie"},
    "guest.image=debian": {"guest.memory": "512MiB"},
    "disk.storage=copied-top": {"format": "qcow2"},
    "disk.contents": {"size": "1MiB"},
    "disk.room": {"cache": "writeback"},
    "nic.queues": {"guest.vcpus": 2},
}

#: Values of keys that a hunt does not draw, as they are too slow for it or free text.
MORE: Mapping[str, tuple[Any, ...]] = {
    "guest.image": ("debian",),
    "guest.firmware": ("ovmf", "ovmf-smm"),
    "guest.kernel": ("trixie", "generic"),
    "guest.modules": (["igb", "ipmi-si"],),
    "guest.hugepages": (True,),
    "guest.memory_backend.page": ("64MiB",),
    "guest.vhost": (True,),
    "guest.kvm_dirty": ("ring", "bitmap-without-manual-protect"),
    "guest.commands": ({"before": [["true"]], "after": [{"run": ["uname", "-s"], "output": "Linux"}]},),
    "guest.xml": ([{"at": "clock", "replace": "<clock offset='localtime'/>"}],),
    "guest.qemu_args": (["-device", "pvpanic"],),
    "guest.globals": (["virtio-blk-device.iommu_platform=off"],),
    "guests": (2,),
}

#: The same of devices' keys.
MORE_OF_DEVICES: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "disk": {"contents": ("formula",), "room": ("64MiB",)},
    "nic": {"queues": (2,)},
    "usb": {"parts": (["keyboard"], ["storage", "tablet"])},
    "rng": {"max_bytes": (1024,)},
}

#: Rows that may be refused, with the words: what a machine lacks is named, with the package or the step.
REFUSED: Mapping[str, str] = {
    "guest.hugepages=true": r"guest\.hugepages: \d+ free huge pages are needed",
    'guest.memory_backend.page="64MiB"': r"guest\.memory_backend\.page: this machine has no huge pages",
    "guest.vhost=true": r"guest\.vhost: (/dev/vhost-net cannot be opened|.*KVM)",
    'guest.kvm_dirty="ring"': r"guest\.kvm_dirty: .*KVM",
    'guest.kvm_dirty="bitmap-without-manual-protect"': r"guest\.kvm_dirty: .*KVM",
    'disk.bus="nvme"': r"QEMU does not migrate an nvme",
    "disk.bus=vhost-user-blk,format=qcow2": r"qcow2 does not go together with vhost-user-blk",
    "vsock": r"vsock: .*/dev/vhost-vsock",
}


#: Sections of the tree that two rows cannot have together, whatever is in them.
_ALONE = ("script", "guests", "guest.image", "guest.firmware", "guest.module", "guest.shared", "guest.kernel")
#: Devices that change what all others of their guest are.
_DEVICES_ALONE = ("iommu",)
#: Rows that may be more than another one asks for.
_AT_LEAST = ("guest.memory", "guest.vcpus")
#: QEMU gives an event to one of several pointers that are absolute, and does not take along to which.
_ONE_POINTER = ({"device": "input", "kind": "tablet"}, {"device": "usb"})
#: Of one guest: its board has slots for so many.
_MOST_DEVICES = 10


@dataclass(frozen=True)
class Row:
    """A scenario's keys, dotted, and devices of the guest's; what it is about, by name."""

    names: tuple[str, ...]
    keys: Mapping[str, Any]
    devices: tuple[Mapping[str, Any], ...] = ()

    @property
    def alone(self) -> bool:
        """Whether nothing else can be in its guest."""
        kinds = [one["device"] for one in self.devices]
        return (
            bool(set(self.names) & set(REFUSED))
            or any(key in _ALONE for key in self.keys)
            or any(kind in _DEVICES_ALONE for kind in kinds)
        )

    def is_about(self, key: str) -> bool:
        """Whether one of its names is a value of this key."""
        return any(name.startswith(f"{key}=") for name in self.names)

    def tree(self) -> Tree:
        """As a file has it."""
        tree: Tree = {"name": "row", "arm": "off", "guest": {"memory": "192MiB"}}
        for key, value in self.keys.items():
            *sections, last = key.split(".")
            inside = tree
            for section in sections:
                inside = inside.setdefault(section, {})
            inside[last] = value
        # Hot-plug goes by these lists.
        for word, where in (("disk", "disks"), ("nic", "nics")):
            found = [one for one in self.devices if one["device"] == word]
            if found:
                tree["guest"][where] = found
        others = [one for one in self.devices if one["device"] not in ("disk", "nic")]
        if others:
            tree["guest"]["devices"] = others
        return tree

    def together(self, other: Row) -> Row | None:
        """Both in one guest; None: that cannot be."""
        if self.alone or other.alone or len(self.devices) + len(other.devices) > _MOST_DEVICES:
            return None
        keys = {**self.keys, **other.keys}
        for key in self.keys.keys() & other.keys.keys():
            one, two = self.keys[key], other.keys[key]
            if key in _AT_LEAST and not (self.is_about(key) or other.is_about(key)):
                keys[key] = max(one, two, key=lambda value: (len(str(value)), str(value)))
            elif one != two:
                return None
        both = Row((*self.names, *other.names), keys, (*self.devices, *other.devices))
        kinds = [one["device"] for one in both.devices]
        if any(kinds.count(word) > DEVICES[word].most for word in kinds):
            return None
        if all(any(one.items() <= device.items() for device in both.devices) for one in _ONE_POINTER):
            return None
        return both if valid(both.tree()) else None


def _packed(rows: Iterable[Row]) -> list[Row]:
    """As few guests as come of putting each row into the first in which it can be."""
    guests: list[Row] = []
    for row in rows:
        for number, guest in enumerate(guests):
            both = guest.together(row)
            if both is not None:
                guests[number] = both
                break
        else:
            guests.append(row)
    return guests


def _needs(row: str) -> Tree:
    """Of a row, and of the key that it is about."""
    return {**NEEDS.get(row.partition("=")[0], {}), **NEEDS.get(row.replace('"', ""), {})}


def _name(key: str, value: object) -> str:
    return f"{key}={json.dumps(value)}"


def _of_keys() -> Iterator[Row]:
    drawn = {one.key: one.values for one in language.setting_keys() if one.key.startswith("guest.")}
    company = Companions(language.setting_keys(), lambda keys: valid(Row((), keys).tree()))
    for key, values in {**drawn, **MORE}.items():
        for value in values:
            name = _name(key, value)
            others = next(iter(company.of(key, value)), {}) if key in drawn else {}
            yield Row((name,), {**others, **_needs(name), key: value})


def _of_devices() -> Iterator[Row]:
    drawn = {kind.word: kind for kind in language.devices()}
    assert set(drawn) == set(DEVICES), "a device with a key that must be given: name small values for it"
    for word, kind in drawn.items():
        yield _device_row(word, {"device": word})
        keys = {one.key: one.values for one in kind.keys} | MORE_OF_DEVICES.get(word, {})
        for key, values in keys.items():
            for value in values:
                yield _device_row(_name(f"{word}.{key}", value), {"device": word, key: value})
    # Each bus with each format; the plain ones are above.
    buses = next(one.values for one in drawn["disk"].keys if one.key == "bus")
    for bus in buses:
        if bus != "nvme":
            disk = {"device": "disk", "bus": bus, "format": "qcow2"}
            yield _device_row(f"disk.bus={bus},format=qcow2", disk)


def _device_row(name: str, device: Tree) -> Row:
    needs = _needs(name)
    guest = {key: value for key, value in needs.items() if "." in key}
    device = {**{key: value for key, value in needs.items() if "." not in key}, **device}
    keys: Tree = {"guest.memory": "256MiB", **guest}
    if device.get("plugged") in ("later", "at-boot"):
        action = "device-add" if device["plugged"] == "later" else "device-del"
        keys["script"] = [{"at": "start", "do": [{"action": action, "device": device["device"]}]}]
    if DEVICES[device["device"]].needs_pcie:
        keys["guest.machine"] = "q35"
    return Row((name,), keys, (device,))


GUESTS = _packed([*_of_keys(), *_of_devices()])


@cache
def _kernels() -> Mapping[str, Any]:
    return {name: Toolchain().kernel(name) for name in ("default", "generic")}


def _kernel_for(path: Path) -> str:
    """The plainest kernel that has the drivers."""
    devices = load_scenario(str(path)).guest.all_devices
    for name, kernel in _kernels().items():
        try:
            demand_modules(devices, kernel)
        except InputError:
            continue
        return name
    return "default"


@pytest.mark.parametrize("number", range(len(GUESTS)))
def test_guests_with_every_row_migrate(freepage: Freepage, folder: Path, number: int) -> None:
    """One after the other; a failure names the rows that are in that guest."""
    guest = GUESTS[number]
    path = folder / "row.yaml"
    path.write_text(yaml.safe_dump(guest.tree()))
    kernel = None if "guest.kernel" in guest.keys else _kernel_for(path)
    more = {} if kernel in (None, "default") else {"guest.kernel": kernel}
    try:
        run = freepage.without_defaults().run(path, set=more, timeout=500)
    except WrongInput as refused:
        (name,) = guest.names
        assert name in REFUSED, refused
        assert re.search(REFUSED[name], str(refused)), refused
        return
    assert run.verdict == "pass", (guest.names, run)
    assert all(one.answers is not False for one in run.result.liveness), run.result.liveness


@cache
def _versions() -> tuple[str, ...]:
    """Every version of pc and q35 that our QEMU has: its own word, each once."""
    qemu = Toolchain().qemu_for("off")
    said = subprocess.run([str(qemu.path), "-machine", "help"], capture_output=True, text=True, check=True)
    return tuple(re.findall(r"^(pc-(?:i440fx|q35)-\d+\.\d+)\s", said.stdout, re.MULTILINE))


def test_every_version_of_both_boards(freepage: Freepage, folder: Path) -> None:
    """One after the other in one command, as a suite has them."""
    path = folder / "machine.yaml"
    versions = _versions()
    assert len(versions) > 40, versions
    path.write_text("name: machine\narm: 'off'\nwalk: false\nguest: {memory: 128MiB}\n")
    wrong = []
    for version in versions:
        run = freepage.without_defaults().run(path, set={"guest.machine": version})
        if run.verdict != "pass":
            wrong.append((version, str(run)))
    assert not wrong
