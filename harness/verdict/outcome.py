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

#: After these QEMU says no more of a migration.
_LAST_WORDS: Final[tuple[Literal["completed", "cancelled", "failed"], ...]] = (
    "completed",
    "cancelled",
    "failed",
)

#: A guest cannot run on both sides for less than the clock's own resolution.
_INSTANT: Final = 1e-6

#: ``unfinished``: the source's QEMU has begun, and says no last word.
Ending = Literal["completed", "cancelled", "failed", "unfinished"]


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
    ``switched`` the instant at which it first said that it is in postcopy;
    ``failed`` the instant at which it said that the migration failed;
    ``reports`` what a sanitizer or a failed assertion printed; ``end`` how its
    process ended, and ``ended`` when (None: it goes on, or nobody knows).
    """

    side: str
    statuses: tuple[str, ...] = ()
    running: tuple[tuple[float, float | None], ...] = ()
    reports: tuple[str, ...] = ()
    end: ProcessEnd | None = None
    last_words: tuple[str, ...] = ()
    completed: float | None = None
    ended: float | None = None
    core: str | None = None
    """Of one that crashed: where its core file is, or why there is none."""
    left: bool = False
    """The guest itself has ended, or reset, the machine."""
    switched: float | None = None
    failed: float | None = None

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

    ``moved``: libvirt, or who else drives the migration, takes the guest for moved.
    ``cancelled``: somebody asked QEMU to give it up.  ``stands_still``: the scenario
    left the guest stopped.  ``unasked``: sides whose QEMU ended, though nobody had
    asked it to.  ``by_file``: the guest went through a file, so that for the source it was
    over when that was written.  ``broken``: the scenario has broken the connection in
    postcopy.  ``switched``: it has asked for a switch to postcopy.  ``let_go``: it has let the
    guest run on the destination before the source was done.  ``told_to_end``: sides whose QEMU
    the scenario has told to end; ``unended``: those of them that have not.
    """

    source: QemuAccount
    destination: QemuAccount
    moved: bool = True
    cancelled: bool = False
    stands_still: bool = False
    unasked: frozenset[str] = frozenset()
    by_file: bool = False
    broken: bool = False
    switched: bool = False
    let_go: bool = False
    told_to_end: frozenset[str] = frozenset()
    unended: frozenset[str] = frozenset()

    @property
    def ending(self) -> Ending:
        """In a word how it ended, by QEMU's own last words, whatever else was asked or expected."""
        source, destination = self.source, self.destination
        # The source says "completed" of the file; whether that was read is the destination's affair.
        silent = self.by_file and source.status == "completed"
        # One that is told to end cancels its migration, and may have no time to say so.
        ends = "source" in self.told_to_end and not self.moved
        if ends and "completed" not in (source.status, destination.status):
            return "failed"
        for word in _LAST_WORDS:
            if source.status == word and not silent:
                return word
        if silent:
            return "completed" if self.moved else "failed"
        if source.statuses and source.end is None and destination.status != "failed":
            return "unfinished"
        # A source that has said nothing was never asked to migrate, or could not say.
        return "completed" if self.moved else "failed"

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
        *_breaks(outcome),
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


def after_completion(outcome: MigrationOutcome) -> float:
    """For how many seconds the source ran a guest that had moved, by its own word.

    In postcopy it says so before its memory has.  Not if the destination's QEMU had ended by
    then, which had not run it: the source is the only one that has the guest.
    """
    source, destination = outcome.source, outcome.destination
    moved = source.completed if source.switched is None else source.switched
    if moved is None:
        return 0.0
    lost = destination.ended if not destination.running else None
    return sum(
        max(0.0, _end(end) - max(begin, moved))
        for begin, end in source.running
        if lost is None or begin < lost
    )


def _both_run(outcome: MigrationOutcome) -> Iterator[Finding]:
    seconds = overlap(outcome)
    if seconds > _INSTANT:
        for_how_long = "and still do" if seconds == float("inf") else f"for {1000 * seconds:.1f} ms"
        yield Finding("two-run", KIND, f"both QEMUs ran the guest at once, {for_how_long}")
    elif not outcome.by_file and after_completion(outcome) > _INSTANT:
        # The destination, which has the whole guest, may only not have begun yet.
        yield Finding(
            "two-run", KIND, "the source's QEMU went on with a guest that had moved, by its own word"
        )


