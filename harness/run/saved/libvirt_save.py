# SPDX-License-Identifier: GPL-2.0-or-later
"""``virsh save`` and ``virsh restore``: libvirt stops the guest, writes it to a file, and ends its QEMU.

The guest is paused before libvirt is asked, as its devices' state can be read only while its QEMU lives;
libvirt would do nothing else first.
"""

from __future__ import annotations

import contextlib
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from threading import Thread
from typing import TYPE_CHECKING, ClassVar

import libvirt

from harness.errors import DeadlineExceeded
from harness.run.saved.job import SavedJob

if TYPE_CHECKING:
    from harness.events import Deadline


class LibvirtSave(SavedJob):
    """``virDomainSaveParams`` on the source, ``virDomainRestoreParams`` on the destination."""

    source_ends: ClassVar[bool] = True
    counted: ClassVar[bool] = False

    def begin(self) -> None:
        """Pause and save.  QEMU's statuses of it are followed afterwards, when its QEMU has gone."""
        crossing = self._with
        source = crossing.sides.source
        if self.runs:
            crossing.domain.suspend()
        crossing.seen.others = source.copy(
            [block for block in source.ramblocks() if block.name not in crossing.images]
        )
        self.keep_devices(source.save_devices())
        source.monitor.expect_end()
        crossing.file.begun()
        try:
            self._save(crossing.deadline)
        except libvirt.libvirtError as error:
            # The QEMU that could not be saved is still there, paused as it was.
            if self.runs:
                with contextlib.suppress(libvirt.libvirtError):
                    crossing.domain.resume()
            self.give_up(f"{crossing.file.path}: {error.get_error_message()}")

    def _save(self, deadline: Deadline) -> None:
        crossing = self._with
        done: Future[None] = Future()
        parameters = {libvirt.VIR_DOMAIN_SAVE_PARAM_FILE: str(crossing.file.path)}

        def work() -> None:
            try:
                # A connection of its own; see harness.migration.job.
                own = crossing.origin.open().lookupByUUID(crossing.domain.UUID())
                own.saveParams(parameters, libvirt.VIR_DOMAIN_SAVE_PAUSED)
            except libvirt.libvirtError as error:
                done.set_exception(error)
            else:
                done.set_result(None)

        # A daemon thread: a libvirt that never answers must not keep the run alive.
        Thread(target=work, name="save", daemon=True).start()
        try:
            done.result(deadline.timeout())
        except FutureTimeout as error:
            with contextlib.suppress(libvirt.libvirtError):
                crossing.domain.abortJob()
            raise DeadlineExceeded(f"{deadline.what}: {crossing.file.path} was not saved in time") from error

    def restore(self) -> libvirt.virDomain:
        """Restore it; the guest stands still then."""
        crossing = self._with
        connection = crossing.target.connect()
        name = crossing.domain.name()
        parameters = {
            libvirt.VIR_DOMAIN_SAVE_PARAM_FILE: str(crossing.file.to_restore()),
            libvirt.VIR_DOMAIN_SAVE_PARAM_DXML: crossing.xml,
        }
        connection.restoreParams(parameters, libvirt.VIR_DOMAIN_SAVE_PAUSED)
        self._there = connection.lookupByName(name)
        crossing.arrive()
        return self._there

    def stay(self) -> None:
        """Its QEMU is gone; the guest is nowhere but in the file."""

    def leave(self) -> None:
        """Nothing to end: libvirt has ended the source's QEMU when the file was whole."""
