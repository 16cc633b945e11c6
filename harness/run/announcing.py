# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a guest that has moved was announced to its network, by the QEMU to which it has moved.

That of NICs which the scenario lists is looked at with them (:mod:`harness.scenario.devices.nic`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from harness.events import Deadline
from harness.scenario.actions.monitor import NicDown, NicUp, Qmp
from harness.scenario.devices.nic import ListedNic
from harness.verdict.finding import Finding
from harness.verdict.outcome import KIND

if TYPE_CHECKING:
    from harness.hosts.interface import Host, Nic
    from harness.scenario.load import Migration, Scenario

#: The rule.
NOT_ANNOUNCED: Final = "not-announced"
#: QEMU announces a guest before it says that the migration has completed, and again within a second. What it
#: says while the guest stands still is kept by its network layer (qemu_can_send_packet() in net/net.c).
ANNOUNCED_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Announcing:
    """What is to be heard of a guest's NIC on the host to which the guest goes."""

    host: Host
    nic: Nic

    def findings(self) -> Iterator[Finding]:
        """For a guest that has arrived, and runs."""
        if not self.host.announced(self.nic, Deadline(ANNOUNCED_SECONDS, "the guest's announcement")):
            text = f"the destination's QEMU has not announced the guest's NIC ({self.nic.mac}) to its network"
            yield Finding(NOT_ANNOUNCED, KIND, f"{text}: no RARP frame of it came from {self.host.name}")


def announcing(target: Host, scenario: Scenario, move: int) -> Announcing | None:
    """For one of the moves, to ``target``; None: no announcement is to be expected, or nobody can listen."""
    nic = target.nic
    if nic is None or not is_announced(scenario, scenario.migration_of(move)):
        return None
    return Announcing(target, nic)


def is_announced(scenario: Scenario, how: Migration) -> bool:
    """Whether QEMU has to announce a guest after such a move, and nobody else looks for it."""
    # A snapshot is loaded by a QEMU that has the guest already (load_snapshot() in migration/savevm.c).
    if how.to == "savevm" or how.parameters.get("announce-rounds") == 0:
        return False
    if any(isinstance(one, ListedNic) for one in scenario.guest.all_devices):
        return False
    done = [action for entry in scenario.script for action in entry.do]
    # A NIC whose link is down sends nothing.
    links = [one for one in done if isinstance(one, NicDown | NicUp)]
    if links and isinstance(links[-1], NicDown):
        return False
    return not any(isinstance(one, Qmp) and one.command == "set_link" for one in done)
