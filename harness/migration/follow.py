# SPDX-License-Identifier: GPL-2.0-or-later
"""Following one migration: the main thread works through the inbox until the guest has moved.

    class RunFollower(Follower):
        def begun(self) -> None: ...        # and the other methods of the kind

    source.listen(inbox.put)                # a Monitor of each side
    destination.listen(inbox.put)
    job = MigrationJob.start(domain, own, there, request, inbox, gate)
    domain = RunFollower(inbox, holds, script).follow(job, deadline)

A hold of the device goes to the keeper of the holds, from there to the script, and
ends with ``cont``: all of it in the main thread, by plain calls.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

import libvirt

from harness.errors import DeadlineExceeded, FreepageError, LostError
from harness.events import Deadline
from harness.migration.hold import Moments
from harness.migration.inbox import Completion, Inbox, Incoming, JobEnd
from harness.migration.job import Job
from harness.migration.qmp import CLOSED, QemuGone, QmpEvent
from harness.migration.statistics import MigrationError, OutOfTimeError, StuckError

#: After so long without an event QEMU is asked whether the migration still moves.
_TURN_SECONDS: Final = 2.0

#: The source has stopped for good, or is about to say so: its RAM no longer changes by vCPUs.
SWITCH_OVER: Final = frozenset({"pre-switchover", "device"})


class FollowedScript(Moments, Protocol):
    """What is done while the guest migrates; :class:`harness.script.runner.ScriptRunner` in a run."""

    def answered(self, item: Completion) -> None:
        """Something that it has waited for in a thread has come."""


class Holds(Protocol):
    """Who works off the device's holds; :class:`harness.migration.hold.HoldKeeper` in a run."""

    def handle(self, data: Mapping[str, object]) -> None:
        """A hold has begun: the VM stands still and waits for ``cont``."""


@dataclass(slots=True)
class Progress:
    """How far the migration has come."""

    #: The source's vCPUs have stopped for the last time.
    stopped: bool = False
    #: QEMU has completed.
    completed: bool = False
    #: QEMU's words for a failure.
    failure: str = ""
    #: Sides whose QEMU has ended and should not have.
    gone: list[str] = field(default_factory=list)


