# SPDX-License-Identifier: GPL-2.0-or-later
"""What all ways through a file have in common: written, maybe spoilt, restored; or the guest stays."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

import libvirt

from harness.errors import FreepageError, MachineryError
from harness.migration.inbox import JobEnd
from harness.migration.qmp import QemuGone
from harness.verdict.finding import Finding
from harness.verdict.outcome import KIND as OUTCOME

if TYPE_CHECKING:
    from harness.events import Deadline, EventStream
    from harness.evidence.device_state import SavedState
    from harness.hosts.interface import Host
    from harness.memory.access import Image
    from harness.migration.inbox import Inbox
    from harness.migration.modes import Modes
    from harness.migration.qmp import Monitor, QmpEvent
    from harness.run.follow import LastLook
    from harness.run.saved.state_file import StateFile
    from harness.run.sides import Endpoint, Sides
    from harness.scenario.load import Migration

#: For an answer of QEMU's that says how a migration failed.
_WORDS_SECONDS: Final = 20.0


@dataclass(frozen=True, slots=True)
class Crossing:
    """What a job has at hand.

    ``xml`` is the destination's domain; ``arrive`` connects to its QEMU, and returns it; ``images`` are
    the source's RAMBlocks that are files; ``seen`` is where the follower puts down what it has seen.
    """

    domain: libvirt.virDomain
    origin: Host
    target: Host
    sides: Sides
    how: Migration
    modes: Modes
    xml: str
    file: StateFile
    events: EventStream
    deadline: Deadline
    put: Callable[[JobEnd], None]
    arrive: Callable[[], Endpoint]
    images: Mapping[str, Image]
    seen: LastLook

    @property
    def source(self) -> Monitor:
        """QMP with the source."""
        return self.sides.source.monitor


class SavedJob(ABC):
    """A :class:`harness.migration.job.Job`: first to the file, then from it.  All runs in the main thread."""

    #: Whether the destination's QEMU is started to wait for a migration.
    incoming: ClassVar[bool] = False
    #: Whether the source's QEMU ends by itself when the file is whole.
    source_ends: ClassVar[bool] = False
    #: A destination is started by what restores the file, and its words are the reason.
    refused: ClassVar[bool] = False
    #: Whether the source's QEMU counts bytes and time of it, as it does of a migration.
    counted: ClassVar[bool] = True

    def __init__(self, crossing: Crossing) -> None:
        self._with = crossing
        self._over = False
        self._there: libvirt.virDomain | None = None
        status = crossing.source.execute("query-status")
        #: Whether the guest runs: one that does not is left alone, whatever becomes of its file.
        self.runs = isinstance(status, Mapping) and status.get("running") is True

    @abstractmethod
    def begin(self) -> None:
        """Begin to write.  What QEMU refuses ends the migration with QEMU's own words."""

    @abstractmethod
    def restore(self) -> libvirt.virDomain:
        """Have the destination take the file; its domain, which stands still.

        Raises :class:`FreepageError` or libvirt's error, with words for the reason, if it does not.
        """

    def image(self, name: str, image: Image) -> Image:  # noqa: ARG002
        """What a block of the source held at the moment that the file has; for most that is what it holds."""
        return image

    def on_way(self, status: str) -> None:  # noqa: B027
        """One of the source's statuses before its end."""

    def written(self) -> None:  # noqa: B027
        """The file is whole: before it is restored."""

    def event(self, event: QmpEvent) -> None:
        """One of the source's MIGRATION events, after everybody else has seen it."""
        status = str(event.data.get("status"))
        if self._over:
            return
        if status == "completed":
            self._cross()
        elif status in ("failed", "cancelled"):
            self.give_up(self._words(self._with.source, f"QEMU reports a {status} migration"))
        else:
            self.on_way(status)

    def release(self) -> None:  # noqa: B027
        """Nothing to release: the source ends when the file was restored."""

    def end_source(self) -> None:  # noqa: B027
        """Nothing to do: it has ended with the restoring."""

    def gone(self) -> None:
        """A QEMU is gone."""
        self.give_up("a QEMU has ended")

    def cancel(self, inbox: Inbox) -> None:
        """Give up."""
        del inbox
        with contextlib.suppress(FreepageError):
            self._with.source.execute("migrate_cancel")
        self.give_up("cancelled")

    def give_up(self, reason: str) -> None:
        """The guest stays where it is."""
        if self._over:
            return
        self._over = True
        error = libvirt.libvirtError(reason)
        # What libvirt failed at last has nothing to do with it.
        error.err = None
        # Before its QEMU is ended: that is then nothing unexpected.
        self._with.put(JobEnd(None, error))
        self._end_destination()

    def stay(self) -> None:
        """The file was not restored: the guest goes on where it was."""
        if self.runs:
            self._with.source.execute("cont")

    def _cross(self) -> None:
        """Restore what was written."""
        crossing = self._with
        try:
            crossing.file.written()
            self.written()
            with crossing.events.step("restore") as step:
                there = self.restore()
                crossing.file.restored()
                step.note(ms=crossing.file.facts.restore_ms)
        except QemuGone:
            self.stay()
            raise
        except (FreepageError, libvirt.libvirtError) as error:
            words = error.message if isinstance(error, FreepageError) else error.get_error_message()
            self.stay()
            self.give_up(f"{crossing.file.path} was not restored: {words}")
            return
        self._over = True
        self.leave()
        crossing.put(JobEnd(there, None))

    def leave(self) -> None:
        """The guest is on the destination: the source's QEMU, which still has it, stopped, ends."""
        # It is gone already, or libvirt is: that shows elsewhere.
        with contextlib.suppress(libvirt.libvirtError):
            self._with.domain.destroy()

    def start_destination(self) -> libvirt.virDomain:
        """The destination's QEMU, in which nothing runs yet."""
        try:
            connection = self._with.target.connect()
            there = connection.createXML(self._with.xml, libvirt.VIR_DOMAIN_START_PAUSED)
        except libvirt.libvirtError as error:
            raise MachineryError(
                f"the destination cannot wait for the guest: {error.get_error_message()}"
            ) from error
        self._there = there
        return there

    @property
    def findings(self) -> list[Finding]:
        """What is wrong with how it ended."""
        facts = self._with.file.facts
        if facts.spoilt and facts.restore_ms is not None:
            return [Finding("file-accepted", OUTCOME, f"QEMU took the guest out of {facts.spoilt}")]
        return []

    def keep_devices(self, devices: SavedState) -> None:
        """The source's devices, as they are at the moment that the file has."""
        self._with.seen.devices = devices

    def _end_destination(self) -> None:
        if self._there is not None:
            with contextlib.suppress(libvirt.libvirtError):
                self._there.destroy()

    def _words(self, monitor: Monitor, otherwise: str) -> str:
        """QEMU's own reason."""
        with contextlib.suppress(FreepageError):
            answer = monitor.execute("query-migrate", seconds=_WORDS_SECONDS)
            if isinstance(answer, Mapping) and answer.get("error-desc"):
                return f"{self._with.file.path}: {answer['error-desc']}"
        return f"{self._with.file.path}: {otherwise}"
