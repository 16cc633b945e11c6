# SPDX-License-Identifier: GPL-2.0-or-later
"""How a migration ended, by both QEMUs' own words and by what became of their processes."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from harness.errors import DeadlineExceeded
from harness.events import Deadline, Event
from harness.evidence.check_times import timed
from harness.evidence.outcomes import account_of, locks_of, with_core
from harness.hosts.qemu_log import last_words
from harness.migration.qmp import CLOSED
from harness.run.migration_parts import MigrationParts
from harness.run.sides import Endpoint
from harness.verdict.locks import LockLook
from harness.verdict.outcome import MigrationOutcome, QemuAccount

#: How long libvirt may take to end the QEMU that the guest has left.
END_SECONDS: Final = 15.0
#: How long the end of a QEMU that is known to be gone may take to be told.
GONE_SECONDS: Final = 2.0
#: For one that was told to end in the middle of a migration, on a busy machine.
TOLD_SECONDS: Final = 60.0
#: Lines of a QEMU's own log that are looked through for what it says of itself.
MOST_WORDS: Final = 400


class Endings:
    """Asked once for each moment at which somebody has to know."""

    def __init__(self, parts: MigrationParts) -> None:
        self._parts = parts
        self._waited: list[Endpoint] = []
        self._cores: dict[str, str] = {}

    def outcome(
        self, *, moved: bool, stands_still: bool, gone: Sequence[str], by_file: bool
    ) -> MigrationOutcome:
        """How the migration ended, by both QEMUs and by what became of their processes.

        ``moved``: the guest is taken for moved.  ``stands_still``: the guest is meant to.
        ``gone``: sides whose QEMU ended though nobody had asked it to; ``by_file``: it goes by one.
        """
        # libvirt ends one of the two; how it ended is known when the lab's init has reaped it.
        leaving = self._parts.sides.source if moved else self._parts.sides.destination
        script = self._parts.stage.outcome
        told = [end for end in map(self._end_of, sorted(script.told_to_end)) if end is not None]
        with timed(self._parts.events, "ends"):
            for end in told:
                self.wait_for_last_words(end, TOLD_SECONDS)
            if leaving is not None:
                self.wait_for_last_words(leaving)
        with timed(self._parts.events, "locks"):
            self._parts.sides.look_at_locks("resumed" if moved else "given-up")
        history = self._parts.events.history()
        source, destination = (
            self._with_core(account_of(side, history, since=self._parts.since, words=self._qemu_words(side)))
            for side in ("source", "destination")
        )
        here = [end for end in told if end.process.here]
        ended = {account.side for account in (source, destination) if account.end is not None}
        return MigrationOutcome(
            source,
            destination,
            moved,
            cancelled=script.cancelled,
            stands_still=stands_still,
            unasked=frozenset(gone),
            by_file=by_file,
            broken=script.broken,
            switched=script.switched,
            let_go=script.guest_runs,
            told_to_end=frozenset(script.told_to_end),
            unended=frozenset(end.monitor.side for end in here) - ended,
        )

    def _end_of(self, side: str) -> Endpoint | None:
        """One of the two QEMUs; None: it never was there."""
        return self._parts.sides.source if side == "source" else self._parts.sides.destination

    def _with_core(self, account: QemuAccount) -> QemuAccount:
        """Its core is looked for once: then it is in the run folder."""
        side = account.side
        if side not in self._cores:
            keep = self._parts.folder.file(f"{side}.core")
            done = with_core(account, self._parts.events.history(), since=self._parts.since, keep=keep)
            if done.core is None:
                return account
            self._cores[side] = done.core
        return replace(account, core=self._cores[side])

    def locks(self) -> Sequence[LockLook]:
        """Who held the disks' images for writing, whenever that was looked at."""
        return locks_of(self._parts.events.history(), since=self._parts.since)

    def killed_from_outside(self, *sides: str) -> bool:
        """Whether the QEMU of one of these sides was killed (SIGKILL), by nobody of ours.

        The kernel does that where memory runs out: it says nothing of the migration.
        """
        history = self._parts.events.history
        for side in sides:
            endpoint = self._end_of(side)
            if endpoint is None or not endpoint.process.here:
                continue
            if side == "destination" and self._parts.stage.outcome.killed:
                continue
            self._wait_for_end(endpoint.monitor.pid, GONE_SECONDS)
            end = account_of(side, history(), since=self._parts.since).end
            if end is not None and end.signal == "SIGKILL":
                return True
        return False

    def wait_for_last_words(self, leaving: Endpoint, seconds: float = END_SECONDS) -> None:
        """Until a QEMU that is ended has said all that it says, and how it ended is known."""

        def closed(event: Event) -> bool:
            return event.kind == CLOSED and event.source == f"{leaving.monitor.side}.qmp"

        # One that does not end goes on, which the account says as well.  It is waited for once.
        if leaving in self._waited:
            return
        self._waited.append(leaving)
        with contextlib.suppress(DeadlineExceeded):
            self._parts.events.wait(closed, Deadline(seconds, "the end of a QEMU"), after=self._parts.since)
        if leaving.process.here:
            self._wait_for_end(leaving.monitor.pid, max(GONE_SECONDS, seconds - END_SECONDS))

    def _wait_for_end(self, pid: int, seconds: float) -> None:
        def ended(event: Event) -> bool:
            return event.kind == "process-ended" and event.data.get("pid") == pid

        # One that does not end goes on, which the account says as well.
        with contextlib.suppress(DeadlineExceeded):
            self._parts.events.wait(ended, Deadline(seconds, "the end of a QEMU"), after=self._parts.since)

    def _qemu_words(self, side: str) -> tuple[str, ...]:
        """What a QEMU of this migration itself has said; nothing of one that never was."""
        if side == "destination" and self._parts.sides.destination is None:
            return ()
        return last_words(self._parts.sides.host(side).qemu_log(self._parts.guest.name), lines=MOST_WORDS)
