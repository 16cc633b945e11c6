# SPDX-License-Identifier: GPL-2.0-or-later
"""Scenarios drawn by Hypothesis, and made smaller by it.  Pure: nothing here runs a scenario.

    space = DrawSpace(arms=("off", "hint", "info"))
    drawn = draw(space, seed=1, count=32)            # the same for the same seed
    small = shrink(space, 1, 32, drawn[7], fails)    # the smallest that still fails

Hypothesis draws a sequence of simple choices, and a scenario follows from it.  To make a failing one smaller,
the same seed draws the same sequence again up to that scenario, and Hypothesis takes it from there:
fewer choices, and simpler ones, as long as ``fails`` says that it is the same failure.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final
from unittest import SkipTest

import hypothesis
from hypothesis import HealthCheck, Phase, given, reject, seed, settings
from hypothesis import strategies as st
from hypothesis.database import ExampleDatabase
from hypothesis.strategies import DrawFn, SearchStrategy
from pydantic import ValidationError

from harness.hunt import episodes, language
from harness.hunt.company import Companions
from harness.hunt.episodes import Episode, Leg, ScenarioTree
from harness.hunt.language import DrawnKey, DrawnKind
from harness.scenario.actions.base import ACTIONS
from harness.scenario.devices.base import DEVICES
from harness.scenario.model import Scenario

#: What every draw says: Debian's kernel and the image need some of it, and the machine needs it twice.
DRAWN_MEMORY: Final = "192MiB"
#: A machine for devices that need PCI Express.
PCIE_MACHINE: Final = "q35"
#: Of one scenario at most; more would make each run another mixture of everything.
MOST_SETTINGS: Final = 6
MOST_DRAWN_DEVICES: Final = 3
MOST_LEGS: Final = 3
MOST_EPISODES: Final = 2
#: So many of the examples that were kept are tried again.
MOST_KEPT: Final = 40


@dataclass(frozen=True, slots=True)
class DrawSpace:
    """What may be drawn."""

    #: Arms, the simplest first.
    arms: tuple[str, ...] = ("off", "hint", "info")
    #: Dotted keys and sections to which the draw is limited; none: all.
    only: tuple[str, ...] = ()

    def allows(self, key: str) -> bool:
        """Whether a key may be drawn: named itself, by a section above it, or by a key of a section below."""
        return not self.only or any(
            key == one or key.startswith(f"{one}.") or one.startswith(f"{key}.") for one in self.only
        )

    @property
    def settings(self) -> tuple[DrawnKey, ...]:
        """The keys that are drawn one value each; the arm is not among them."""
        return tuple(key for key in language.setting_keys() if key.key != "arm" and self.allows(key.key))


@dataclass(frozen=True, slots=True)
class Drawn:
    """A scenario that was drawn: as a file has it."""

    tree: ScenarioTree

    @property
    def identity(self) -> str:
        """The same text for the same scenario."""
        return one_line(self.tree)


def hypothesis_version() -> str:
    """The version of Hypothesis: another one draws and shrinks otherwise."""
    return str(hypothesis.__version__)


def one_line(tree: Mapping[str, Any]) -> str:
    """One text for one scenario, whatever the order of its keys."""
    return json.dumps(tree, sort_keys=True, separators=(",", ":"))


def valid(tree: Mapping[str, Any]) -> bool:
    """Whether the language takes it."""
    try:
        Scenario.model_validate({"name": "hunt", **_as_read(tree)})
    except ValidationError:
        return False
    return True


def _as_read(tree: Mapping[str, Any]) -> dict[str, Any]:
    # The models take their own copy of what they are given, but for the mappings of QEMU's names.
    copy: dict[str, Any] = json.loads(json.dumps(tree))
    return copy


def scenario_draws(space: DrawSpace) -> SearchStrategy[Drawn]:
    """Everything that may be drawn, the simplest first."""
    return _scenarios(space)


@st.composite
def _scenarios(draw: DrawFn, space: DrawSpace) -> Drawn:
    arm = draw(st.sampled_from(space.arms)) if space.allows("arm") else space.arms[-1]
    tree: ScenarioTree = {"arm": arm, "guest": {"memory": DRAWN_MEMORY}}
    if space.allows("workload"):
        tree["workload"] = draw(_kinds(language.workloads(), "kind"))
        if space.allows("guest.cmdline") and draw(st.sampled_from((False,) * 5 + (True,))):
            # What the workload gives back becomes zero, which pages hardly ever do without.
            put(tree, "guest.cmdline", "init_on_free=1")
    keys = space.settings
    # How the guest is moved is what is under test: these keys come twice as often.
    keys = (*keys, *(key for key in keys if key.key.startswith("migration.")))
    if keys:
        chosen = st.lists(_setting(keys), max_size=MOST_SETTINGS, unique_by=lambda one: one[0])
        for key, value in (settings := dict(draw(chosen))).items():
            put(tree, key, value)
            if company := companions().of(key, value):
                for other, its_value in draw(st.sampled_from(company)).items():
                    if other not in settings:
                        put(tree, other, its_value)
    if space.allows("guest.devices") and language.devices():
        kinds = _kinds(language.devices(), "device")
        found = draw(st.lists(kinds, max_size=MOST_DRAWN_DEVICES, unique_by=lambda one: one["device"]))
        if found:
            put(tree, "guest.devices", found)
        if any(DEVICES[one["device"]].needs_pcie for one in found):
            put(tree, "guest.machine", PCIE_MACHINE)
    legs = _legs(draw, space, arm)
    if (moves := episodes.moves_of(legs)) and legs:
        tree["moves"] = moves
    if script := episodes.script_of(legs):
        tree["script"] = script
    for leg in legs:
        for episode in leg.episodes:
            for key, value in episode.settings.items():
                put(tree, key, value)
    if not valid(tree):
        reject()
    return Drawn(tree)


@cache
def companions() -> Companions:
    """What keys need of each other."""

    def stands(settings: Mapping[str, Any]) -> bool:
        tree: ScenarioTree = {"arm": "off", "guest": {"memory": DRAWN_MEMORY}}
        for key, value in settings.items():
            put(tree, key, value)
        return valid(tree)

    return Companions([key for key in language.setting_keys() if key.key != "arm"], stands)


def put(tree: ScenarioTree, key: str, value: Any) -> None:
    """Give a dotted key its value."""
    *path, last = key.split(".")
    for name in path:
        tree = tree.setdefault(name, {})
    tree[last] = value


@st.composite
def _setting(draw: DrawFn, keys: Sequence[DrawnKey]) -> tuple[str, Any]:
    key = draw(st.sampled_from(keys))
    return key.key, draw(st.sampled_from(key.values))


@st.composite
def _kinds(draw: DrawFn, kinds: Sequence[DrawnKind], word: str) -> ScenarioTree:
    return draw(_of_kind(draw(st.sampled_from(kinds)), word))


@st.composite
def _of_kind(draw: DrawFn, kind: DrawnKind, word: str) -> ScenarioTree:
    found: ScenarioTree = {word: kind.word}
    for key in kind.keys:
        if key.key in kind.required or draw(st.booleans()):
            found[key.key] = draw(st.sampled_from(key.values))
    return found


def _legs(draw: DrawFn, space: DrawSpace, arm: str) -> list[Leg]:
    several, scripted = space.allows("moves"), space.allows("script")
    last = _leg(draw, arm, "completed", scripted=scripted, moves=several)
    if not several:
        return [last]
    before: list[Leg] = []
    while len(before) < MOST_LEGS - 1 and draw(st.sampled_from((False, False, False, True))):
        ends = draw(st.sampled_from(("completed", "cancelled", "failed") if scripted else ("completed",)))
        before.append(_leg(draw, arm, ends, scripted=scripted, moves=True))
    return [*before, last]


def _leg(draw: DrawFn, arm: str, ends: str, *, scripted: bool, moves: bool) -> Leg:
    found: list[Episode] = []
    if scripted:
        kinds = [_plain(arm), _plain(arm), _pair(arm), _pages(arm)]
        if arm == "info":
            kinds += [_held_walk(), _held_walk()]
        if ends == "completed":
            kinds.append(_postcopy(arm))
        found = draw(st.lists(st.one_of(kinds), max_size=MOST_EPISODES))
        if sum("migration.postcopy" in one.settings for one in found) > 1:
            reject()
    at = "active"
    if ends != "completed":
        there = [one for one in episodes.END_MOMENTS if arm == "info" or one not in episodes.INFO_MOMENTS]
        at = draw(st.sampled_from(there))
    paused = moves and draw(st.sampled_from((False,) * 7 + (True,)))
    if paused:
        # Nobody would answer a script that wants something of the guest.
        found = [one for one in found if not _needs_guest(one)]
    return Leg(ends, tuple(found), at, paused)


def _needs_guest(episode: Episode) -> bool:
    words = [action["action"] for one in episode.entries for action in one["do"]]
    return any(ACTIONS[word].needs_guest or word in ("cont", "postcopy-start") for word in words)


def _alone(arm: str) -> list[str]:
    ends = set(episodes.BEGUN_AND_ENDED.values())
    return [
        word
        for word in language.drawn_actions()
        if word not in episodes.NOT_DRAWN_ALONE
        and word not in episodes.BEGUN_AND_ENDED
        and word not in ends
        and not (ACTIONS[word].needs_controls and arm != "info")
        and episodes.moments_for(word, arm)
    ]


@st.composite
def _plain(draw: DrawFn, arm: str) -> Episode:
    """One action, alone."""
    word = draw(st.sampled_from(_alone(arm)))
    action = draw(_of_kind(language.drawn_actions()[word], "action"))
    moment = draw(st.sampled_from(episodes.moments_for(word, arm)))
    return Episode((episodes.entry(moment, [action]),), episodes.settings_for(word))


@st.composite
def _pair(draw: DrawFn, arm: str) -> Episode:
    """Something that is begun and ended, in one entry or in two."""
    word = draw(st.sampled_from(tuple(episodes.BEGUN_AND_ENDED)))
    begin = draw(_of_kind(language.drawn_actions()[word], "action"))
    end = {"action": episodes.BEGUN_AND_ENDED[word]}
    moments = episodes.moments_for(word, arm)
    first = draw(st.sampled_from(moments))
    between = [{"action": "qmp-answers"}] if draw(st.booleans()) else []
    needs = episodes.settings_for(word)
    if word in episodes.AT_ONCE or draw(st.booleans()):
        return Episode((episodes.entry(first, [begin, *between, end]),), needs)
    later = [one for one in moments if episodes.MOMENT_ORDER.index(one) > episodes.MOMENT_ORDER.index(first)]
    if not later:
        return Episode((episodes.entry(first, [begin, *between, end]),), needs)
    second = draw(st.sampled_from(later))
    return Episode((episodes.entry(first, [begin, *between]), episodes.entry(second, [end])), needs)


@st.composite
def _pages(draw: DrawFn, arm: str) -> Episode:
    """Pages of the script's own are taken, and something is done to them later."""
    begin = draw(_of_kind(language.drawn_actions()["pages-alloc"], "action"))
    moments = episodes.moments_for("pages-alloc", arm)
    first = draw(st.sampled_from(moments))
    second = draw(st.sampled_from([one for one in moments if moments.index(one) >= moments.index(first)]))
    end: ScenarioTree = {"action": draw(st.sampled_from(("pages-write", "pages-read", "pages-free")))}
    if end["action"] == "pages-free":
        end["pages"] = begin["pages"]
    return Episode((episodes.entry(first, [begin]), episodes.entry(second, [end])))


