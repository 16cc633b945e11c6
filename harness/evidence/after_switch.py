# SPDX-License-Identifier: GPL-2.0-or-later
"""Pages of a guest that ran on its new host while they were still arriving: what can be told of each.

The source holds what the guest had when it was let go; the destination what it has
made of it since.  A page that differs was written there, or has arrived wrong.  Of
the workload's pages the formula tells which: their content leads back to the step
that wrote it, and steps only go up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from harness.memory import formula
from harness.memory.access import Image, PageNumbers
from harness.memory.digest import page_marks
from harness.memory.formula import WORDS_PER_PAGE, Words
from harness.memory.image import Flags, RamImage
from harness.scenario.resolve import ResolvedScenario

#: Written by the workload on the destination, in a step that came after all that the source has seen.
WRITTEN: Final = "written-since-switch"
#: No page of the workload's: the guest's kernel wrote it, or it has arrived wrong.
UNDECIDED: Final = "undecided-since-switch"

#: So many of a workload's steps are known; what a later one wrote is undecided.
MOST_STEPS: Final = 100_000

#: In place of a step, and of a page's number: no step of the workload has written it.
NO_STEP: Final = -1

#: Pages that are looked at together.
_AT_ONCE: Final = 256


@dataclass(frozen=True, eq=False)
class SinceSwitch:
    """Of one block.  ``named``: pages that differ for a reason; ``lost``: the workload's that have none."""

    named: Mapping[int, str]
    lost: Flags


@dataclass(frozen=True, eq=False)
class WrittenPages:
    """By row: the step of the workload that wrote a page, and the page's number in the workload."""

    step: npt.NDArray[np.int64]
    page: npt.NDArray[np.int64]


class WorkloadSteps:
    """Which step of the workload wrote a page, by what it holds."""

    def __init__(self, resolved: ResolvedScenario) -> None:
        workload = resolved.scenario.workload
        pages, steps = workload.writes(resolved.seed, resolved.noise_bytes, MOST_STEPS)
        keys = formula.keys(workload.content_seed(resolved.seed), pages, steps)
        order = np.argsort(keys)
        self._keys = keys[order]
        self._steps, self._pages = steps[order].astype(np.int64), pages[order].astype(np.int64)
        #: Whether it gives pages up, which others may then have.
        self.frees = workload.frees

    def by_first_word(self, firsts: Words) -> WrittenPages:
        """By a page's first word alone; NO_STEP where no step wrote it."""
        if not len(self._keys):
            nothing = np.full(len(firsts), NO_STEP, dtype=np.int64)
            return WrittenPages(nothing, nothing)
        keys = formula.keys_of(firsts)
        places = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        known = self._keys[places] == keys
        return WrittenPages(
            np.where(known, self._steps[places], NO_STEP), np.where(known, self._pages[places], NO_STEP)
        )

    def of(self, contents: Words) -> WrittenPages:
        """By all that a page holds, a row of words each."""
        whole, found = formula.follows(contents), self.by_first_word(contents[:, 0])
        return WrittenPages(np.where(whole, found.step, NO_STEP), np.where(whole, found.page, NO_STEP))


def last_step(images: Mapping[str, Image], steps: WorkloadSteps) -> int:
    """The latest step of which the source has seen anything."""
    found = [NO_STEP]
    for image in images.values():
        if isinstance(image, RamImage):
            _, firsts = page_marks(image)
            found.append(int(steps.by_first_word(firsts).step.max(initial=NO_STEP)))
    return max(found)


def since_switch(
    source: Image, destination: Image, differing: PageNumbers, steps: WorkloadSteps, last: int
) -> SinceSwitch:
    """Tell the pages of a block that differ apart.  ``last``: the source's :func:`last_step`."""
    lost = np.zeros(source.pages, dtype=np.bool_)
    named = dict.fromkeys(differing.tolist(), UNDECIDED)
    if not (isinstance(source, RamImage) and isinstance(destination, RamImage)):
        return SinceSwitch(named, lost)
    for pages, before, after in _contents(source, destination, differing):
        was, now = steps.of(before), steps.of(after)
        written = (now.step >= last) & (now.step != NO_STEP)
        if not steps.frees:
            # What the workload had stays where it was.
            written &= (was.step == NO_STEP) | (was.page == now.page)
        written |= _torn(before, after, was, steps, last)
        bad = (now.step != NO_STEP) & ~written
        if not steps.frees:
            # A page that follows the formula and is in no step that is known: a step that came late.
            bad |= (was.step != NO_STEP) & (now.step == NO_STEP) & ~formula.follows(after) & ~written
        named.update(dict.fromkeys(pages[written].tolist(), WRITTEN))
        for page in pages[bad].tolist():
            del named[page]
        lost[pages[bad]] = True
    return SinceSwitch(named, lost)


def _torn(before: Words, after: Words, was: WrittenPages, steps: WorkloadSteps, last: int) -> Flags:
    """Which pages the workload was writing when the guest was stopped: new at the front, older behind.

    What is behind is the source's, or of a step that came since the switch as well.
    """
    found = np.zeros(len(before), dtype=np.bool_)
    begun = steps.by_first_word(after[:, 0])
    for row in np.flatnonzero((was.page == begun.page) & (begun.step >= max(last, 0))).tolist():
        new = formula.words_of(after[row, 0]) == after[row]
        front = WORDS_PER_PAGE if new.all() else int(np.argmin(new))
        if front < WORDS_PER_PAGE and not (after[row, front:] == before[row, front:]).all():
            older = formula.page_with(after[row, front], front)
            step = steps.by_first_word(older[:1])
            known = step.page[0] == begun.page[row] and last <= step.step[0] < begun.step[row]
            found[row] = bool(known and (after[row, front:] == older[front:]).all())
        else:
            found[row] = True
    return found


def _contents(
    source: RamImage, destination: RamImage, differing: PageNumbers
) -> Iterator[tuple[PageNumbers, Words, Words]]:
    """The pages that differ, some at a time, with what both sides hold there."""
    for pages in np.split(differing, range(_AT_ONCE, len(differing), _AT_ONCE)):
        if len(pages):
            before, after = (
                np.concatenate([image.read(page, 1).copy() for page in pages.tolist()])
                for image in (source, destination)
            )
            yield pages, before, after
