# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest in which a program of the user's own is at work, which says itself whether it is right."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from harness.scenario.values import MIB, Size, Text
from harness.scenario.workloads.base import Workload

if TYPE_CHECKING:
    from harness.memory.formula import Generations


class User(Workload):
    """A static program of your own; docs/user.md has the four lines of text by which it is asked."""

    work_unit = "steps"
    stands_still = False

    kind: Literal["user"] = "user"
    """Which workload."""
    program: Annotated[Text, Field(min_length=1)]
    """Where it is: an ELF file for the guest's architecture, linked statically. It is the first thing in the
    guest that runs besides the testbed's own programs."""
    keep: Size = 16 * MIB
    """Memory with known content that the testbed owns and verifies beside it."""

    @property
    def own_program(self) -> Path:
        """The file."""
        return Path(self.program)

    def load_words(self, seed: int, noise: int) -> tuple[str, ...]:
        """Where the program was is of no matter in the guest."""
        return self.kind, str(seed), str(noise), f"keep={self.keep}"

    def generations(self, seed: int, noise: int, steps: int) -> Generations:
        """What is kept; the program looks at its own memory."""
        from harness.memory import formula

        return formula.unchanged(self.keep)
