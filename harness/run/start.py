# SPDX-License-Identifier: GPL-2.0-or-later
"""The start of the guest on the source: its files, its domain, and what is plugged in later."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING

from harness.errors import MachineryError
from harness.events import Deadline
from harness.guest.control import GuestControl
from harness.guest.domain import domain_xml
from harness.guest.memory_shape import MemoryShape, dimm_xml
from harness.guest.ssh import Keys
from harness.guest.xml_edits import EditError
from harness.migration.direct import ARGUMENTS
from harness.report.folder import RunFolder
from harness.run.channels import QemuFiles
from harness.run.definition import Definition
from harness.run.disk import copy_sparse, make_blank
from harness.run.initrd import write_initrd
from harness.run.last_words import lost, start_refusal
from harness.run.seed import write_seed

if TYPE_CHECKING:
    import libvirt


def start_guest(
    definition: Definition, keys: Keys, files: QemuFiles, folder: RunFolder, *, waits: bool = False
) -> libvirt.virDomain:
    """Start the guest on the source; returns when its QEMU runs.

    ``waits``: QEMU boots nothing, and stands still until it is given a guest (harness/run/warm.py).

    Raises :class:`harness.errors.GuestLost` if libvirt cannot start it, and
    :class:`harness.errors.StartRefused` if that is for what the scenario wrote out.
    """
    import libvirt

    plan, pair = definition.plan, definition.pair
    brought = {}
    if plan.seeded:
        write_seed(definition.seed, plan, keys, definition.uuid, definition.nics_at_boot)
    elif not plan.own_image:
        write_initrd(definition.initrd, plan, keys)
        brought = {"initrd": definition.initrd, "vmlinuz": plan.kernel.vmlinuz}
    disk = plan.disk
    if disk is not None and disk.path is None:
        make_blank(definition.own_disk, disk.size)
    elif disk is not None and disk.path is not None and disk.private:
        copy_sparse(disk.path, definition.own_disk)
    elif disk is not None and disk.path is not None:
        brought["disk"] = disk.path
    pair.bring(brought)
    scenario = plan.resolved.scenario
    try:
        spec = definition.spec(pair.source, files)
        xml = domain_xml(replace(spec, extra=(*spec.extra, *ARGUMENTS)) if waits else spec)
    except EditError as error:
        raise scenario.wrong(f"guest.xml.{error.number}", str(error)) from error
    folder.write_text("source.xml", xml)
    connection = pair.source.connect()
    try:
        domain = connection.createXML(xml, libvirt.VIR_DOMAIN_START_PAUSED if waits else 0)
        _deflate(domain, definition)
    except libvirt.libvirtError as error:
        message, code = error.get_error_message(), error.get_error_code()
        # With this code libvirt tells that a QEMU which it had started has ended.
        by_libvirt = code != libvirt.VIR_ERR_INTERNAL_ERROR
        its_words = start_refusal(scenario, pair.source, pair.guest_name, message, by_libvirt=by_libvirt)
        raise its_words or lost(
            pair.source, pair.guest_name, f"the source cannot start the guest: {message}"
        ) from error
    return domain


def _deflate(domain: libvirt.virDomain, definition: Definition) -> None:
    """Take back the balloon that libvirt asks for: of the DIMM that both hosts map it knows nothing."""
    shared = definition.shape.shared
    if shared is None:
        return
    import libvirt_qemu

    size = definition.plan.resolved.scenario.guest.memory + shared.size
    command = json.dumps({"execute": "balloon", "arguments": {"value": size}})
    libvirt_qemu.qemuMonitorCommand(domain, command, 0)


def plug_dimm(
    domain: libvirt.virDomain, shape: MemoryShape, control: GuestControl, deadline: Deadline
) -> None:
    """Plug the scenario's DIMM in, if it has one, and wait until the guest has taken it into use."""
    dimm = shape.dimm
    if dimm is None:
        return
    import libvirt

    before = control.call("stats", deadline=deadline)["mem_total"]
    try:
        domain.attachDeviceFlags(dimm_xml(shape), libvirt.VIR_DOMAIN_AFFECT_LIVE)
    except libvirt.libvirtError as error:
        raise MachineryError(f"the DIMM cannot be plugged in: {error.get_error_message()}") from error
    wanted = int(str(before)) + dimm // (128 << 20) * (128 << 20)
    # The guest's ACPI and hotplug code takes its time, and says nothing when it is done.
    while int(str(control.call("stats", deadline=deadline)["mem_total"])) < wanted:
        with contextlib.suppress(MachineryError):
            # No block yet, or none that is offline: it may be one that comes online by itself.
            control.call("memory-online", deadline=deadline)
        deadline.check()
