# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the two hosts of a run are: one class for each kind of hosts.

A kind registers itself by being a subclass of :class:`Machines`; ``serves()`` says which scenarios
are its own.  The ways of a run through it, in order::

    with kind_of(scenario).reach(scenario, events) as machines:     # harness.plan.kinds
        machines.demand(scenario)                                   # before anything is built
        resolved, reason = machines.resolve(scenario, binaries, cache, events)
        machines.run(work, keep)                                    # work calls hosts() and boots there

:mod:`harness.plan.here` has the lab on this machine, :mod:`harness.plan.remote` two machines that
are reached by ssh.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from harness import accel
from harness.scenario.resolve import MachineFacts, ResolvedScenario, resolve

if TYPE_CHECKING:
    from harness.events import EventStream
    from harness.hosts.interface import Pair
    from harness.scenario.load import Scenario
    from harness.toolchain import Kernel, QemuBinary, Toolchain
    from harness.toolchain.cache import Cache


@dataclass(frozen=True, slots=True)
class Binaries:
    """What the hosts run: each side's QEMU, and the guest's kernel."""

    source_qemu: QemuBinary
    destination_qemu: QemuBinary
    kernel: Kernel

    @property
    def qemus(self) -> tuple[QemuBinary, QemuBinary]:
        """Of the source and of the destination."""
        return self.source_qemu, self.destination_qemu


class Machines(ABC):
    """The machines that the two hosts are."""

    #: All kinds, in the order of their definition.
    kinds: ClassVar[list[type[Machines]]] = []

    #: The step of a run in which the hosts are made ready.
    step: ClassVar[str] = "hosts"
    #: Whether both hosts are this machine.
    local: ClassVar[bool] = False
    #: Whether they have this machine's kernel, and the files of devices that it makes.
    own_kernel: bool = True

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        Machines.kinds.append(cls)

    @classmethod
    @abstractmethod
    def serves(cls, scenario: Scenario) -> bool:
        """Whether a scenario's hosts are of this kind."""

    @classmethod
    @abstractmethod
    def reach(cls, scenario: Scenario, events: EventStream) -> AbstractContextManager[Machines]:
        """The machines that a scenario names, for as long as the context lasts.

        Raises :class:`harness.errors.InputError` for what this kind cannot do, before anybody is
        connected to.
        """

    @classmethod  # noqa: B027 - where guests have a network there is nothing to refuse
    def demand_network(cls, user: str) -> None:
        """Raise :class:`harness.errors.InputError` if guests have no network; ``user``: who needs it."""

    @abstractmethod
    def demand(self, scenario: Scenario) -> None:
        """Raise unless the machines have what a scenario takes.  Called before anything is built."""

    @abstractmethod
    def memory_available(self, scenario: Scenario) -> int:
        """Bytes for the guests of both sides together, now."""

    def own_qemus(self, toolchain: Toolchain) -> tuple[QemuBinary | None, QemuBinary | None]:  # noqa: ARG002
        """The QEMUs of source and destination that are there already; None: one from here."""
        return None, None

    @abstractmethod
    def probe(self, binaries: Binaries, cache: Cache, events: EventStream) -> accel.KvmProbe:
        """Whether KVM runs guests on both hosts."""

    def resolve(
        self, scenario: Scenario, binaries: Binaries, cache: Cache, events: EventStream
    ) -> tuple[ResolvedScenario, str]:
        """Decide what the scenario leaves open.  Returns also the reason for the accelerator, in words.

        A run asks for memory twice: :meth:`demand` before it builds, so that the answer costs no
        build; and this method after it, since a build takes minutes and memory comes and goes.
        """
        available = self.memory_available(scenario)
        if scenario.accelerator == "tcg":
            return resolve(scenario, MachineFacts(available)), "asked for"
        probe = self.probe(binaries, cache, events)
        facts = MachineFacts(available, kvm_usable=probe.usable, kvm_reason=probe.reason)
        return resolve(scenario, facts), probe.reason

    @abstractmethod
    def run(self, work: Callable[[], int], keep: Iterable[Path]) -> int:
        """Call ``work`` in the place from where the hosts are driven; returns its exit status.

        ``keep``: files and folders of this machine that ``work`` must see.
        """

    @abstractmethod
    def hosts(
        self, scenario: Scenario, binaries: Binaries, logs: Path, events: EventStream
    ) -> AbstractContextManager[Pair]:
        """The two hosts, with everything in place for a guest.  ``logs``: a folder for their logs."""
