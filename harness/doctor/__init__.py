# SPDX-License-Identifier: GPL-2.0-or-later
"""``freepage doctor``: what this machine has, what it lacks, and what to do about it.

A check looks at one thing and says so in one :class:`Diagnosis`.  Nothing here
changes the machine, and unless it is asked to measure nothing boots a guest.
"""

from __future__ import annotations

from harness.doctor.checks import examine, possible
from harness.doctor.finding import Diagnosis, Level

__all__ = ["Diagnosis", "Level", "examine", "possible"]