@st.composite
def _held_walk(draw: DrawFn) -> Episode:
    """The guest's walk is held, and something happens meanwhile."""
    hold = draw(_of_kind(language.drawn_actions()["module-hold"], "action"))
    if hold["point"] != "mid-walk":
        hold.pop("entries", None)
    words = ("pages-alloc", "module-take", "qmp-answers", "bandwidth")
    meanwhile = draw(st.lists(st.sampled_from(words), max_size=3))
    actions = [draw(_of_kind(language.drawn_actions()[word], "action")) for word in meanwhile]
    if "pages-alloc" in meanwhile and draw(st.booleans()):
        actions.append({"action": draw(st.sampled_from(("pages-write", "pages-read")))})
    return Episode(
        (
            {"at": "start", "do": [hold]},
            {"at": hold["point"], "do": [*actions, {"action": "module-unhold"}]},
        ),
        {"guest.module": "test"},
    )


@st.composite
def _postcopy(draw: DrawFn, arm: str) -> Episode:
    """A switch to postcopy, and what may come of it."""
    by_libvirt = draw(st.sampled_from((False, False, False, True)))
    start: ScenarioTree = {"action": "postcopy-start", "bandwidth": "32MiB/s"}
    if by_libvirt or draw(st.booleans()):
        start["guest"] = "runs"
    number = draw(st.sampled_from((2, 1)))
    when: ScenarioTree = {"at": "pass", "number": number}
    if arm == "info" and draw(st.booleans()):
        # Free pages have been left out, and no sync has come since.
        when = {"at": "applied"}
    entries = [{**when, "do": [start]}]
    meanwhile: list[ScenarioTree] = []
    if draw(st.booleans()):
        meanwhile.append(draw(_of_kind(language.drawn_actions()["postcopy-touch"], "action")))
    if draw(st.booleans()):
        meanwhile.append({"action": "qmp-answers"})
    if not by_libvirt and draw(st.booleans()):
        by = draw(st.sampled_from(("source", "destination", "wire")))
        meanwhile.append({"action": "postcopy-break", "by": by})
        entries.append({"at": "postcopy-active", "do": meanwhile})
        entries.append({"at": "postcopy-paused", "do": [{"action": "postcopy-recover"}]})
    elif meanwhile:
        entries.append({"at": "postcopy-active", "do": meanwhile})
    preempt = {} if by_libvirt or not draw(st.booleans()) else {"migration.postcopy_preempt": True}
    needs = {
        **preempt,
        "migration.postcopy": "libvirt" if by_libvirt else True,
        # So slow that precopy cannot come to an end by itself.
        "migration.bandwidth": "48MiB/s",
        "migration.downtime_limit_ms": 1,
        "workload": {"kind": "rewrite", "noise": "30%", "rate": 20000},
    }
    return Episode(tuple(entries), needs)


