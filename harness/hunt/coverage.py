# SPDX-License-Identifier: GPL-2.0-or-later
"""Which parts of the language have met in a run, and which draw has most that is new.  Pure.

A run adds what it has (``coverage.add(tree)``); ``coverage.rarity(other)`` is the higher the less of another
scenario has met before, and ``coverage.report(keys)`` says how many pairs of keys have met, and which never.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from harness.hunt import episodes, language

#: Keys by which an entry of a list says what it is.
_CHOOSERS: Final = ("kind", "device", "action", "at", "ends")
#: Keys that are about a value's amount, and of which only their being there counts.
_NUMBERS: Final = ("number", "move", "pages")


def features(tree: Mapping[str, Any]) -> frozenset[str]:
    """What a scenario has: ``guest.vcpus=2``, ``action=stop``, ``at=answer``."""
    return frozenset(_features(tree, ""))


def _features(value: Any, key: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            place = name if name in _CHOOSERS else f"{key}.{name}" if key else name
            yield from _features(inner, place)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _features(one, key)
    elif key.rpartition(".")[2] in _NUMBERS:
        yield key
    else:
        yield f"{key}={value}"


def feature_keys(found: Iterable[str]) -> frozenset[str]:
    """The keys of features; what chooses among kinds keeps its word: ``guest.vcpus``, ``action=stop``."""
    keys = {one if _chooses(one.partition("=")[0]) else one.partition("=")[0] for one in found}
    # A key with several names below it is drawn whole.
    whole = {name for name in _mappings() for key in keys if key.startswith(f"{name}.")}
    return frozenset(keys | whole)


@cache
def _mappings() -> tuple[str, ...]:
    """Keys whose values have names of their own: migration.parameters, guest.topology."""
    keys = language.setting_keys()
    return tuple(key.key for key in keys if any(isinstance(value, Mapping) for value in key.values))


def _chooses(key: str) -> bool:
    return key == "arm" or key.rpartition(".")[2] in _CHOOSERS


def keys_drawn(arms: Sequence[str], allows: Any) -> frozenset[str]:
    """The keys that a hunt can draw, as :func:`feature_keys` words them: of which pairs are counted."""
    found = {f"arm={arm}" for arm in arms}
    found |= {key.key for key in language.setting_keys() if key.key != "arm" and allows(key.key)}
    if allows("workload"):
        found |= {f"kind={kind.word}" for kind in language.workloads()}
    if allows("guest.devices"):
        found |= {f"device={kind.word}" for kind in language.devices()}
    if allows("script"):
        alone = {word for word in language.drawn_actions() if word not in episodes.NOT_DRAWN_ALONE}
        found |= {f"action={word}" for word in alone}
        found |= {"action=postcopy-start", "action=cancel", "action=kill-destination", "action=module-hold"}
    return frozenset(found)


@dataclass(frozen=True, slots=True)
class CoverageReport:
    """How much of the language has met."""

    keys: int
    keys_met: int
    pairs: int
    pairs_met: int
    never: tuple[str, ...]
    """Keys that no run has had."""
    seldom: tuple[tuple[str, str], ...]
    """Pairs that have not met, the first of them."""


class Coverage:
    """How often each two features, and each two keys, have been in one run."""

    def __init__(self) -> None:
        self._pairs: Counter[tuple[str, str]] = Counter()
        self._keys: Counter[str] = Counter()
        self._key_pairs: Counter[tuple[str, str]] = Counter()

    def add(self, tree: Mapping[str, Any]) -> None:
        """Count a run."""
        found = features(tree)
        self._pairs.update(_pairs_of(found))
        keys = feature_keys(found)
        self._keys.update(keys)
        self._key_pairs.update(_pairs_of(keys))

    def rarity(self, tree: Mapping[str, Any]) -> float:
        """How much of it is seldom: each pair counts 1 where it has never met, and ever less after that."""
        return sum(1 / (1 + self._pairs[pair]) ** 2 for pair in _pairs_of(features(tree)))

    def report(self, drawn: Iterable[str], show: int = 20) -> CoverageReport:
        """What has met, of the keys that can be drawn."""
        keys = sorted(drawn)
        pairs = list(itertools.combinations(keys, 2))
        missing = [pair for pair in pairs if not self._key_pairs[pair] and _can_meet(pair)]
        possible = [pair for pair in pairs if _can_meet(pair)]
        return CoverageReport(
            len(keys),
            sum(self._keys[key] > 0 for key in keys),
            len(possible),
            len(possible) - len(missing),
            tuple(key for key in keys if not self._keys[key]),
            tuple(missing[:show]),
        )


def _pairs_of(found: Iterable[str]) -> Iterator[tuple[str, str]]:
    return itertools.combinations(sorted(found), 2)


def _can_meet(pair: tuple[str, str]) -> bool:
    """Of one arm or workload there is one in a run."""
    one, other = (key.partition("=") for key in pair)
    return not (one[0] == other[0] and one[0] in ("arm", "kind"))
