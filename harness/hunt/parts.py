# SPDX-License-Identifier: GPL-2.0-or-later
"""A scenario with one part of it taken away: whether every part of a failure is needed.  Pure."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from harness.hunt.episodes import ScenarioTree


def without_each(tree: Mapping[str, Any]) -> Iterator[ScenarioTree]:
    """The scenario without each of its parts, the largest first: a key, an entry of a list.

    The guest's memory stays: the language's own is more than a hunt draws.
    """
    for place in sorted(_places(tree, ()), key=len):
        if place in (("guest",), ("guest", "memory")) and "memory" in tree.get("guest", {}):
            # Without it the guest would be larger.
            continue
        less: Any = copy.deepcopy(dict(tree))
        inner = less
        for step in place[:-1]:
            inner = inner[step]
        del inner[place[-1]]
        yield _tidy(less)


def _places(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield (*path, name)
            yield from _places(inner, (*path, name))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield (*path, number)
            yield from _places(inner, (*path, number))


def _tidy(tree: ScenarioTree) -> ScenarioTree:
    """Without sections, lists and entries of a script that have nothing left in them."""
    if "script" in tree:
        tree["script"] = [entry for entry in tree["script"] if entry.get("do")]
    if tree.get("moves") == [{}]:
        del tree["moves"]
    for name in list(tree):
        if tree[name] in ({}, []):
            del tree[name]
        elif isinstance(tree[name], dict):
            tree[name] = {key: value for key, value in tree[name].items() if value not in ({}, [])}
    return tree


def needed_parts(
    tree: ScenarioTree, fails: Callable[[ScenarioTree], bool], possible: Callable[[ScenarioTree], bool]
) -> ScenarioTree:
    """The scenario without whatever it fails without as well: of what is left, every part is needed.

    ``possible``: whether the language takes a scenario at all.
    """
    while True:
        for less in without_each(tree):
            if less != tree and possible(less) and fails(less):
                tree = less
                break
        else:
            return tree
