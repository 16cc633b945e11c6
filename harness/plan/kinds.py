# SPDX-License-Identifier: GPL-2.0-or-later
"""Which kind of hosts a scenario asks for."""

from __future__ import annotations

from harness.errors import InputError

# Each registers itself.
from harness.plan import here, remote  # noqa: F401
from harness.plan.machines import Machines
from harness.scenario.load import Scenario


def kind_of(scenario: Scenario) -> type[Machines]:
    """The kind of hosts that serves a scenario; of several, the one that was defined last.

    Raises :class:`InputError` if there is none.
    """
    for kind in reversed(Machines.kinds):
        if kind.serves(scenario):
            return kind
    raise InputError(f"scenario {scenario.name}: there are no hosts of the kind that it asks for")
