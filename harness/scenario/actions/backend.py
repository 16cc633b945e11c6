# SPDX-License-Identifier: GPL-2.0-or-later
"""Actions on what is behind a guest's devices: programs that serve them, file systems that images are in."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field

from harness.errors import FreepageError
from harness.events import Deadline
from harness.scenario.actions.base import Action
from harness.scenario.actions.stage import MigrationSide, Stage
from harness.scenario.values import Text

#: The file that fills a file system up.
FILLER: Final = "filler"


class _RoomAction(Action):
    """What both of them say: whose file system."""

    side: MigrationSide = "source"
    """Whose: the QEMU's that the guest leaves, or the one's that it goes to. A disk that both see has one."""

    @property
    def needs_room(self) -> bool:
        """True."""
        return True


class DiskFill(_RoomAction):
    """Fill up the file system that disks with a `room` are in: there is no space left on the device.

    A guest that writes to a new part of its disk then stands still (io-error), and goes on once there is
    room.
    """

    action: Literal["disk-fill"] = "disk-fill"

    def carry_out(self, stage: Stage, deadline: Deadline) -> None:
        """With a file beside the images."""
        fill_up(stage.disk_room(self.side))


class DiskDrain(_RoomAction):
    """Give back what disk-fill took, and have QEMU go on with a guest that stands still for it."""

    action: Literal["disk-drain"] = "disk-drain"

    def carry_out(self, stage: Stage, deadline: Deadline) -> None:
        """QEMU tries the requests again that had found no room."""
        (stage.disk_room(self.side) / FILLER).unlink(missing_ok=True)
        # Before a migration, and after one, there may be none there that could wait for room.
        with contextlib.suppress(FreepageError):
            qemu = stage.source if self.side == "source" else stage.destination
            status = qemu.execute("query-status")
            if isinstance(status, dict) and status.get("status") == "io-error":
                qemu.execute("cont")


def fill_up(folder: Path) -> None:
    """Leave no room in a file system."""
    piece = 1 << 20
    with (folder / FILLER).open("ab") as file:
        while piece >= mmap.PAGESIZE:
            try:
                os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), piece)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                piece //= 2


class BackendKill(Action):
    """Kill the program that serves a device: swtpm, virtiofsd, qemu-storage-daemon, vhost-user-bridge.

    Either QEMU may give up then; the next one that is started has a new one.
    """

    action: Literal["backend-kill"] = "backend-kill"
    device: Annotated[Text, Field(min_length=1)]
    """Which device, by its word: tpm, virtiofs, disk (on vhost-user-blk), nic (of vhost-user)."""
    side: MigrationSide = "destination"
    """Whose: the QEMU's that the guest leaves, or the one's that it goes to."""

    @property
    def needs_destination(self) -> bool:
        """On that side."""
        return self.side == "destination"

    @property
    def needs_backend(self) -> str | None:
        """The device that somebody has to serve."""
        return self.device

    def carry_out(self, stage: Stage, deadline: Deadline) -> None:
        """SIGKILL; it is gone when this returns."""
        stage.will_cut_wire()
        stage.kill_backend(self.device, self.side)
