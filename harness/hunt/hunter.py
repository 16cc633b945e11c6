# SPDX-License-Identifier: GPL-2.0-or-later
"""The hunt itself: draw, choose, run, tell new from known, make smaller, keep.

    hunt = Hunt(folder, space, runner, identity, seed=1, jobs=1, say=print)
    report = hunt.go()

Draws come in batches.  Of each batch those are run of which most has not met before; which those are depends
on the seed and on what was chosen before, not on time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Protocol

from hypothesis.database import DirectoryBasedExampleDatabase

from harness.hunt import drawing
from harness.hunt.coverage import Coverage, CoverageReport, features, keys_drawn
from harness.hunt.drawing import Drawn, DrawSpace
from harness.hunt.ending import RunEnding
from harness.hunt.folder import HuntFolder, HuntRow
from harness.hunt.known import KnownFailure, described_failures, explanation, found_failure
from harness.hunt.lines import CodeReport
from harness.hunt.parts import needed_parts
from harness.hunt.refusals import Refusals
from harness.hunt.running import RunDone, TimeIsUp

#: Scenarios of a batch, and how many of them are run.
BATCH: Final = 48
RUN_OF_BATCH: Final = 8
#: Runs that it may take to make one failure smaller.
MOST_SHRINKING: Final = 120
#: So many batches in a row without anything to run end a hunt: all was drawn.
MOST_EMPTY: Final = 10
#: So many runs in a row that end with an error of the machinery's end it as well.
MOST_ERRORS: Final = 5


class ScenarioRunner(Protocol):
    """Who runs scenarios: :class:`harness.hunt.running.Runner`."""

    def run(self, drawn: Drawn, seed: int) -> RunDone:
        """Run one.  Raises :class:`TimeIsUp`."""

    def drop(self, done: RunDone) -> None:
        """Remove a run folder."""

    def end_all(self) -> None:
        """End what runs."""


@dataclass(frozen=True, slots=True)
class FoundFailure:
    """A failure that was not known."""

    signature: str
    text: str
    file: str
    """The scenario that replays it."""
    smallest: bool
    """Whether every part of it is needed; False: time was up before that was known."""
    repeats: str
    """How often it came, of how many runs of the smallest scenario."""
    runs: int
    """Runs that the hunt had made when it met it."""


@dataclass(frozen=True, slots=True)
class HuntReport:
    """What came of a hunt."""

    seed: int
    qemu: str
    runs: int
    words: Mapping[str, int]
    """Runs by how they ended."""
    found: tuple[FoundFailure, ...]
    once: tuple[FoundFailure, ...]
    """Failures without a verdict that did not repeat."""
    known: Mapping[str, int]
    """Known failures that were met, by who describes them."""
    refused: Mapping[str, int]
    """Why draws were refused."""
    errors: Mapping[str, int]
    """Errors of the machinery's, by what tells them apart."""
    coverage: CoverageReport
    ended: str
    """Why it ended."""
    broken: bool = False
    """Whether the machinery ended it."""
    code: CodeReport | None = None
    """Which lines of QEMU were reached; None: they were not counted."""

    def document(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)


@dataclass(slots=True)
class _Tally:
    """What a hunt counts."""

    runs: int = 0
    words: Counter[str] = field(default_factory=Counter)
    known: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    found: list[FoundFailure] = field(default_factory=list)
    once: list[FoundFailure] = field(default_factory=list)
    errors_in_a_row: int = 0


class _Broken(Exception):  # noqa: N818 - it says what has happened
    """The machinery does not work: run after run ends with an error of its own."""


