# SPDX-License-Identifier: GPL-2.0-or-later
"""What was refused, and which draws would be refused for the same reason.  Pure.

Whatever has all that a refused scenario has is refused as well.  Where several were refused in the same
words, the reason is in what they have in common: whatever has that is not drawn, unless some run with it was
taken.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Final

Features = frozenset[str]

#: What every scenario has, and so is no reason.
_EVERYWHERE: Final = ("guest.memory", "arm")


class Refusals:
    """Learns from the ends of runs, by their scenarios' features (harness/hunt/coverage.py)."""

    def __init__(self) -> None:
        self._refused: dict[str, set[Features]] = defaultdict(set)
        self._taken: list[Features] = []

    def refused(self, why: str, found: Features) -> None:
        """A scenario was refused, in these words (without what differs from run to run)."""
        self._refused[why].add(found)

    def taken(self, found: Features) -> None:
        """A scenario was run, however that ended."""
        self._taken.append(found)

    def explain(self, found: Features) -> bool:
        """Whether a scenario would be refused."""
        return any(self._holds(several, found) for several in self._refused.values())

    def _holds(self, several: set[Features], found: Features) -> bool:
        if any(one <= found for one in several):
            return True
        if len(several) == 1:
            return False
        common = frozenset.intersection(*several)
        reasons = {one for one in common if one.partition("=")[0] not in _EVERYWHERE}
        return bool(reasons) and common <= found and not any(common <= one for one in self._taken)
