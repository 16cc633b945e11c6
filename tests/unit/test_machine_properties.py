# SPDX-License-Identifier: GPL-2.0-or-later
"""Two QEMUs with the same machine type have to have the same machine."""

from __future__ import annotations

from typing import Any, cast

from harness.migration.properties import machine_properties
from harness.migration.qmp import CommandError, Monitor
from harness.verdict.properties import MachineProperties, property_findings

HERE = MachineProperties(
    {"net0": {"guest_uso4": False, "queue_size": 256, "hotplugged": True}, "gone": {"a": 1}},
    {"rdseed": False, "x2apic": True},
)


class FakeMonitor:
    """A QEMU with one NIC."""

    side = "source"

    def execute(self, command: str, arguments: Any = None) -> object:
        path = (arguments or {}).get("path", "")
        if command == "query-cpus-fast":
            return [{"qom-path": "/machine/unattached/device[0]"}, {"qom-path": "other"}]
        if command == "qom-list":
            return {
                "/machine/peripheral": [
                    {"name": "type", "type": "string"},
                    {"name": "net0", "type": "child<virtio-net-pci>"},
                ],
                "/machine/peripheral/net0": [
                    {"name": "guest_uso4", "type": "bool"},
                    {"name": "mac", "type": "str"},
                    {"name": "legacy", "type": "uint32"},
                    {"name": "queue_size", "type": "uint16"},
                ],
            }.get(path, [{"name": "rdseed", "type": "bool"}, {"name": "phys-bits", "type": "uint32"}])
        assert command == "qom-get"
        name = arguments["property"]
        if name == "legacy":
            raise CommandError("it cannot be read")
        return {"unavailable-features": ["x2apic"], "guest_uso4": True, "queue_size": 256, "rdseed": True}[
            name
        ]


def test_what_qemu_is_asked() -> None:
    found = machine_properties(cast(Monitor, FakeMonitor()))
    assert found.devices == {"net0": {"guest_uso4": True, "queue_size": 256}}
    assert (found.cpu, found.lacks) == ({"rdseed": True}, ("x2apic",))


def test_the_same_machine_has_no_findings() -> None:
    assert list(property_findings(HERE, HERE)) == []
    # What one of them has not, or is there by another way, tells nothing.
    other = MachineProperties({"net0": {"guest_uso4": False, "hotplugged": False}}, {})
    assert list(property_findings(HERE, other)) == []


def test_a_property_that_is_otherwise_is_named() -> None:
    there = MachineProperties({"net0": {"guest_uso4": True, "queue_size": 1024}}, {"x2apic": False})
    device, cpu = property_findings(HERE, there)
    assert device.rule == cpu.rule == "machine-differs"
    assert device.text.startswith("the device net0 of the same machine is another on the destination: ")
    assert device.text.endswith("guest_uso4 off -> on, queue_size 256 -> 1024")
    assert cpu.text.endswith("x2apic on -> off")


def test_what_an_accelerator_lacks_is_no_matter_of_the_machine() -> None:
    there = MachineProperties({}, {"rdseed": True, "x2apic": False}, ("x2apic",))
    [finding] = property_findings(HERE, there)
    assert finding.text.endswith("rdseed off -> on")


class ArmMonitor(FakeMonitor):
    """A QEMU whose CPU does not tell what it lacks, with a vCPU that was plugged in."""

    def execute(self, command: str, arguments: Any = None) -> object:
        if (arguments or {}).get("property") == "unavailable-features":
            raise CommandError("Property 'cortex-a57-arm-cpu.unavailable-features' not found")
        if command == "qom-list" and arguments["path"] == "/machine/peripheral":
            return [{"name": "vcpu1", "type": "child<cortex-a57-arm-cpu>"}]
        return super().execute(command, arguments)


def test_a_cpu_that_does_not_tell_what_it_lacks() -> None:
    found = machine_properties(cast(Monitor, ArmMonitor()))
    assert (found.devices, found.lacks) == ({}, ())


def test_a_feature_that_is_lacking_is_known_by_each_of_its_names() -> None:
    here = MachineProperties({}, {"sse4.1": True, "sse4_1": True, "nrip_save": True, "ffxsr": True})
    there = MachineProperties(
        {},
        {"sse4.1": False, "sse4_1": False, "nrip_save": False, "ffxsr": False},
        ("sse4.1", "nrip-save", "fxsr-opt"),
    )
    assert list(property_findings(here, there)) == []


def test_what_a_qemu_can_offer_is_no_promise_of_the_machine() -> None:
    there = MachineProperties({}, {"rdseed": True})
    assert list(property_findings(HERE, there, named_cpu=False)) == []
    assert list(property_findings(HERE, there)) != []
