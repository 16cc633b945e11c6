# SPDX-License-Identifier: GPL-2.0-or-later
"""What runs need is built before the first of them, once, with progress: no run's time has a build in it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import FreepageError, InputError
from harness.events import Event, EventStream
from harness.faults.campaign import CampaignRun
from harness.hosts.this_machine import command_start
from harness.nested.commands import choose_chain, demand_nestable, prepare_here
from harness.nested.parts import machine_parts
from harness.plan.kinds import kind_of
from harness.plan.plan import Tools
from harness.plan.prepare import load_with_tools, prepare
from harness.plan.saving import demand_direct_io
from harness.scenario.load import Scenario
from harness.suite.expand import SuiteRun
from harness.toolchain.cache import Cache


def build_for(scenario: Scenario, tools: Tools, events: EventStream, *, nested: bool) -> None:
    """Build, or find, all that a run of this scenario needs.

    Raises :class:`InputError` for what this machine, or a QEMU, cannot do.
    """
    if nested:
        demand_nestable(scenario)
        prepare_here(scenario, tools, events)
        cache = Cache(None, events)
        machine_parts(cache)
        choose_chain(cache, events)
        return
    kind = kind_of(scenario)
    with kind.reach(scenario, events) as machines:
        prepare(scenario, tools, events, command_start(), machines)


def build_for_campaign(runs: Sequence[CampaignRun], options: Sequence[str], events: EventStream) -> None:
    """Build what the runs of a campaign need, each thing once; ``options``: what all of them are given.

    What a run cannot do it says itself, in its own row.
    """
    nested = "--nested" in options
    with events.step("build", runs=len(runs)):
        for number, run in enumerate(runs, 1):
            tools = Tools(fault=run.fault.id if run.fault is not None else None)
            with contextlib.suppress(InputError), _only_builds(events) as inner:
                scenario, tools = load_with_tools(run.file, [], tools)
                build_for(scenario, tools, inner, nested=nested)
            events.emit("progress", step="build", done=number, total=len(runs))


@dataclass(frozen=True, slots=True)
class Prepared:
    """What can be run, and why the rest cannot.

    ``failed``: what they need could not be built, or fetched.
    """

    runs: tuple[SuiteRun, ...]
    skipped: Mapping[SuiteRun, str] = field(default_factory=dict)
    failed: Mapping[SuiteRun, str] = field(default_factory=dict)


def build_all_for(
    runs: Sequence[SuiteRun], events: EventStream, place: Path, *, elsewhere: bool = False
) -> Prepared:
    """Build what the runs need, each thing once; ``place``: where their folders will be.

    ``elsewhere``: other machines will make them; what this one cannot build, or run, they may.
    Raises :class:`InputError` with all that is wrong, where a run that is not optional cannot be made.
    """
    skipped: dict[SuiteRun, str] = {}
    failed: dict[SuiteRun, str] = {}
    problems: list[str] = []
    answers: dict[str, FreepageError | None] = {}
    with events.step("build", runs=len(runs)) as step:
        for number, run in enumerate(runs, 1):
            what = _same(run)
            if what not in answers:
                answers[what] = _problem(run, events, place)
            problem = None if elsewhere else answers[what]
            words = "" if problem is None else problem.render()
            if isinstance(problem, InputError) and run.optional:
                skipped[run] = words
            elif isinstance(problem, InputError):
                problems.append(f"{run.place}: {run.name}: {words}" if run.place else words)
            elif problem is not None:
                # A mirror that is away, say: the other runs have what they need.
                failed[run] = words
            events.emit("progress", step="build", done=number, total=len(runs))
        step.note(kinds=len(answers), cannot=len(skipped) + len(failed) + len(problems))
    if problems:
        raise InputError("\n".join(dict.fromkeys(problems)))
    left = tuple(run for run in runs if run not in skipped and run not in failed)
    return Prepared(left, skipped, failed)


def _same(run: SuiteRun) -> str:
    """Equal for runs that differ in nothing but their seeds."""
    scenario = run.scenario.model_copy(update={"seed": None})
    return "\n".join((scenario.to_yaml(), *run.tools.options(), str(run.nested)))


def _problem(run: SuiteRun, events: EventStream, place: Path) -> FreepageError | None:
    with _only_builds(events) as inner:
        try:
            if any(how.direct_io for how in run.scenario.migrations):
                demand_direct_io(place)
            build_for(run.scenario, run.tools, inner, nested=run.nested)
        except FreepageError as error:
            return error
    return None


@contextlib.contextmanager
def _only_builds(events: EventStream) -> Iterator[EventStream]:
    """A stream of which only the builds are seen: not that each run has been looked at."""
    inner = EventStream()
    quiet = ("prepare", "nested-parts")

    def hand_on(event: Event) -> None:
        if event.data.get("step") not in quiet and event.kind != "nested-chain":
            events.emit(event.kind, event.source, **event.data)

    unsubscribe = inner.subscribe(hand_on)
    try:
        yield inner
    finally:
        unsubscribe()
