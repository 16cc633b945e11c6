# SPDX-License-Identifier: GPL-2.0-or-later
"""The rules that ship: each module registers its own when it is imported.

The order here is that of rules of one stage in a verdict.
"""

# isort: off
from harness.verdict.rules import pages
from harness.verdict.rules import postcopy
from harness.verdict.rules import blocks
from harness.verdict.rules import outcome
from harness.verdict.rules import devices
from harness.verdict.rules import witness
from harness.verdict.rules import wire
from harness.verdict.rules import log
from harness.verdict.rules import counters
from harness.verdict.rules import guest
from harness.verdict.rules import vcpus
from harness.verdict.rules import msrs
from harness.verdict.rules import disk
from harness.verdict.rules import copied_disks
from harness.verdict.rules import clocks
from harness.verdict.rules import stream
from harness.verdict.rules import interrupts
from harness.verdict.rules import expectations
from harness.verdict.rules import expected_outcome
from harness.verdict.rules import throttle
from harness.verdict.rules import modes
from harness.verdict.rules import growth
from harness.verdict.rules import course
from harness.verdict.rules import doubts
# isort: on

__all__ = [
    "blocks",
    "clocks",
    "copied_disks",
    "counters",
    "course",
    "devices",
    "disk",
    "doubts",
    "expectations",
    "expected_outcome",
    "growth",
    "guest",
    "interrupts",
    "log",
    "modes",
    "msrs",
    "outcome",
    "pages",
    "postcopy",
    "stream",
    "throttle",
    "vcpus",
    "wire",
    "witness",
]