def _none_runs(outcome: MigrationOutcome) -> Iterator[Finding]:
    if "source" in outcome.told_to_end and not outcome.moved:
        return
    if outcome.stands_still or any(side.runs or side.left for side in outcome.sides):
        return
    yield Finding("none-runs", KIND, f"no QEMU runs the guest after the migration ended {outcome.ending!r}")


def _ends(outcome: MigrationOutcome) -> Iterator[Finding]:
    """QEMU's own words come first: they say what a reader wants to know."""
    for account in outcome.sides:
        end = account.end
        crashed = end is not None and end.signal in CRASH_SIGNALS
        said = (*account.reports, *account.last_words[-1:])
        words = f"{said[0]}: " if said else ""
        if crashed:
            core = f" ({account.core})" if account.core is not None else ""
            yield Finding("qemu-crashed", KIND, f"{words}the {account.side}'s QEMU ended by {end}{core}")
        elif account.reports:
            yield Finding("qemu-crashed", KIND, f"{words}so says the {account.side}'s QEMU of itself")
        elif account.side in outcome.unended:
            yield Finding("stuck", KIND, f"the {account.side}'s QEMU was told to end, and does not")
        elif account.side == "source" and "source" in outcome.told_to_end:
            if end is not None and end.status != 0:
                text = f"{words}the source's QEMU, which was told to end, ended with {end}"
                yield Finding("qemu-ended", KIND, text)
        elif account.side == "destination" and _follows(outcome):
            continue
        elif account.side in outcome.unasked and not any(_ASKED in line for line in account.last_words):
            refusal = next((line for line in account.last_words if _REFUSAL in line), None)
            how = f"the {account.side}'s QEMU ended" + (f" with {end}" if end is not None else "")
            if account.side == "destination" and refusal is not None:
                yield Finding("destination-refused", KIND, f"{refusal}: {how}")
            else:
                yield Finding("qemu-ended", KIND, f"{words}{how}, which nobody had asked it to do")


def _follows(outcome: MigrationOutcome) -> bool:
    """Whether the destination's QEMU ended since the source had given the migration up, by its own word.

    QEMU whose stream ends too early says that loading failed, and exits.  One that does not take
    the stream says so first.
    """
    source, destination = outcome.source, outcome.destination
    if source.failed is None or source.status != "failed":
        return False
    return destination.failed is not None and source.failed < destination.failed


def _breaks(outcome: MigrationOutcome) -> Iterator[Finding]:
    """A connection that nobody has broken does not break, and one side's postcopy is the other's."""
    paused = [account.side for account in outcome.sides if "postcopy-paused" in account.statuses]
    if paused and not outcome.broken:
        text = f"the migration broke in postcopy: the {' and the '.join(paused)} paused it, unasked"
        yield Finding("postcopy-broke", KIND, text)
    entered = {account.side: account.switched is not None for account in outcome.sides}
    if outcome.moved and len(set(entered.values())) > 1:
        side, other = ("source", "destination") if entered["source"] else ("destination", "source")
        text = f"the {side}'s QEMU was in postcopy, and the {other}'s never said so"
        yield Finding("status-disagrees", KIND, text)


def _disagreements(outcome: MigrationOutcome) -> Iterator[Finding]:
    source, destination = outcome.source.status, outcome.destination.status
    text = ""
    if destination == "completed" and source != "completed" and not (outcome.moved and source is None):
        # It goes on with the guest, whatever the source says.
        text = f"the destination's QEMU says 'completed', the source's {source!r}"
    elif source == "completed" and destination not in ("completed", None) and not outcome.by_file:
        text = f"the source's QEMU says 'completed', the destination's {destination!r}"
    elif outcome.moved and source not in ("completed", None):
        text = f"the guest has moved, but the source's QEMU says {source!r}"
    elif not outcome.moved and source == "completed" and not outcome.by_file:
        both = "both QEMUs say" if destination == "completed" else "the source's QEMU says"
        where = " and ".join(account.side for account in outcome.sides if account.runs) or "nowhere"
        text = f"{both} 'completed', but the migration was given up; the guest runs on {where}"
    elif outcome.cancelled and source not in ("cancelled", "completed", None):
        text = f"the migration was cancelled, but the source's QEMU says {source!r}"
    if text:
        yield Finding("status-disagrees", KIND, text)
