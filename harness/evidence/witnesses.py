# SPDX-License-Identifier: GPL-2.0-or-later
"""From what was seen at each hold to what the judge hears of it: walks, and what the workload owned."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from harness.errors import MachineryError
from harness.memory import formula
from harness.memory.access import PageDigests, PageNumbers
from harness.memory.image import Flags
from harness.memory.record import Block, MigrationRecord
from harness.memory.walk import FreeWalk, Kind, TornError, WalkError, to_pages
from harness.migration.hold import ANSWER, REQUEST, HoldKeeper
from harness.migration.outside import Look
from harness.scenario.actions.guest_pages import PagesAlloc, PagesWrite
from harness.scenario.resolve import ResolvedScenario
from harness.scenario.script import actions
from harness.verdict.judge import RequestWitness
from harness.verdict.witness import reported_by_request


def witnesses_of(
    record: MigrationRecord,
    holds: HoldKeeper,
    at_end: Look | None,
    unchanged: Mapping[int, Mapping[str, Flags]],
    resolved: ResolvedScenario,
) -> dict[int, RequestWitness]:
    """By request id, for every request of which an answer was accepted.

    ``at_end`` is the walk at switch-over, ``unchanged`` what holds then what it
    held at each request: for an answer that never came whole.

    Raises :class:`MachineryError` where a walk that is needed could not be made.
    """
    found = {}
    for request, reported in reported_by_request(record.log, record.blocks).items():
        before, after = holds.looks.get((request, REQUEST)), holds.looks.get((request, ANSWER))
        if before is None and after is None:
            continue
        walk, answer = _demand(before), _demand(after)
        missing = tuple(str(look) for look in (before, after) if isinstance(look, WalkError))
        same: Mapping[str, Flags] | None = holds.unchanged.get(request) if answer is not None else None
        owned: dict[str, Flags] = {}
        if walk is not None:
            # Owned until switch-over is owned until the answer, too.
            later, held = (answer, same) if answer is not None else (_walk(at_end), unchanged.get(request))
            if later is not None and held is not None:
                owned = _owned(request, reported, (walk, later), held, holds, record.blocks, resolved)
        found[request] = RequestWitness(walk, answer, same, owned, missing)
    return found


def _demand(look: Look | None) -> FreeWalk | None:
    """The walk; None if it was torn, or if nobody looked."""
    if isinstance(look, WalkError) and not isinstance(look, TornError):
        raise MachineryError(
            f"the guest's free lists cannot be walked from outside: {look.message}",
            hint=look.hint or "--set walk=false runs without the second witness",
        ) from look
    return _walk(look)


def _walk(look: Look | None) -> FreeWalk | None:
    return look if isinstance(look, FreeWalk) else None


def _owned(
    request: int,
    reported: Mapping[str, Flags],
    walks: tuple[FreeWalk, FreeWalk],
    held: Mapping[str, Flags],
    holds: HoldKeeper,
    blocks: Mapping[str, Block],
    resolved: ResolvedScenario,
) -> dict[str, Flags]:
    """Reported pages that some process had at both ends, with the workload's content all the while."""
    digests = holds.requests.at(request) or {}
    anonymous = np.logical_and(*(walk.kind == np.uint8(Kind.ANONYMOUS) for walk in walks))
    found: dict[str, Flags] = {}
    for name, flags in reported.items():
        if name not in digests or name not in held:
            continue
        block = blocks[name]
        candidates = np.flatnonzero(flags & held[name] & to_pages(anonymous, block.gpa, block.pages))
        if candidates.size:
            mine = _formula(digests[name], candidates, resolved)
            found[name] = np.zeros(block.pages, dtype=np.bool_)
            found[name][candidates[mine]] = True
    return found


def _formula(then: PageDigests, pages: PageNumbers, resolved: ResolvedScenario) -> Flags:
    """Which of these hold what the formula gives, and are the workload's or the script's.

    What the workload has given up is not its own any more.
    """
    firsts, digests = then.marks(pages)
    mine, keys = formula.recognise(firsts, digests, then.digest), formula.keys_of(firsts)
    workload = resolved.scenario.workload
    script = [one for one in actions(resolved.scenario.script) if isinstance(one, PagesAlloc | PagesWrite)]
    owned = workload.owns(resolved.seed, resolved.noise_bytes, keys)
    if script:
        owned = owned | formula.of_scripts(resolved.seed, keys, len(script))
    return mine & owned


def is_quiet(resolved: ResolvedScenario) -> bool:
    """Whether nothing in the guest allocates or frees while it is migrated.

    What a script does before the migration begins is over by then, and what it does
    on the new host comes after.
    """
    scenario = resolved.scenario
    meanwhile = (entry for entry in scenario.script if entry.at not in ("start", "resumed"))
    acts = any(action.needs_guest for action in actions(meanwhile))
    return scenario.workload.stands_still and not scenario.guest.traffic and not acts
