# SPDX-License-Identifier: GPL-2.0-or-later
"""How a word may go on, where an option cannot know by itself: names of scenarios, faults and runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def scenario_names(incomplete: str) -> Iterator[str]:
    """Scenarios that ship; files are completed by the shell."""
    from importlib import resources

    for entry in (resources.files("harness") / "scenarios").iterdir():
        name = entry.name.removesuffix(".yaml")
        if name != entry.name and name.startswith(incomplete):
            yield name


def suite_names(incomplete: str) -> Iterator[str]:
    """Suites that ship; files are completed by the shell."""
    from importlib import resources

    for entry in (resources.files("harness") / "suites").iterdir():
        name = entry.name.removesuffix(".yaml")
        if name != entry.name and name.startswith(incomplete):
            yield name


def fault_names(incomplete: str) -> Iterator[str]:
    """Deliberate faults, by their id."""
    from harness.faults.catalogue import catalogue

    return (fault.id for fault in catalogue().faults if fault.id.startswith(incomplete))


def run_names(incomplete: str) -> Iterator[str]:
    """Run folders below the current one."""
    try:
        names = sorted(path.name for path in Path("runs").iterdir() if path.is_dir())
    except OSError:
        return iter(())
    return (name for name in names if name.startswith(incomplete))
