# SPDX-License-Identifier: GPL-2.0-or-later
"""What the scenario demands of the end of its last migration (``expect``), in every arm."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from harness.units import Percent, human_size
from harness.verdict.case import JudgeInput
from harness.verdict.context import Context
from harness.verdict.finding import Finding
from harness.verdict.outcome import MigrationOutcome
from harness.verdict.registry import rule


@dataclass(frozen=True, slots=True)
class MigrationNumbers:
    """What the last migration took, by QEMU's own count; times in milliseconds.

    ``total_ms`` is without what was held for the oracle.
    """

    passes: int
    syncs: int
    total_ms: int
    downtime_ms: int


@dataclass(frozen=True, slots=True)
class Convergence:
    """Whether the last migration came to its switch-over, and if not, why its run says so."""

    reached: bool
    words: str = ""


@dataclass(frozen=True, slots=True)
class FreeMemory:
    """Bytes that the guest's kernel has free: before the first migration, and in the end."""

    before: int
    after: int


@rule(
    "expectation",
    {"rounds-max": "more passes over memory than `expect.rounds_max`"},
    needs=(MigrationNumbers,),
)
def rounds_max(case: JudgeInput, context: Context) -> Iterator[Finding]:
    """Passes of the last migration."""
    most, passes = case.expect.rounds_max, context.fact(MigrationNumbers).passes
    if most is not None and passes > most:
        text = f"the migration made {passes} passes over memory, expected at most {most}"
        yield _finding("rounds-max", text)


@rule("expectation", {"syncs-max": "more bitmap syncs than `expect.syncs_max`"}, needs=(MigrationNumbers,))
def syncs_max(case: JudgeInput, context: Context) -> Iterator[Finding]:
    """Bitmap syncs of the last migration."""
    most, syncs = case.expect.syncs_max, context.fact(MigrationNumbers).syncs
    if most is not None and syncs > most:
        yield _finding("syncs-max", f"QEMU synchronised its bitmap {syncs} times, expected at most {most}")


@rule(
    "expectation",
    {"total-ms-max": "the migration took longer than `expect.total_ms_max`"},
    needs=(MigrationNumbers,),
)
def total_ms_max(case: JudgeInput, context: Context) -> Iterator[Finding]:
    """From start to completion."""
    most, took = case.expect.total_ms_max, context.fact(MigrationNumbers).total_ms
    if most is not None and took > most:
        yield _finding("total-ms-max", f"the migration took {took} ms, expected at most {most}")


@rule(
    "expectation",
    {"downtime-ms-max": "the guest was down for longer than `expect.downtime_ms_max`"},
    needs=(MigrationNumbers,),
)
def downtime_ms_max(case: JudgeInput, context: Context) -> Iterator[Finding]:
    """At switch-over."""
    most, down = case.expect.downtime_ms_max, context.fact(MigrationNumbers).downtime_ms
    if most is not None and down > most:
        yield _finding("downtime-ms-max", f"the guest was down for {down} ms, expected at most {most}")


@rule(
    "expectation",
    {"converged": "the migration does not come to its switch-over in its time (`expect.converged`)"},
    needs=(Convergence,),
)
def converged(case: JudgeInput, context: Context) -> Iterator[Finding]:
    """What QEMU still has to send must once fit into the down time."""
    convergence = context.fact(Convergence)
    if case.expect.converged and not convergence.reached:
        yield _finding("converged", f"the migration does not converge: {convergence.words}")


@rule(
    "expectation",
    {"status": "the source's QEMU ends with another word than `expect.status`"},
    needs=(MigrationOutcome,),
)
def status(case: JudgeInput, context: Context) -> Iterator[Finding]:
    """QEMU's own last word."""
    wanted, said = case.expect.status, context.fact(MigrationOutcome).source.status
    if wanted is not None and said != wanted:
        yield _finding("status", f"the source's QEMU ends with {said!r}, expected {wanted!r}")


@rule(
    "expectation",
    {"statuses": "the source's QEMU has not had the statuses of `expect.statuses`, in their order"},
    needs=(MigrationOutcome,),
)
def statuses(case: JudgeInput, context: Context) -> Iterator[Finding]:
    """What QEMU did on its way, by its own word."""
    had = context.fact(MigrationOutcome).source.statuses
    rest = iter(had)
    missing = next((wanted for wanted in case.expect.statuses if wanted not in rest), None)
    if missing is not None:
        words = ", ".join(had) or "nothing"
        yield _finding("statuses", f"the source's QEMU was {words}, and has not been {missing!r} in its turn")


@rule(
    "expectation",
    {"qemu-says": "neither QEMU has written to its log what `expect.qemu_says` has"},
    needs=(MigrationOutcome,),
)
def qemu_says(case: JudgeInput, context: Context) -> Iterator[Finding]:
    """What QEMU tells whoever reads its log."""
    lines = [line for account in context.fact(MigrationOutcome).sides for line in account.last_words]
    for words in case.expect.qemu_says:
        if not any(words in line for line in lines):
            yield _finding("qemu-says", f"no QEMU has said {words!r}")


@rule(
    "expectation",
    {"qemu-says-not": "a QEMU has written to its log what `expect.qemu_says_not` has"},
    needs=(MigrationOutcome,),
)
def qemu_says_not(case: JudgeInput, context: Context) -> Iterator[Finding]:
    """An error that is none."""
    for account in context.fact(MigrationOutcome).sides:
        said = [line for line in account.last_words if any(one in line for one in case.expect.qemu_says_not)]
        if said:
            yield _finding("qemu-says-not", f"the {account.side}'s QEMU says: {said[0]}")


@rule(
    "expectation",
    {"runs-on": "the guest runs elsewhere than `expect.runs_on` in the end"},
    needs=(MigrationOutcome,),
)
def runs_on(case: JudgeInput, context: Context) -> Iterator[Finding]:
    """Which QEMU runs the guest."""
    wanted, outcome = case.expect.runs_on, context.fact(MigrationOutcome)
    there = [account.side for account in outcome.sides if account.runs]
    if wanted is not None and there != [wanted]:
        where = " and ".join(there) or "nowhere"
        yield _finding("runs-on", f"the guest runs on {where} in the end, expected on {wanted}")


@rule(
    "expectation",
    {"guest-free-min": "the guest has less free memory in the end than `expect.guest_free_min`"},
    needs=(FreeMemory,),
)
def guest_free_min(case: JudgeInput, context: Context) -> Iterator[Finding]:
    """What the guest has not got back, it has lost to the migration."""
    wanted, free = case.expect.guest_free_min, context.fact(FreeMemory)
    if wanted is None:
        return
    least = wanted.of(free.before) if isinstance(wanted, Percent) else int(wanted)
    if free.after < least:
        text = (
            f"the guest has {human_size(free.after)} free in the end, of {human_size(free.before)} before; "
            f"expected at least {human_size(least)}"
        )
        yield _finding("guest-free-min", text)


def _finding(name: str, text: str) -> Finding:
    return Finding(name, "expectation", text)
