# SPDX-License-Identifier: GPL-2.0-or-later
"""No circle among files, a package's own ``__init__`` among them.

The contracts in pyproject.toml (``lint-imports``) order packages and keep modules of
one folder apart; they do not look at a module that imports from its own package what
that package imports from it.
"""

from __future__ import annotations

from collections.abc import Mapping

import grimp


def circles(imports: Mapping[str, set[str]]) -> list[list[str]]:
    """The groups of files of which each imports, through others, all of its group; sorted."""
    remaining = {name: set(wanted) for name, wanted in imports.items()}
    # What imports nothing that is left, or is imported by nothing that is left, is in no circle.
    while True:
        imported = set().union(*remaining.values())
        loose = {name for name, wanted in remaining.items() if not wanted or name not in imported}
        if not loose:
            break
        remaining = {name: wanted - loose for name, wanted in remaining.items() if name not in loose}
    reach = {name: _reached(name, remaining) for name in remaining}
    groups = {frozenset(other for other in reach[name] if name in reach[other]) for name in remaining}
    return sorted(sorted(group) for group in groups if group)


def _reached(start: str, imports: Mapping[str, set[str]]) -> set[str]:
    found: set[str] = set()
    waiting = [start]
    while waiting:
        new = imports[waiting.pop()] - found
        found |= new
        waiting += new
    return found


def test_a_circle_is_found_and_named() -> None:
    imports = {
        "top": {"a"},
        "a": {"b", "bottom"},
        "b": {"c"},
        "c": {"a", "between"},
        "between": {"package"},
        "package": {"package.part"},
        "package.part": {"package"},
        "bottom": set[str](),
    }
    assert circles(imports) == [["a", "b", "c"], ["package", "package.part"]]


def test_no_circle_among_files() -> None:
    graph = grimp.build_graph("harness", cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    known = [["harness.run.boot", "harness.run.journey"]]  # to go, with the callables between the two
    assert [circle for circle in circles(imports) if circle not in known] == []
