# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's migration stream to a file, and from it: what both QEMUs are told over QMP.

The modes of a scenario are QEMU's capabilities and parameters, which both sides have to agree on
before the destination is told of the file (``migrate-incoming``).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from harness.errors import DeadlineExceeded, MachineryError
from harness.migration.modes import NO_LIMIT, Modes
from harness.migration.qmp import CommandError, Monitor
from harness.run.saved.heard import HeardEvents

if TYPE_CHECKING:
    from harness.events import Deadline

#: What every stream to a file has on: status events, and a stop before the device state is written.
TO_FILE: Final = ("events", "pause-before-switchover")
#: A background snapshot stops the guest by itself, at its beginning.
IN_BACKGROUND: Final = ("events", "background-snapshot")

#: What the file is called in a QEMU's monitor, and the number of its set.
_NAME: Final = "freepage-state"
_SET: Final = 7

_ENDED: Final = frozenset({"completed", "failed"})


def capabilities_of(modes: Modes, always: Iterable[str]) -> tuple[str, ...]:
    """QEMU's capabilities for a migration's modes, with those of every such stream."""
    named = (setting.mode.capability for setting in modes.settings)
    return (*always, *(name for name in named if name is not None))


def parameters_of(modes: Modes) -> dict[str, object]:
    """QEMU's parameters for them."""
    # Nobody else tells it; QEMU's own default is 128 MiB/s.
    return {**modes.all_parameters(), "max-bandwidth": modes.bandwidth or NO_LIMIT}


def switch_on(monitor: Monitor, capabilities: Iterable[str], parameters: Mapping[str, object]) -> None:
    """Tell one QEMU.  Raises :class:`CommandError` with QEMU's own words for what it does not take."""
    on = [{"capability": name, "state": True} for name in capabilities]
    monitor.execute("migrate-set-capabilities", {"capabilities": on})
    if parameters:
        monitor.execute("migrate-set-parameters", parameters)


@contextlib.contextmanager
def told_of(monitor: Monitor, path: Path, by: str, *, writes: bool, direct: bool = False) -> Iterator[str]:
    """The URI of a file for one QEMU, to which it was handed where it is not told the path.

    ``by`` is the scenario's ``migration.file.by``.  ``direct``: it goes past the page cache, for which a set
    has two descriptors (docs/devel/migration/mapped-ram.rst).  Ours are closed afterwards.
    """
    if by == "path":
        yield f"file:{path}"
        return
    flags = (os.O_WRONLY | os.O_CREAT | os.O_TRUNC if writes else os.O_RDONLY) | os.O_CLOEXEC
    opened = [os.open(path, flags, 0o600)]
    try:
        if by == "fd":
            monitor.hand_file(opened[0], "getfd", {"fdname": _NAME})
            yield f"fd:{_NAME}"
            return
        if direct:
            opened.append(os.open(path, flags | os.O_DIRECT, 0o600))
        for descriptor in opened:
            monitor.hand_file(descriptor, "add-fd", {"fdset-id": _SET})
        yield f"file:/dev/fdset/{_SET}"
    finally:
        for descriptor in opened:
            os.close(descriptor)


def load(monitor: Monitor, uri_of_file: str, deadline: Deadline) -> None:
    """Have a QEMU that waits read a file; returns when it has all of it.

    Raises :class:`MachineryError` with QEMU's reason if it does not take it, and :class:`QemuGone` if it
    ends over it.
    """
    heard = HeardEvents(monitor)
    uri = {"uri": uri_of_file}
    try:
        # So that it lives to say why.
        monitor.execute("migrate-incoming", {**uri, "exit-on-error": False})
    except CommandError as error:
        # Older than 9.1.
        if "exit-on-error" not in error.message:
            raise
        monitor.execute("migrate-incoming", uri)
    status = ""
    while status not in _ENDED:
        status = _next_status(heard, deadline)
    if status == "failed":
        raise MachineryError(f"QEMU: {_reason(monitor)}")


def _next_status(heard: HeardEvents, deadline: Deadline) -> str:
    while True:
        event = heard.next("what has become of the file", deadline)
        if event.name == "MIGRATION":
            return str(event.data.get("status"))


def _reason(monitor: Monitor) -> str:
    with contextlib.suppress(CommandError, DeadlineExceeded):
        answer = monitor.execute("query-migrate")
        if isinstance(answer, Mapping) and answer.get("error-desc"):
            return str(answer["error-desc"])
    return "it gives no reason"
