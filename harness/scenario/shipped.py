# SPDX-License-Identifier: GPL-2.0-or-later
"""The scenarios that ship, as text.  Their names can be had without all that reads a scenario."""

from __future__ import annotations

from importlib import resources


def shipped_texts() -> dict[str, str]:
    """The files of the scenarios that ship, by name."""
    folder = resources.files("harness") / "scenarios"
    files = (entry for entry in folder.iterdir() if entry.name.endswith(".yaml"))
    return {entry.name.removesuffix(".yaml"): entry.read_text("utf-8") for entry in files}


def shipped_names() -> list[str]:
    """The names of the scenarios that ship, in order."""
    folder = resources.files("harness") / "scenarios"
    names = (entry.name for entry in folder.iterdir())
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))
