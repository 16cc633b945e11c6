# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a QEMU has on what it was told, by its own word while it migrates.

A QEMU that refuses a mode says so before a guest boots, and that is no finding.  One that takes it, and has
something else on, is wrong: a number that is cut off, a capability that is lost on its way.  Pure: QEMUs are
asked by :mod:`harness.run.follow`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from harness.verdict.finding import Finding


@dataclass(frozen=True, slots=True)
class ModesAsked:
    """What one migration has asked of a QEMU."""

    capabilities: tuple[str, ...]
    parameters: Mapping[str, object]

    def without(self, names: Collection[str]) -> ModesAsked:
        """The same, but for what a script has set otherwise."""
        kept = tuple(name for name in self.capabilities if name not in names)
        return ModesAsked(kept, {name: value for name, value in self.parameters.items() if name not in names})


def modes_findings(
    asked: ModesAsked, side: str, capabilities: Collection[str], parameters: Mapping[str, object]
) -> list[Finding]:
    """What the QEMU of ``side`` says that it has on, against what it was told."""
    lost = [name for name in asked.capabilities if name not in capabilities]
    # What a QEMU does not list it cannot be asked for.
    other = [
        f"{name} is {parameters[name]!r}, and was to be {value!r}"
        for name, value in asked.parameters.items()
        if name in parameters and not _same(parameters[name], value)
    ]
    words = [f"{name} is off, and was to be on" for name in lost] + other
    if not words:
        return []
    return [Finding("modes-differ", "outcome", f"on the {side}'s QEMU {'; '.join(words)}")]


def _same(said: object, asked: object) -> bool:
    return isinstance(said, bool) is isinstance(asked, bool) and said == asked