class Follower(ABC):
    """Follows one migration.  A subclass says what is done at the moments that matter.

    All methods run in the main thread.
    """

    def __init__(self, inbox: Inbox, holds: Holds, script: FollowedScript) -> None:
        self._inbox = inbox
        self._holds = holds
        self._script = script
        self._progress = Progress()

    @property
    def gone(self) -> tuple[str, ...]:
        """Sides whose QEMU has ended and should not have."""
        return tuple(self._progress.gone)

    @abstractmethod
    def begun(self) -> None:
        """Both QEMUs are there, and the migration is about to begin."""

    @abstractmethod
    def stopped(self) -> None:
        """The source's vCPUs have stopped for the last time."""

    @abstractmethod
    def completed(self) -> None:
        """QEMU has completed; the source's process is still there until this returns."""

    @abstractmethod
    def lost(self, side: str) -> LostError:
        """The error for a QEMU that is gone."""

    def stuck(self) -> str | None:
        """What has stood still for too long, in words.  Asked whenever nothing has come for a while."""
        return None

    def active(self) -> None:  # noqa: B027 - most have nothing to do
        """The migration has begun to send."""

    def passed(self) -> None:  # noqa: B027 - most have nothing to do
        """QEMU has synchronised its bitmap, and begins another pass."""

    def failed(self) -> None:  # noqa: B027 - most have nothing to do
        """QEMU has given the migration up."""

    def destination_may_end(self) -> bool:
        """Whether it is nothing unusual that the destination's QEMU ends."""
        return False

    def told_to_end(self, side: str) -> bool:
        """Whether somebody has told the QEMU of a side to end."""
        del side
        return False

    def follow(self, job: Job, deadline: Deadline) -> libvirt.virDomain:
        """Work through the inbox until the guest has moved; its domain on the destination.

        Raises :class:`MigrationError` for a migration that was given up, what
        :meth:`lost` builds for a QEMU that is gone, and :class:`OutOfTimeError`.
        """
        try:
            while True:
                item = self._next(deadline)
                if item is None:
                    self._look_for_progress(job)
                elif isinstance(item, JobEnd):
                    return self._end(item)
                elif isinstance(item, Completion):
                    self._script.answered(item)
                elif item.name == CLOSED:
                    self._closed(item.side, job)
                elif item.side == "source":
                    self._step(item, job)
        except DeadlineExceeded as error:
            job.cancel(self._inbox)
            raise OutOfTimeError(
                f"{error.message}; the migration was cancelled",
                hint="raise migration.timeout_s, or give it more bandwidth or more downtime",
            ) from None
        except QemuGone as error:
            if self.told_to_end(error.side):
                raise MigrationError(_ended(error.side)) from error
            if error.side not in self._progress.gone:
                self._progress.gone.append(error.side)
            # That it has ended is what matters, not what it was asked when it did.
            raise self.lost(error.side) from error
        except KeyboardInterrupt:
            job.cancel(self._inbox)
            raise

    def _next(self, deadline: Deadline) -> Incoming | None:
        """What comes next; None: nothing has come for a while."""
        turn = deadline.sub(_TURN_SECONDS, deadline.what)
        try:
            return self._inbox.get(turn)
        except DeadlineExceeded:
            deadline.check()
            return None

    def _look_for_progress(self, job: Job) -> None:
        words = self.stuck()
        if words is None:
            return
        with contextlib.suppress(FreepageError):
            job.cancel(self._inbox)
        raise StuckError(words)

    def hear_rest(self, job: Job) -> None:
        """Tell script and job what has come after the end, without waiting for more."""
        for item in self._inbox.rest():
            if isinstance(item, Completion):
                self._script.answered(item)
            elif isinstance(item, QmpEvent) and item.side == "source":
                self._tell(item, job)

    def _closed(self, side: str, job: Job) -> None:
        # libvirt ends the source's QEMU when the guest has moved.
        # A destination that waits for nobody any more is ended as well, and its end is not what went wrong.
        may_end = self.destination_may_end() or job.refused
        expected = self._progress.completed if side == "source" else may_end
        if side == "source" and self.told_to_end(side):
            # Who drives the migration may not know that there is nobody left to say how it ended.
            job.gone()
        elif not expected:
            self._progress.gone.append(side)
            job.gone()

    def _step(self, event: QmpEvent, job: Job) -> None:
        if event.name == "FREE_PAGE_INFO_HOLD":
            self._holds.handle(event.data)
        elif event.name == "MIGRATION":
            self._status(event, job)
        self._tell(event, job)

    def _status(self, event: QmpEvent, job: Job) -> None:
        status = event.data.get("status")
        if status in SWITCH_OVER and not self._progress.stopped:
            self._progress.stopped = True
            self.stopped()
        elif status == "completed":
            self._progress.completed = True
            self.completed()
            job.release()
        elif status == "failed":
            self._progress.failure = (
                str(event.data.get("error-desc", "")) or "QEMU reports a failed migration"
            )

    def _tell(self, event: QmpEvent, job: Job) -> None:
        """What an event means for the script and for the job."""
        if event.name == "MIGRATION_PASS":
            number = event.data.get("pass")
            self.passed()
            self._script.happened("pass", number=number if isinstance(number, int) else None)
        elif event.name == "MIGRATION":
            status = str(event.data.get("status"))
            if status == "failed":
                self.failed()
            # What lasts for a moment only is the script's before it is ours.
            self._script.happened(status)
            if status == "setup":
                self.begun()
            elif status == "active":
                self.active()
            job.event(event)

    def _end(self, end: JobEnd) -> libvirt.virDomain:
        if end.error is None:
            assert end.domain is not None
            return end.domain
        if self._progress.gone:
            raise self.lost(self._progress.gone[0]) from end.error
        reason = end.error.get_error_message() or str(end.error)
        raise MigrationError(
            f"the migration failed: {reason}"
            + (f" ({self._progress.failure})" if self._progress.failure else "")
        ) from end.error


def _ended(side: str) -> str:
    return f"the {side}'s QEMU has ended, as it was told to"
