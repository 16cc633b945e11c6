# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a guest that has moved was announced to its network, by the QEMU to which it has moved.

That of NICs which the scenario lists is looked at with them (:mod:`harness.scenario.devices.nic`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from harness.events import Deadline
from harness.scenario.actions.monitor import NicDown, Qmp
from harness.scenario.devices.nic import ListedNic
from harness.scenario.script import actions
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


def announces(how: Migration) -> bool:
    """Whether QEMU announces the NICs of a guest after such a move."""
    # A snapshot is loaded by a QEMU that has the guest already (load_snapshot() in migration/savevm.c).
    return how.to != "savevm" and how.parameters.get("announce-rounds") != 0


def is_announced(scenario: Scenario, how: Migration) -> bool:
    """Whether the guest's only NIC has to be announced after such a move, and nobody else looks for it."""
    guest = scenario.guest
    if not announces(how) or any(isinstance(one, ListedNic) for one in guest.all_devices):
        return False
    # Its address may be another one then, or the NIC gone.
    if any("interface" in one.at for one in guest.xml):
        return False
    # A NIC that is without a link when QEMU announces it sends nothing, whatever it has later.
    return not any(
        isinstance(one, NicDown) or (isinstance(one, Qmp) and one.command == "set_link")
        for one in actions(scenario.script)
    )
