# SPDX-License-Identifier: GPL-2.0-or-later
"""What libvirt is asked for: the flags and typed parameters of ``migrate3``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import libvirt

from harness.migration.modes import PLAIN, Modes

MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class MigrationRequest:
    """What is asked of libvirt.  ``bandwidth`` is in bytes a second; libvirt counts in MiB."""

    uri: str
    destination_xml: str
    bandwidth: int | None = None
    modes: Modes = PLAIN
    #: The guest writes to a disk that is a file of this machine.  libvirt takes that for a disk
    #: which the other host cannot see; here both hosts see the same file, opened without a cache.
    own_disk: bool = False
    #: Where the destination listens, if ``uri`` leads to a tap in between.
    listen: str | None = None
    #: The disks that are copied, by libvirt's names; where to, past any tap.
    copied: tuple[str, ...] = ()
    copied_to: str = ""
    #: Of images that lie on others only the upper one.
    only_top: bool = False

    def flags(self) -> int:
        """Live, and the destination stays paused: both sides stand still at switch-over.

        But for postcopy, for which libvirt lets it run.
        """
        flags: int = libvirt.VIR_MIGRATE_LIVE
        if not self.modes.lets_guest_run:
            flags |= libvirt.VIR_MIGRATE_PAUSED
        if self.own_disk:
            flags |= libvirt.VIR_MIGRATE_UNSAFE
        if self.copied:
            flags |= (
                libvirt.VIR_MIGRATE_NON_SHARED_INC if self.only_top else libvirt.VIR_MIGRATE_NON_SHARED_DISK
            )
        return flags | self.modes.flags()

    def parameters(self) -> dict[str, object]:
        """The typed parameters of ``migrate3``."""
        parameters: dict[str, object] = {
            libvirt.VIR_MIGRATE_PARAM_URI: self.uri,
            libvirt.VIR_MIGRATE_PARAM_DEST_XML: self.destination_xml,
            **self.modes.parameters(),
        }
        if self.listen is not None:
            parameters[libvirt.VIR_MIGRATE_PARAM_LISTEN_ADDRESS] = self.listen
            if self.modes.tls is not None:
                # The name in its certificate, which is not the tap's.
                parameters[libvirt.VIR_MIGRATE_PARAM_TLS_DESTINATION] = self.listen
        if self.copied:
            parameters[libvirt.VIR_MIGRATE_PARAM_MIGRATE_DISKS] = list(self.copied)
            parameters[libvirt.VIR_MIGRATE_PARAM_DISKS_URI] = f"tcp://{self.copied_to}"
        if self.bandwidth is not None:
            # Rounded up: 0 would mean "no limit".
            parameters[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH] = -(-self.bandwidth // MIB)
        return parameters