class Hunt:
    """One hunt.

    ``identity``: of the QEMUs that are hunted in; ``label`` is what people call them.  ``until_found``: the
    first failure that is not known ends it.  ``batch``: so many scenarios are drawn at a time.
    """

    def __init__(
        self,
        folder: HuntFolder,
        space: DrawSpace,
        runner: ScenarioRunner,
        identity: str,
        *,
        seed: int,
        jobs: int = 1,
        label: str = "",
        until_found: bool = False,
        batch: int = BATCH,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._folder = folder
        self._space = space
        self._runner = runner
        self._identity = identity
        self._seed = seed
        self._jobs = jobs
        self._label = label or identity
        self._until_found = until_found
        self._batch = batch
        self._say = say
        self._tally = _Tally()
        self._coverage = Coverage()
        self._database = DirectoryBasedExampleDatabase(folder.examples(space))
        self._memory: dict[str, HuntRow] = {}
        self._refusals = Refusals()
        self._known: list[KnownFailure] = list(described_failures(patched="info" in space.arms))
        for row in folder.rows():
            self._remember(row)

    def _remember(self, row: HuntRow) -> None:
        if row.kept:
            self._known.append(found_failure(row.tree, row.signature, row.kept))
        if row.qemu != self._identity:
            return
        self._memory[row.scenario] = row
        self._coverage.add(row.tree)
        self._learn(row)

    def _learn(self, row: HuntRow) -> None:
        if row.word == "refused":
            self._refusals.refused(row.signature, features(row.tree))
        elif row.word != "error":  # of which nobody knows what QEMU would have said
            self._refusals.taken(features(row.tree))

    def go(self) -> HuntReport:
        """Hunt until time is up, somebody interrupts, or there is nothing left to draw."""
        broken = False
        try:
            ended = self._hunt()
        except TimeIsUp:
            ended = "time is up"
        except KeyboardInterrupt:
            ended = "interrupted"
        except _Broken as error:
            ended, broken = str(error), True
        finally:
            self._runner.end_all()
        tally = self._tally
        return HuntReport(
            self._seed,
            self._label,
            tally.runs,
            dict(tally.words),
            tuple(tally.found),
            tuple(tally.once),
            dict(tally.known),
            dict(tally.refused),
            dict(tally.errors),
            self._coverage.report(keys_drawn(self._space.arms, self._space.allows)),
            ended,
            broken,
        )

    def _hunt(self) -> str:
        drawing.kept_examples(self._space, self._database, self._kept_fails)
        batch = empty = 0
        while empty < MOST_EMPTY:
            number = batch_seed(self._seed, batch)
            drawn = drawing.draw(self._space, number, self._batch)
            chosen = self._choose(drawn)
            empty = 0 if chosen else empty + 1
            for one, done in self._run_all(chosen, number):
                self._settle(one, number, done)
                if self._until_found and self._tally.found:
                    return "something was found"
            batch += 1
        return "nothing new is drawn any more"

    def _kept_fails(self, drawn: Drawn) -> bool:
        """Of an example that another hunt has kept: whether this QEMU fails by it as well."""
        row = self._memory.get(drawn.identity)
        if row is None and not self._is_refused(drawn):
            self._settle(drawn, None, self._run(drawn, self._seed))
            row = self._memory.get(drawn.identity)
        return row is not None and row.word == "failed"

    def _is_refused(self, drawn: Drawn) -> bool:
        """Whether it would be refused, as others were before."""
        return self._refusals.explain(features(drawn.tree))

    def _choose(self, drawn: Sequence[Drawn]) -> list[Drawn]:
        """Those of a batch with most that is seldom; each counts as met once it is chosen."""
        left = {one.identity: one for one in drawn if one.identity not in self._memory}
        chosen: list[Drawn] = []
        while left and len(chosen) < RUN_OF_BATCH:
            best = max(left.values(), key=lambda one: self._coverage.rarity(one.tree))
            del left[best.identity]
            if not self._is_refused(best):
                chosen.append(best)
                self._coverage.add(best.tree)
        return chosen

    def _settle(self, drawn: Drawn, number: int | None, done: RunDone) -> None:
        if done.ending.word == "failed":
            self._failed(drawn, number, done)
        else:
            self._runner.drop(done)

    def _run_all(self, chosen: Sequence[Drawn], number: int) -> Iterator[tuple[Drawn, RunDone]]:
        """Run them in their order, so many at a time: with one, the next begins when this is dealt with."""
        if self._jobs == 1:
            for one in chosen:
                yield one, self._run(one, number)
            return
        seed = scenario_seed(number)
        with ThreadPoolExecutor(self._jobs, "hunt") as pool:
            futures = [(one, pool.submit(self._runner.run, one, seed)) for one in chosen]
            ended: list[tuple[Drawn, RunDone]] = []
            try:
                for one, future in futures:
                    done = future.result()
                    self._note(one, seed, done)
                    ended.append((one, done))
            except BaseException:
                self._runner.end_all()
                pool.shutdown(cancel_futures=True)
                for one, done in ended:
                    if done.ending.word == "failed":
                        self._unsettled(one, number, done)
                raise
        yield from ended

    def _unsettled(self, drawn: Drawn, number: int, done: RunDone) -> None:
        """A failure for which there is no time any more."""
        if explanation(self._known, drawn.tree, done.ending.signature, done.accelerator) is None:
            self._keep(drawn, number, done, "once, and time was up", self._tally.runs, smallest=False)

    def _run(self, drawn: Drawn, number: int) -> RunDone:
        done = self._runner.run(drawn, scenario_seed(number))
        self._note(drawn, scenario_seed(number), done)
        return done

    def _note(self, drawn: Drawn, seed: int, done: RunDone, kept: str = "") -> HuntRow:
        ending = done.ending
        row = HuntRow(
            self._identity,
            drawn.identity,
            seed,
            ending.word,
            ending.signature,
            ending.text,
            round(done.seconds, 1),
            kept,
        )
        self._tally.runs += 1
        self._tally.words[ending.word] += 1
        self._say(f"{ending.word:12} {done.seconds:4.0f} s  {_short(drawn)}")
        if ending.word != "right" and ending.text:
            self._say(f"             {ending.text.splitlines()[0][:200]}")
        if ending.word == "cut":
            return row
        self._folder.append(row)
        self._memory[row.scenario] = row
        if ending.word == "refused":
            self._tally.refused[ending.signature] += 1
        self._learn(row)
        self._count_errors(ending)
        return row

    def _count_errors(self, ending: RunEnding) -> None:
        tally = self._tally
        if ending.word != "error":
            tally.errors_in_a_row = 0
            return
        tally.errors[ending.signature] += 1
        tally.errors_in_a_row += 1
        if tally.errors_in_a_row >= MOST_ERRORS:
            raise _Broken(f"{MOST_ERRORS} runs in a row ended with an error of the machinery: {ending.text}")

    def _failed(self, drawn: Drawn, number: int | None, done: RunDone) -> None:
        """A run has failed: known, or new; the new one is made smaller and kept."""
        ending = done.ending
        known = explanation(self._known, drawn.tree, ending.signature, done.accelerator)
        if known is not None:
            self._tally.known[known.where] += 1
            self._runner.drop(done)
            return
        met_at = self._tally.runs
        # From a kept example there is no seed by which Hypothesis could draw it again.
        seed = self._seed if number is None else number
        smallest, keep, sure = drawn, done, False
        try:
            again = self._run(drawn, seed)
            repeats = again.ending.signature == ending.signature
            if repeats:
                self._runner.drop(again)
                smallest, keep, sure = self._smaller(drawn, number, seed, done)
            elif again.ending.word == "failed":
                self._failed(drawn, number, again)
            else:
                self._runner.drop(again)
        except (TimeIsUp, KeyboardInterrupt):
            # Whoever ends a hunt wants to see what it has met.
            self._keep(smallest, seed, keep, "once, and time was up", met_at, smallest=False)
            raise
        words = "each time" if repeats else "1 of 2"
        self._keep(smallest, seed, keep, words, met_at, smallest=sure)

    def _smaller(
        self, drawn: Drawn, number: int | None, seed: int, done: RunDone
    ) -> tuple[Drawn, RunDone, bool]:
        """The smallest scenario that fails in the same way, its run, and whether each part is needed."""
        failing: dict[str, tuple[Drawn, RunDone]] = {drawn.identity: (drawn, done)}
        tried: set[str] = set()
        left = MOST_SHRINKING

        def fails(one: Drawn) -> bool:
            nonlocal left
            if one.identity in failing:
                return True
            row = self._memory.get(one.identity)
            if one.identity in tried or self._is_refused(one) or (row is not None and row.word != "failed"):
                return False
            if left <= 0:
                return False
            left -= 1
            tried.add(one.identity)
            ended = self._run(one, seed)
            if ended.ending.signature != done.ending.signature:
                self._runner.drop(ended)
                return False
            failing[one.identity] = one, ended
            return True

        try:
            start = drawn
            if number is not None:
                start = drawing.shrink(self._space, number, self._batch, drawn, fails, self._database)
            tree = needed_parts(start.tree, lambda one: fails(Drawn(one)), drawing.valid)
            smallest = Drawn(tree).identity
        except TimeIsUp:
            self._say("             time is up: it is kept as small as it is")
            smallest, left = min(failing, key=len), 0
        for identity, (_, ended) in failing.items():
            if identity != smallest:
                self._runner.drop(ended)
        return (*failing[smallest], left > 0)

    def _keep(
        self, drawn: Drawn, seed: int, done: RunDone, repeats: str, met_at: int, *, smallest: bool
    ) -> None:
        ending = done.ending
        words = {"QEMU": done.version or self._label, "came": repeats}
        file = self._folder.keep(drawn, scenario_seed(seed), ending, words, done.folder)
        found = FoundFailure(ending.signature, ending.text, str(file), smallest, repeats, met_at)
        if ending.certain or repeats == "each time":
            self._tally.found.append(found)
            self._say(f"FOUND        {ending.signature}  {file}")
        else:
            self._tally.once.append(found)
        self._known.append(found_failure(drawn.tree, ending.signature, str(file)))
        row = HuntRow(
            self._identity,
            drawn.identity,
            scenario_seed(seed),
            ending.word,
            ending.signature,
            ending.text,
            round(done.seconds, 1),
            str(file),
        )
        self._folder.append(row)


def batch_seed(seed: int, batch: int) -> int:
    """What Hypothesis draws a batch from."""
    return seed * 1_000_003 + batch


def scenario_seed(number: int) -> int:
    """The seed of the runs of a batch: of what the guest's pages hold."""
    return number % (1 << 62)


def _short(drawn: Drawn) -> str:
    """A scenario on a line."""
    found = sorted(features(drawn.tree) - {f"guest.memory={drawing.DRAWN_MEMORY}"})
    text = " ".join(found)
    return text if len(text) <= 150 else f"{text[:147]}..."
