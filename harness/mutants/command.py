# SPDX-License-Identifier: GPL-2.0-or-later
"""``freepage faults mutate``: from the order to the report and the exit status."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from harness.errors import ExitCode, InputError
from harness.events import EventStream
from harness.hosts.signals import polite_signals
from harness.mutants.build import MutantBuilder
from harness.mutants.draw import Mutant, draw_mutants, mutants_of, narrowed
from harness.mutants.judged import JudgedMutant, counted, score
from harness.mutants.named import EquivalentMutant, equivalent_mutants, named_functions
from harness.mutants.search import MutantSearch
from harness.mutants.store import CONTROL, RunStore
from harness.suite.build import build_all_for
from harness.suite.expand import Expansion, SuiteRun, repeated
from harness.suite.load import load_suite
from harness.terminal import TerminalProgress
from harness.toolchain.cache import Cache
from harness.toolchain.qemu import TARGET

_SHOWN: Final = ("survived", "noticed", "open")


@dataclass(frozen=True, slots=True)
class MutationOrder:
    """What is asked.  ``timeout``: seconds, of one run.  ``only``: ids, in place of a draw."""

    seed: int
    count: int
    functions: Sequence[str] = ()
    suite: str = "battery"
    jobs: int = 1
    timeout: float = 300.0
    out: Path = Path("mutants")
    again: bool = False
    only: Sequence[str] = ()
    draw_only: bool = False


@dataclass(frozen=True, slots=True)
class MutationReport:
    """What came of each mutant.  ``suite``: against which they were run."""

    order: MutationOrder
    mutants: tuple[JudgedMutant, ...]

    def document(self) -> dict[str, object]:
        """As plain values, for ``--json``."""
        counts = counted(self.mutants)
        return {
            "version": 1,
            "seed": self.order.seed,
            "suite": self.order.suite,
            "counts": counts,
            "score_percent": score(counts),
            "mutants": [_entry(one) for one in self.mutants],
        }

    def lines(self, *, every: bool = False) -> list[str]:
        """For people: what was not caught (or every one) with its lines, then the numbers."""
        lines: list[str] = []
        for one in self.mutants:
            if every or one.word in _SHOWN:
                lines += [f"{one.word}  {one.mutant.id}  {one.mutant.where}"]
                lines += [f"    - {one.mutant.before}", f"    + {one.mutant.after}"]
                lines += [f"    {one.why}"] if one.why else []
        counts = counted(self.mutants)
        lines += ["", ", ".join(f"{number} {word}" for word, number in counts.items() if number)]
        percent = score(counts)
        if percent is not None:
            lines.append(f"caught {percent:g} % of those that were run and are not equivalent")
        return lines


def _entry(one: JudgedMutant) -> dict[str, object]:
    entry: dict[str, object] = {**dataclasses.asdict(one.mutant), "outcome": one.word}
    more = {"rule": one.rule, "scenario": one.scenario, "why": one.why, "run": one.folder}
    return (
        entry
        | {name: value or None for name, value in more.items()}
        | {
            "runs": one.runs,
            "seconds": one.seconds,
        }
    )


def mutate(order: MutationOrder) -> tuple[int, MutationReport]:
    """Draw, build, run; the exit status, and what came of each.

    Raises :class:`InputError` for functions that there are none of, and for what is wrong with the suite.
    """
    runs = _runs(order)
    events = EventStream()
    out = order.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    builder = MutantBuilder(Cache(None, events), events)
    known = equivalent_mutants()
    try:
        with FileLock(out / "lock", timeout=0), polite_signals(), TerminalProgress(events):
            named = narrowed(named_functions(), order.functions)
            texts = builder.original(out / "programs" / CONTROL / TARGET, named)
            mutants = _drawn(order, named, texts)
            store = RunStore(out, builder.key)

            def say(text: str) -> None:
                events.emit("message", text=f"mutate: {text}")

            if order.draw_only:
                return ExitCode.PASS, _report(order, mutants, known, {})
            prepared = build_all_for(runs, events, out)
            search = MutantSearch(
                builder, store, out, prepared.runs, timeout=order.timeout, again=order.again, say=say
            )
            wanted = [one for one in mutants if _why_equivalent(one, known) is None]
            judged = search.search(wanted, texts, order.jobs, lambda one: say(_told(one)))
    except Timeout:
        raise InputError(
            f"another search is at work in {out}", hint="give --out a folder of its own"
        ) from None
    report = _report(order, mutants, known, {one.mutant.id: one for one in judged})
    counts = counted(report.mutants)
    return (ExitCode.FAIL if counts["survived"] or counts["noticed"] else ExitCode.PASS), report


def _runs(order: MutationOrder) -> list[SuiteRun]:
    """The suite's runs, each once, but for those that name a QEMU of their own or a nested machine."""
    expanded = Expansion(load_suite(order.suite)).runs()
    runs = repeated(expanded, order.seed, 1)
    fit = [
        dataclasses.replace(run, optional=True)
        for run in runs
        if not run.nested and run.tools.source_qemu is None and run.tools.destination_qemu is None
    ]
    if not fit:
        raise InputError(f"the suite {order.suite} has no run with a QEMU of ours")
    return fit


def _drawn(
    order: MutationOrder,
    named: Mapping[str, Sequence[str]],
    texts: Mapping[str, str],
) -> list[Mutant]:
    found = [one for file, text in texts.items() for one in mutants_of(file, text, named[file])]
    if not found:
        raise InputError(
            f"no function of this QEMU is called so: {', '.join(order.functions)}",
            hint="a name or a pattern of harness/mutants/named.yaml, a file, or FILE:PATTERN",
        )
    if not order.only:
        return draw_mutants(found, order.seed, order.count)
    chosen = [one for one in found if one.id in order.only]
    missing = set(order.only) - {one.id for one in chosen}
    if missing:
        raise InputError(f"there is no mutant {', '.join(sorted(missing))} of this QEMU")
    return chosen


def _why_equivalent(mutant: Mutant, known: Sequence[EquivalentMutant]) -> str | None:
    return next((one.why for one in known if one.means(mutant)), None)


def _report(
    order: MutationOrder,
    mutants: Sequence[Mutant],
    known: Sequence[EquivalentMutant],
    judged: Mapping[str, JudgedMutant],
) -> MutationReport:
    rows: list[JudgedMutant] = []
    for mutant in mutants:
        why = _why_equivalent(mutant, known)
        if why is not None:
            rows.append(JudgedMutant(mutant, "equivalent", why=why))
        else:
            rows.append(judged.get(mutant.id, JudgedMutant(mutant, "open")))
    return MutationReport(order, tuple(rows))


def _told(one: JudgedMutant) -> str:
    by = f" by {one.rule} in {one.scenario}" if one.word == "caught" else f" {one.why}" if one.why else ""
    change = f"{one.mutant.before}  ->  {one.mutant.after}"
    return (
        f"{one.word} {one.mutant.id} {one.mutant.where}: {change}{by} ({one.runs} runs, {one.seconds:.0f} s)"
    )
