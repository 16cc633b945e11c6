# SPDX-License-Identifier: GPL-2.0-or-later
"""Actions that plug vCPUs in and out, between two migrations or before the first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field

from harness.errors import GuestRefused
from harness.events import Deadline
from harness.scenario.actions.base import GUEST_SECONDS, GuestAction
from harness.scenario.actions.stage import Stage

#: QEMU plugs nothing while it migrates.
_BEFORE: Final = ("start",)


class VcpuAdd(GuestAction):
    """Plug vCPUs in, and have the guest use them. `guest.topology` says how many there can be."""

    action: Literal["vcpu-add"] = "vcpu-add"
    count: Annotated[int, Field(ge=1, le=63)] = 1
    """How many."""

    only_at: ClassVar[tuple[str, ...]] = _BEFORE

    @property
    def plugs_vcpus(self) -> int:
        """As many as it says."""
        return self.count

    def carry_out(self, stage: Stage, deadline: Deadline) -> None:
        """Libvirt plugs them; the guest finds them by ACPI, in its own time, and takes them online."""
        stage.domain.set_vcpus(stage.domain.vcpus + self.count)
        left = self.count
        # It answers each time; what may not come is the vCPUs.
        patience = Deadline(GUEST_SECONDS, "the vCPUs that were plugged in")
        while left:
            left -= int(str(stage.guest.call("cpus-online", left, deadline=deadline)["changed"]))
            if left and patience.expired:
                text = f"the guest has seen {self.count - left} of {self.count} vCPUs that were plugged in"
                raise GuestRefused(f"{text}, within {patience.seconds:g} s")


class VcpuRemove(GuestAction):
    """Have the guest let go of vCPUs that were plugged in, the last ones first, and unplug them."""

    action: Literal["vcpu-remove"] = "vcpu-remove"
    count: Annotated[int, Field(ge=1, le=63)] = 1
    """How many."""

    needs_kvm: ClassVar[bool] = True
    finds: ClassVar[Mapping[str, str]] = {
        "vcpu-remove": "the guest does not take as many vCPUs offline as a script wants to unplug"
    }
    only_at: ClassVar[tuple[str, ...]] = _BEFORE

    @property
    def plugs_vcpus(self) -> int:
        """As many fewer."""
        return -self.count

    def carry_out(self, stage: Stage, deadline: Deadline) -> None:
        """The guest takes them offline first: then it lets go at once, within libvirt's few seconds."""
        changed = stage.guest.call("cpus-offline", self.count, deadline=deadline)["changed"]
        if changed != self.count:
            stage.find("vcpu-remove", f"the guest took {changed} of {self.count} vCPUs offline")
        else:
            stage.domain.set_vcpus(stage.domain.vcpus - self.count)
