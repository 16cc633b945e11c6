# SPDX-License-Identifier: GPL-2.0-or-later
"""The part of ``result.json`` about machines that are reached by ssh; null in a lab."""

from __future__ import annotations

from collections.abc import Mapping

from harness.report.part import Part


class RemoteHostReport(Part):
    """What the result says of one machine that is reached by ssh."""

    uri: str
    """The machine's libvirt URI, as it was given."""
    node: str
    """What the machine calls itself."""
    kernel: str
    """The release of the machine's kernel."""
    libvirt: str
    """The version of the machine's libvirt daemon."""
    python: str
    """The version of the machine's Python."""
    cpus: int
    """How many CPUs may be used there."""
    accelerator: str
    """kvm or tcg, of the guest there."""
    qemu: str
    """The version of the QEMU that ran there."""


class RemoteReport(Part):
    """A run between two machines that are reached by ssh."""

    hosts: dict[str, RemoteHostReport]
    """source and destination."""
    stream: str
    """How the migration went: forwarded through ssh, or direct."""
    oracle_bytes: int
    """What the oracle's questions and answers took on the network, both ways."""
    oracle_percent: float
    """``oracle_bytes`` in percent of the guest's memory."""
    file_bytes: int
    """Of QEMU, firmware, kernel and image, copied there."""

    @classmethod
    def of(
        cls, told: Mapping[str, object], memory: int, accelerator: str, qemus: Mapping[str, str]
    ) -> RemoteReport:
        """Build this from what the two hosts tell of themselves."""
        hosts, count = told["hosts"], told["oracle_bytes"]
        assert isinstance(hosts, Mapping)
        assert isinstance(count, int)
        reports = {
            name: RemoteHostReport(**host, accelerator=accelerator, qemu=qemus[name])
            for name, host in hosts.items()
        }
        percent = round(100 * count / memory, 4)
        return cls.model_validate({**told, "hosts": reports, "oracle_percent": percent})
