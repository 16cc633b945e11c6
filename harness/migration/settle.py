# SPDX-License-Identifier: GPL-2.0-or-later
"""What a QEMU has to have on before a migration, and nothing beside it: one may have seen others before.

    settled = QemuSettings(modes.capabilities(), modes.qemu_parameters(), baselines)
    settled.apply(monitor)

A capability stays on, and a parameter stays what it is, until somebody says
otherwise: over a cancelled migration into the next one, and on a QEMU that the
guest came to and leaves again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from harness.errors import MachineryError
from harness.migration.credentials import Credentials
from harness.migration.qmp import Monitor

#: Its libvirt set this when it connected, and would miss it.
_KEPT: Final = frozenset({"events"})


@dataclass(frozen=True, slots=True)
class Baselines:
    """The parameters that each QEMU began with, by its process: what the scenario does not say is that."""

    _of: dict[int, Mapping[str, object]] = field(default_factory=dict)

    def of(self, monitor: Monitor, now: Mapping[str, object]) -> Mapping[str, object]:
        """Those of this QEMU, which has ``now``; first asked before anybody changes them."""
        return self._of.setdefault(monitor.pid, dict(now))


@dataclass(frozen=True, slots=True)
class QemuSettings:
    """What a migration wants of QEMU itself.  ``capabilities`` are those that are on."""

    capabilities: Collection[str]
    parameters: Mapping[str, object]
    baselines: Baselines
    #: Past libvirt, what encrypts it.
    credentials: Credentials | None = None

    def apply(self, monitor: Monitor) -> None:
        """Switch on what is wanted and off what is not.  Raises ``CommandError`` with QEMU's words."""
        wrong = {
            name: name in self.capabilities
            for name, on in capabilities_in(monitor).items()
            if on != (name in self.capabilities) and name not in _KEPT - {*self.capabilities}
        }
        if wrong:
            states = [{"capability": name, "state": on} for name, on in wrong.items()]
            monitor.execute("migrate-set-capabilities", {"capabilities": states})
        now = parameters_in(monitor)
        encrypting = self.credentials.parameters(monitor) if self.credentials is not None else {}
        wanted = {**self.baselines.of(monitor, now), **encrypting, **self.parameters}
        other = {name: value for name, value in wanted.items() if name not in now or now[name] != value}
        if other:
            monitor.execute("migrate-set-parameters", other)


def capabilities_in(monitor: Monitor) -> dict[str, bool]:
    """What ``query-migrate-capabilities`` says: each capability that this QEMU has, and whether it is on."""
    answer = monitor.execute("query-migrate-capabilities")
    if not isinstance(answer, list):
        raise MachineryError(f"the {monitor.side} QEMU does not tell its capabilities: {answer!r}")
    return {str(one["capability"]): one["state"] is True for one in answer}


def parameters_in(monitor: Monitor) -> dict[str, object]:
    """What ``query-migrate-parameters`` says."""
    answer = monitor.execute("query-migrate-parameters")
    if not isinstance(answer, Mapping):
        raise MachineryError(f"the {monitor.side} QEMU does not tell its parameters: {answer!r}")
    return dict(answer)
