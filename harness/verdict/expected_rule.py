# SPDX-License-Identifier: GPL-2.0-or-later
"""``expect.rule`` of a scenario: whether there is such a rule.

    demand_known_rule(load_scenario("mine.yaml"))

The scenario language knows of no rules, so this is asked beside it, wherever a file is read.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Final

from harness.verdict import rules  # noqa: F401 - they register
from harness.verdict.registry import known_names

if TYPE_CHECKING:
    from harness.scenario.model import Scenario

#: So many names that are close are offered.
_OFFERED: Final = 4


def demand_known_rule(scenario: Scenario) -> None:
    """Raise :class:`InputError`, with the place in the file, for a rule that nothing can be found by."""
    wanted = scenario.expect.rule
    if wanted is None or wanted in (known := known_names()):
        return
    close = difflib.get_close_matches(wanted, sorted(known), n=_OFFERED)
    near = f"the nearest are {', '.join(close)}" if close else "docs/oracle.md has the table of all rules"
    raise scenario.wrong("expect.rule", f"there is no rule {wanted!r}; {near}")
