# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a tap listens to the migration's stream, where the scenario leaves it open."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from harness.scenario.resolve import ResolvedScenario
from harness.scenario.script import actions

if TYPE_CHECKING:
    from harness.toolchain import QemuBinary


def decide_tap(resolved: ResolvedScenario, source: QemuBinary, *, local: bool) -> ResolvedScenario:
    """On, where the source's QEMU keeps no record of its own and nothing is lost by it; else off.

    A QEMU with the instruments says itself what it has sent.  A tap has buffers of its own: it is not put
    into a wire that the script cuts, stalls or changes.  ``local``: the hosts are the lab's.
    """
    scenario = resolved.scenario
    if scenario.tap is not None:
        return resolved
    recorded = source.has_record
    touched = scenario.bad_wire is not None or any(one.needs_network for one in actions(scenario.script))
    encrypted = any(how.tls for how in scenario.migrations)
    wanted = local and not (recorded or touched or encrypted or scenario.tap_obstacle)
    return replace(resolved, scenario=scenario.model_copy(update={"tap": wanted}))
