# SPDX-License-Identifier: GPL-2.0-or-later
"""Migrations by way of a file: written on one host, restored on the other, and judged like any other.

:func:`job_for` gives the job for a scenario's ``migration.to``.  Each way is a class of its own below
:class:`harness.run.saved.job.SavedJob`.
"""

from __future__ import annotations

from typing import Final

from harness.run.saved.job import Crossing, SavedJob
from harness.run.saved.libvirt_save import LibvirtSave
from harness.run.saved.snapshot import InternalSnapshot
from harness.run.saved.stream import BackgroundSnapshot, StreamToFile

_WAYS: Final[dict[str, type[SavedJob]]] = {
    "file": StreamToFile,
    "save": LibvirtSave,
    "savevm": InternalSnapshot,
    "background-snapshot": BackgroundSnapshot,
}


__all__ = ["Crossing", "SavedJob", "job_for", "waits_for_a_stream"]


def job_for(way: str, crossing: Crossing) -> SavedJob:
    """The job that takes a guest that way; not for ``host``."""
    return _WAYS[way](crossing)


def waits_for_a_stream(way: str) -> bool:
    """Whether the destination's QEMU is started by us, to wait for a migration (``-incoming defer``)."""
    return way != "host" and _WAYS[way].incoming
