# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's agent as a script has it: calls, and a guest that boots again in the middle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from harness.events import Deadline
from harness.evidence.host_writes import read_registers
from harness.evidence.msrs import read_msrs
from harness.guest.control import GuestControl
from harness.guestview.msrs import VcpuMsrs
from harness.memory.registered import SourceFinding

#: Loading the guest once more; it may be emulated, and have memory to fill.
RELOAD_SECONDS: Final = 180.0


@dataclass(frozen=True, slots=True)
class Reload:
    """How a guest that has booted again is made what it was."""

    #: Seconds that it may take to boot.
    boot_seconds: float
    #: Loads the scenario's workload.
    load: Callable[[Deadline], object]
    #: How many processors have registers of KVM's now; emulated ones have none.
    vcpus: Callable[[], int]


class ScriptAgent:
    """The agent, and what it says of itself anew after each boot."""

    def __init__(self, control: GuestControl, reload: Reload, lost: Callable[[], None]) -> None:
        self._control = control
        self._reload = reload
        self._lost = lost
        self._since: int | None = None
        #: Where the guest has its hypervisor write, as it said when it was asked last.
        self.registers: SourceFinding | None = None
        #: What its processors had in their other registers then; None: nobody could tell.
        self.msrs: Sequence[VcpuMsrs] | None = None

    @property
    def since(self) -> int | None:
        """After a restart: the last kernel message from before the guest was loaded again."""
        return self._since

    def call(self, verb: str, *words: str | int, deadline: Deadline) -> Mapping[str, object]:
        """Have the agent do something; its answer."""
        return self._control.call(verb, *words, deadline=deadline)

    def ask_registers(self) -> None:
        """Ask the guest's processors, if KVM runs them, for KVM's registers, and for others that stay."""
        if vcpus := self._reload.vcpus():
            self.registers = read_registers(self._control, vcpus)
            self.msrs = read_msrs(self._control, vcpus)

    def restart(self, begin: Callable[[Deadline], object]) -> None:
        """Have ``begin`` start a boot; wait for it, and load the guest as it was."""
        boot = Deadline(self._reload.boot_seconds, "the guest's ready word")
        self._control.forget_ready()
        begin(boot)
        self._control.wait_ready(boot)
        self._lost()
        again = Deadline(RELOAD_SECONDS, "loading the guest again")
        self._reload.load(again)
        # Its kernel counts its messages anew.
        sequence = self._control.call("kmsg", deadline=again)["sequence"]
        self._since = sequence if isinstance(sequence, int) else -1
        self.ask_registers()
