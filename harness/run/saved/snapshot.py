# SPDX-License-Identifier: GPL-2.0-or-later
"""A snapshot in a qcow2 image (``savevm``): QMP's jobs ``snapshot-save`` and ``snapshot-load``.

The image is no disk of the guest's: it is there for the snapshot alone, and each QEMU has it open only as
long as it works on it, since an image that one has open is locked to the other.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

from harness.errors import FreepageError, MachineryError
from harness.migration.qmp import Monitor, QemuGone
from harness.run.saved.heard import HeardEvents
from harness.run.saved.job import SavedJob
from harness.run.saved.qmp_stream import switch_on
from harness.run.saved.used_memory import fill

if TYPE_CHECKING:
    import libvirt

    from harness.events import Deadline

_TAG: Final = "freepage"
_STORE: Final = "freepage-store"
_NODE: Final = "freepage-snapshot"
#: The image has no data of a disk; what a snapshot has of memory is beyond its size.
_SIZE: Final = 1 << 20


class InternalSnapshot(SavedJob):
    """The guest is stopped, saved into the image, and restored from it in a QEMU that has run nothing yet."""

    counted: ClassVar[bool] = False

    def begin(self) -> None:
        """Stop the guest, and save it; the statuses that QEMU told meanwhile are followed afterwards."""
        crossing = self._with
        self.start_destination()
        crossing.arrive()
        source = crossing.sides.source
        # QEMU says of a snapshot what it says of any migration.
        switch_on(source.monitor, ("events",), {})
        source.monitor.execute("stop")
        try:
            # Of what else it has on it has to refuse what does not go with a snapshot.
            self._switch_modes_on(source.monitor)
            _make(source.monitor, crossing.file.path, crossing.deadline)
            crossing.file.begun()
            _run(source.monitor, "snapshot-save", _WHERE, crossing.deadline)
        except QemuGone:
            raise
        except FreepageError as error:
            with contextlib.suppress(FreepageError):
                _close(source.monitor)
            self.stay()
            self.give_up(f"{crossing.file.path}: {error.message}")
        else:
            _close(source.monitor)

    def _switch_modes_on(self, monitor: Monitor) -> None:
        modes = self._with.modes
        asked, parameters = modes.asked_capabilities(), modes.all_parameters()
        if asked or parameters:
            switch_on(monitor, asked, parameters)

    def restore(self) -> libvirt.virDomain:
        """Load it on the other host."""
        crossing = self._with
        destination = crossing.sides.destination
        assert destination is not None
        if crossing.file.how.used_memory:
            blocks = destination.ramblocks()
            fill(destination.monitor.pid, [block for block in blocks if block.name in crossing.images])
            crossing.file.memory_was_used()
        self._switch_modes_on(destination.monitor)
        _open(destination.monitor, crossing.file.to_restore())
        _run(destination.monitor, "snapshot-load", _WHERE, crossing.deadline)
        _close(destination.monitor)
        assert self._there is not None
        return self._there


_WHERE: Final[Mapping[str, object]] = {"tag": _TAG, "vmstate": _NODE, "devices": [_NODE]}


def _make(monitor: Monitor, path: Path, deadline: Deadline) -> None:
    """An empty image, which this QEMU has open then."""
    options = {"driver": "file", "filename": str(path), "size": 0}
    _run(monitor, "blockdev-create", {"options": options}, deadline)
    monitor.execute("blockdev-add", {"driver": "file", "node-name": _STORE, "filename": str(path)})
    image = {"driver": "qcow2", "file": _STORE, "size": _SIZE}
    _run(monitor, "blockdev-create", {"options": image}, deadline)
    monitor.execute("blockdev-add", {"driver": "qcow2", "node-name": _NODE, "file": _STORE})


def _open(monitor: Monitor, path: Path) -> None:
    monitor.execute("blockdev-add", {"driver": "file", "node-name": _STORE, "filename": str(path)})
    monitor.execute("blockdev-add", {"driver": "qcow2", "node-name": _NODE, "file": _STORE})


def _close(monitor: Monitor) -> None:
    for node in (_NODE, _STORE):
        monitor.execute("blockdev-del", {"node-name": node})


def _run(monitor: Monitor, command: str, arguments: Mapping[str, object], deadline: Deadline) -> None:
    """Run a job to its end.  Raises :class:`MachineryError` with QEMU's words if it fails."""
    heard = HeardEvents(monitor)
    job = f"freepage-{command}"
    monitor.execute(command, {"job-id": job, **arguments})
    while True:
        event = heard.next(command, deadline)
        if event.name == "JOB_STATUS_CHANGE" and event.data == {"id": job, "status": "concluded"}:
            break
    jobs = monitor.execute("query-jobs")
    found = [entry for entry in jobs if entry["id"] == job] if isinstance(jobs, list) else []
    monitor.execute("job-dismiss", {"id": job})
    for entry in found:
        if entry.get("error"):
            raise MachineryError(f"{command}: {entry['error']}")