#: Runs take seconds: nothing that Hypothesis finds odd about slow tests concerns us.
_CALM: Final = (HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large)


def draw(space: DrawSpace, number: int, count: int) -> list[Drawn]:
    """So many scenarios from one seed: always the same ones, the first of them the simplest."""
    found: list[Drawn] = []
    _explore(space, number, count, (Phase.generate,), None, found.append)
    return found


class StillFails(Exception):  # noqa: N818 - it says what Hypothesis wants to hear
    """The scenario at hand shows the failure that is made smaller."""


def shrink(
    space: DrawSpace,
    number: int,
    count: int,
    target: Drawn,
    fails: Callable[[Drawn], bool],
    database: ExampleDatabase | None = None,
) -> Drawn:
    """The smallest scenario that Hypothesis finds for which ``fails`` holds, as it does for ``target``.

    ``number`` and ``count`` are those with which :func:`draw` has drawn it.  ``database`` keeps it.
    What ``fails`` raises ends it, if it is no :class:`Exception` (an interrupt).
    """
    smallest = target
    seen = False

    def body(one: Drawn) -> None:
        nonlocal seen, smallest
        seen = seen or one == target
        if seen and fails(one):
            smallest = one
            raise StillFails

    with contextlib.suppress(StillFails):
        _explore(space, number, count, (Phase.generate, Phase.shrink), database, body)
    return smallest


def kept_examples(space: DrawSpace, database: ExampleDatabase, fails: Callable[[Drawn], bool]) -> None:
    """Try what :func:`shrink` has kept; what ``fails`` no more is forgotten."""

    def body(one: Drawn) -> None:
        if fails(one):
            raise StillFails

    # Hypothesis skips a test for which it has kept nothing.
    with contextlib.suppress(StillFails, SkipTest):
        _explore(space, 0, MOST_KEPT, (Phase.reuse,), database, body)


def _explore(
    space: DrawSpace,
    number: int,
    count: int,
    phases: Sequence[Phase],
    database: ExampleDatabase | None,
    body: Callable[[Drawn], None],
) -> None:
    # One function for all: Hypothesis finds in its database what was kept for the same function.
    @seed(number)
    @settings(
        max_examples=count,
        phases=phases,
        database=database,
        deadline=None,
        report_multiple_bugs=False,
        suppress_health_check=_CALM,
    )
    @given(scenario_draws(space))
    def scenario_runs(one: Drawn) -> None:
        body(one)

    scenario_runs()
