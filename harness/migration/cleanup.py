# SPDX-License-Identifier: GPL-2.0-or-later
"""When a QEMU has cleaned up after a migration: later than it says that the migration has completed.

The event ``completed`` comes from the migration's thread; the main loop cleans up
after it (``migration_cleanup()`` in QEMU's migration/migration.c), and only there
the balloon's device ends its record.  There is no event for it.  But the last
thing that is done there is to take the migration off the list of what ``query-yank``
shows, and each answer to a command is the main loop's as well: asking again lets it
go on, so that a question or two are enough.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from harness.errors import MachineryError
from harness.events import Deadline
from harness.migration.qmp import CommandError, Monitor

#: It takes milliseconds.
SECONDS: Final = 30.0


def await_cleanup(monitor: Monitor, seconds: float = SECONDS) -> None:
    """Return when nothing is left of this QEMU's last migration.

    A QEMU without ``query-yank`` (before 6.0) is not waited for.  Raises
    :class:`MachineryError` after ``seconds``, and what :meth:`Monitor.execute` raises.
    """
    deadline = Deadline(seconds, "cleaning up after the migration")
    while _migrating(monitor):
        if deadline.expired:  # a deadline's own error would be taken for the migration's
            raise MachineryError(
                f"the {monitor.side}'s QEMU says that the migration has completed, and has not cleaned up "
                f"after it within {deadline.seconds:g} s",
                hint="its main loop answers; look at what migration_cleanup() waits for",
            )


def _migrating(monitor: Monitor) -> bool:
    try:
        instances = monitor.execute("query-yank")
    except CommandError:
        return False
    return isinstance(instances, list) and any(
        isinstance(one, Mapping) and one.get("type") == "migration" for one in instances
    )
