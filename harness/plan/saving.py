# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether this machine can do to a guest's file what a scenario wants; asked before anything is built."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import InputError
from harness.hosts.this_machine import demand_userfaultfd

if TYPE_CHECKING:
    from harness.scenario.load import Migration


def demand_saving(how: Migration) -> None:
    """Raise :class:`InputError` for a file, a program or a kernel's feature that is not there."""
    file = how.file
    if file.compression is not None and shutil.which(file.compression) is None:
        raise InputError(
            f"migration.file.compression: there is no program {file.compression}",
            hint=f"install {file.compression}, or leave the file as it is",
        )
    if file.instead is not None and not Path(file.instead).is_file():
        raise InputError(
            f"migration.file.instead: there is no file {file.instead}",
            hint="a run with migration.file.keep leaves one in its folder",
        )
    if how.to == "background-snapshot":
        demand_userfaultfd("migration.to: background-snapshot")


def demand_direct_io(folder: Path) -> None:
    """Raise :class:`InputError` if the file system of this folder has no direct I/O."""
    place = next(one for one in (folder, *folder.absolute().parents) if one.is_dir())
    try:
        os.close(os.open(place, os.O_TMPFILE | os.O_RDWR | os.O_DIRECT, 0o600))
    except OSError as error:
        if (
            error.errno != errno.EINVAL
        ):  # no such nameless files there, or no right to make any: QEMU will say
            return
        raise InputError(
            f"migration.direct_io: the file system of {place} does not open files past the page cache",
            hint="put the run folder elsewhere (--out), or leave direct_io out",
        ) from error
