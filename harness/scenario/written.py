# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the keys of a scenario were written, for errors that are found after it was read.

What a key may say is checked when the file is read.  Whether this QEMU and this machine have it is
known later; the error names the same place all the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from harness.errors import InputError
from harness.scenario.located import LocatedTree, Problem, dotted


@dataclass(frozen=True, slots=True)
class Written:
    """Where a scenario was written.  Two of them are always equal: it is no part of what a scenario says."""

    tree: LocatedTree | None = field(default=None, compare=False, repr=False)

    def wrong(self, key: str, text: str, *, hint: str | None = None) -> InputError:
        """The error for a key; ``key`` is dotted, with numbers for places in a list."""
        path = tuple(int(part) if part.isdecimal() else part for part in key.split("."))
        if self.tree is None:
            return InputError(f"{dotted(path)}: {text}", hint=hint)
        return InputError(str(Problem(self.tree.place(path), dotted(path), text)), hint=hint)
