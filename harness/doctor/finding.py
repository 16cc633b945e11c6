# SPDX-License-Identifier: GPL-2.0-or-later
"""What the doctor says of one part of a machine."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Level(Enum):
    """How bad a finding is."""

    OK = "ok"
    #: A run is possible without it, slower or not in every form.
    NOTE = "note"
    #: No run is possible.
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One line of the doctor's: what was looked at, what was seen, what to do."""

    name: str
    level: Level
    text: str
    advice: str | None = None
    #: How fast it is, where that was measured: seconds to a guest kernel's first line.
    seconds: float | None = None
