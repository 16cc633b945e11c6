# SPDX-License-Identifier: GPL-2.0-or-later
"""Which QMP commands may change a guest's machine, rather than ask for it or migrate it.

What is not known here to be harmless counts as a change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

#: Commands that only ask, and those by which a migration is made.
_HARMLESS: Final = (
    "query-",
    "x-query-",
    "qom-get",
    "qom-list",
    "device-list-properties",
    "migrate",
    "calc-dirty-rate",
    "trace-event-",
    "qmp_capabilities",
    "xen-save-devices-state",
    "getfd",
    "closefd",
    "add-fd",
    "remove-fd",
)
#: Of the human monitor.
_LOOKS: Final = frozenset(("info", "x", "xp", "p", "print", "gpa2hva", "gva2gpa", "memsave", "pmemsave"))
#: A property of the patched balloon, by which the testbed lets it go on; no state is changed by it.
_RELEASES: Final = "x-free-page-info-"


def may_change_machine(command: str, arguments: Mapping[str, object] | None = None) -> bool:
    """Whether a command may change the state of a device or vCPU."""
    arguments = arguments or {}
    if command == "human-monitor-command":
        words = str(arguments.get("command-line", "")).split()
        return bool(words) and words[0] not in _LOOKS
    if command == "qom-set" and str(arguments.get("property")).startswith(_RELEASES):
        return False
    return not command.startswith(_HARMLESS)
