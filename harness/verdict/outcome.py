# SPDX-License-Identifier: GPL-2.0-or-later
"""How a migration ended, by both QEMUs' own words and by what became of their processes.

A migration is wrong as a whole when both QEMUs run the guest, when none does,
when a QEMU crashes, or when the two sides say different things about its end.
None of that shows in memory.  The facts are gathered in
:mod:`harness.evidence.outcomes`; the rules are here, and pure.

A guest runs on a QEMU between RESUME and STOP.  Both QEMUs of a lab stamp their
events with the same clock, so an overlap is a fact, and no matter of the order
in which the events reached us.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from harness.verdict.finding import Finding

KIND: Final = "outcome"

#: Signals that a process brings upon itself; nobody sends them to end a QEMU.
CRASH_SIGNALS: Final = frozenset(
    {"SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE", "SIGTRAP", "SIGSYS", "SIGQUIT"}
)

#: What a QEMU says that does not take a part of the stream (migration/savevm.c).
_REFUSAL: Final = "rror while loading state"

#: What a QEMU says that was asked to end by a signal (system/runstate.c): libvirt ends one that failed.
_ASKED: Final = "terminating on signal"

#: A guest cannot run on both sides for less than the clock's own resolution.
_INSTANT: Final = 1e-6

Ending = Literal["completed", "cancelled", "failed"]


@dataclass(frozen=True, slots=True)
class ProcessEnd:
    """How a process ended: by a signal, or with an exit status."""

    status: int | None = None
    signal: str | None = None

    def __str__(self) -> str:
        return self.signal if self.signal is not None else f"exit status {self.status}"


@dataclass(frozen=True, slots=True)
class QemuAccount:
    """What one QEMU said and did during a migration.

    ``statuses`` are those of its MIGRATION events, in order; ``running`` are the
    spans in seconds, of any clock that both sides share, in which it ran the
    guest (None: until now); ``completed`` the instant at which it said so;
    ``reports`` what a sanitizer or a failed assertion printed; ``end`` how its
    process ended (None: it goes on, or nobody knows).
    """

    side: str
    statuses: tuple[str, ...] = ()
    running: tuple[tuple[float, float | None], ...] = ()
    reports: tuple[str, ...] = ()
    end: ProcessEnd | None = None
    last_words: tuple[str, ...] = ()
    completed: float | None = None

    @property
    def status(self) -> str | None:
        """Its last word on the migration; None: it said nothing."""
        return self.statuses[-1] if self.statuses else None

    @property
    def runs(self) -> bool:
        """Whether it runs the guest now."""
        return bool(self.running) and self.running[-1][1] is None and self.end is None


@dataclass(frozen=True, slots=True)
class MigrationOutcome:
    """The end of one migration.

    ``ending`` is what libvirt and the run took it for.  ``cancelled``: somebody
    asked QEMU to give it up.  ``stands_still``: the scenario left the guest stopped.
    ``unasked``: sides whose QEMU ended, though nobody had asked it to.  ``by_file``: the guest went
    through a file, so that for the source it was over when that was written.
    """

    ending: Ending
    source: QemuAccount
    destination: QemuAccount
    cancelled: bool = False
    stands_still: bool = False
    unasked: frozenset[str] = frozenset()
    by_file: bool = False

    @property
    def sides(self) -> tuple[QemuAccount, QemuAccount]:
        """Source and destination."""
        return self.source, self.destination


def outcome_findings(outcome: MigrationOutcome) -> list[Finding]:
    """Everything that is wrong with how a migration ended."""
    return [
        *_both_run(outcome),
        *_none_runs(outcome),
        *_ends(outcome),
        *_disagreements(outcome),
    ]


def overlap(outcome: MigrationOutcome) -> float:
    """For how many seconds both QEMUs ran the guest at once; infinite while they still do."""
    total = 0.0
    for begin, end in outcome.source.running:
        for other_begin, other_end in outcome.destination.running:
            first = max(begin, other_begin)
            last = min(_end(end), _end(other_end))
            total += max(0.0, last - first)
    return total


def _end(instant: float | None) -> float:
    return float("inf") if instant is None else instant


def after_completion(account: QemuAccount) -> float:
    """For how many seconds a source ran the guest after it had said that the guest has moved."""
    if account.completed is None:
        return 0.0
    return sum(max(0.0, _end(end) - max(begin, account.completed)) for begin, end in account.running)


def _both_run(outcome: MigrationOutcome) -> Iterator[Finding]:
    seconds = overlap(outcome)
    if seconds > _INSTANT:
        for_how_long = "and still do" if seconds == float("inf") else f"for {1000 * seconds:.1f} ms"
        yield Finding("two-run", KIND, f"both QEMUs ran the guest at once, {for_how_long}")
    elif not outcome.by_file and after_completion(outcome.source) > _INSTANT:
        # The destination, which has the whole guest, may only not have begun yet.
        yield Finding(
            "two-run", KIND, "the source's QEMU went on with a guest that had moved, by its own word"
        )


def _none_runs(outcome: MigrationOutcome) -> Iterator[Finding]:
    if outcome.stands_still or any(side.runs for side in outcome.sides):
        return
    yield Finding("none-runs", KIND, f"no QEMU runs the guest after the migration ended {outcome.ending}")


def _ends(outcome: MigrationOutcome) -> Iterator[Finding]:
    """QEMU's own words come first: they say what a reader wants to know."""
    for account in outcome.sides:
        end = account.end
        crashed = end is not None and end.signal in CRASH_SIGNALS
        said = (*account.reports, *account.last_words[-1:])
        words = f"{said[0]}: " if said else ""
        if crashed:
            yield Finding("qemu-crashed", KIND, f"{words}the {account.side}'s QEMU ended by {end}")
        elif account.reports:
            yield Finding("qemu-crashed", KIND, f"{words}so says the {account.side}'s QEMU of itself")
        elif account.side in outcome.unasked and not any(_ASKED in line for line in account.last_words):
            refusal = next((line for line in account.last_words if _REFUSAL in line), None)
            how = f"the {account.side}'s QEMU ended" + (f" with {end}" if end is not None else "")
            if account.side == "destination" and refusal is not None:
                yield Finding("destination-refused", KIND, f"{refusal}: {how}")
            else:
                yield Finding("qemu-ended", KIND, f"{words}{how}, which nobody had asked it to do")


def _disagreements(outcome: MigrationOutcome) -> Iterator[Finding]:
    source, destination = outcome.source.status, outcome.destination.status
    if outcome.ending == "completed":
        for account in outcome.sides:
            if account.status not in ("completed", None):
                text = f"the migration completed, but the {account.side}'s QEMU says {account.status!r}"
                yield Finding("status-disagrees", KIND, text)
        return
    # A destination that has the whole guest goes on with it, whatever the source says.
    if destination == "completed" and source != "completed":
        text = f"the destination's QEMU says 'completed', the source's {source!r}"
        yield Finding("status-disagrees", KIND, text)
    elif source == "completed" and not outcome.by_file:
        text = f"the migration ended {outcome.ending}, but the source's QEMU says 'completed'"
        yield Finding("status-disagrees", KIND, text)
    elif outcome.cancelled and source not in ("cancelled", None):
        text = f"the migration was cancelled, but the source's QEMU says {source!r}"
        yield Finding("status-disagrees", KIND, text)
