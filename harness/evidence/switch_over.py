# SPDX-License-Identifier: GPL-2.0-or-later
"""How a migration ends: at switch-over, where both sides stand still, or with an abort."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import libvirt

from harness.devicestate.acted import ActedUpon
from harness.evidence.device_state import SavedState
from harness.evidence.host_writes import HostWritten
from harness.memory.access import Image
from harness.migration.hold import HoldKeeper
from harness.migration.memory_map import Range
from harness.migration.outside import OutsideWalk
from harness.migration.postcopy import PageCounters, SourceAtSwitch
from harness.migration.qmp import Monitor
from harness.migration.statistics import MigrationStatistics
from harness.verdict.outcome import Ending

if TYPE_CHECKING:
    from harness.evidence.copied_disks import CopiedImages
    from harness.report.costs import Cost
    from harness.verdict.wire import WirePace


@dataclass(frozen=True, slots=True)
class Side:
    """One QEMU's memory at switch-over: what is a file, and copies of what is not."""

    images: Mapping[str, Image]
    others: Mapping[str, Image | OSError]


@dataclass(frozen=True, slots=True)
class Abort:
    """The end of a migration that did not complete, and the reason that the user is given."""

    #: By QEMU's own last words.
    ended: Ending
    reason: str
    #: It hangs: QEMU may never be done with it, so that no other migration can follow.
    hangs: bool = False


@dataclass(frozen=True, eq=False, slots=True)
class PostcopyMove:
    """A migration that was switched to postcopy."""

    source: SourceAtSwitch
    #: QEMU's counters in the end; None: it could not be asked.
    counters: PageCounters | None
    #: The guest ran on the destination from the switch on, and was stopped when all had arrived.
    guest_ran: bool


@dataclass(frozen=True, slots=True)
class SwitchOver:
    """The guest is on the destination, and stands still on both sides."""

    domain: libvirt.virDomain
    #: Of the destination's QEMU.
    monitor: Monitor
    source: Side
    destination: Side
    #: Where the guest sees each block, by the source's map: guest address, offset, length.
    places: Mapping[str, Sequence[Range]]
    holds: HoldKeeper
    #: Where the hypervisor may write, and the generation id of either side.
    host_written: HostWritten
    #: Walks the source's memory, which stands still for good; None: not asked for.
    outside: OutsideWalk | None
    #: None: a guest that went through a file of which nobody counts anything.
    statistics: MigrationStatistics | None
    counters: Mapping[str, object] | None
    completed_at: float
    #: The source's device's record of its migrations.
    record: Path
    cost: Cost | None
    #: The states of both sides' devices and vCPUs.
    devices: tuple[SavedState, SavedState]
    #: What either QEMU was told when those should have stood still.
    acted: ActedUpon
    #: Describes the fields of the destination's devices.
    describe: Callable[[], Mapping[str, object]]
    #: What a tap has heard; None: there was none.
    stream: Path | None
    #: The traces of both QEMUs, where the scenario asks for them.
    traces: tuple[Path, Path] | None
    #: None: the migration was not switched to postcopy, and has handed no memory over.
    postcopy: PostcopyMove | None = None
    #: No page was sent: the destination's QEMU was handed the source's memory.
    handed_over: bool = False
    #: How fast the source sent; None: nobody listened, or there was no limit.
    pace: WirePace | None = None
    #: Reads the disks that were copied, on both hosts.
    copied: Sequence[CopiedImages] = ()
