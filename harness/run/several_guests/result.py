# SPDX-License-Identifier: GPL-2.0-or-later
"""The result of a run with several guests, from each guest's own.  Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, TypeVar

from harness.report.guests import GuestEnd, Guests
from harness.report.judged_pages import WRONG_PAGES, Pages
from harness.report.migration import Bytes, Protocol, Time
from harness.report.part import Part
from harness.report.result import GuestReport, Result
from harness.run.several_guests.jobs import GuestJob, common_ms
from harness.scenario.expectations import VerdictWord

_Whole = TypeVar("_Whole", bound=Part)

#: The first of these that a guest has is the run's.
_GRAVITY: Final[tuple[VerdictWord, ...]] = ("fail", "inconclusive", "pass")


def of_guest(result: Result, guest: int) -> Result:
    """A guest's own result: what was found names it."""
    return result.model_copy(
        update={
            "findings": [one.model_copy(update={"guest": guest}) for one in result.findings],
            "wrong_pages": [one.model_copy(update={"guest": guest}) for one in result.wrong_pages],
        }
    )


def of_all(
    results: Sequence[Result],
    jobs: Sequence[GuestJob],
    moves: int,
    *,
    seed: int,
    replay: str,
    folder: str,
    phases: Mapping[str, float],
) -> Result:
    """The run's result, from the guests' ``results``, in order.

    ``jobs``: when each was under way; ``phases``: of the run as a whole.
    What counts pages or bytes is the sum, what measures time the longest; what cannot be added is null, and
    stands in each guest's own result.
    """
    together = common_ms(jobs, len(results), moves)
    verdict, reason = _verdict(results, together)
    first = results[0]
    return Result(
        verdict=verdict,
        reason=reason,
        expected=first.expected,
        expected_rule=first.expected_rule,
        scenario=first.scenario,
        arm=first.arm,
        accelerator=first.accelerator,
        accelerator_reason=first.accelerator_reason,
        seed=seed,
        strict=first.strict,
        memory_bytes=first.memory_bytes,
        machine=first.machine,
        guests=Guests(
            together_ms=together,
            each=[_end(number, result, jobs) for number, result in enumerate(results, 1)],
        ),
        pages=_pages([result.pages for result in results]),
        findings=[
            one.model_copy(update={"text": f"guest {one.guest}: {one.text}"})
            for result in results
            for one in result.findings
        ],
        wrong_pages=_first_of_each([result.wrong_pages for result in results], WRONG_PAGES),
        observed=dict(sum((Counter(result.observed) for result in results), Counter())),
        not_compared=list({one.name: one for result in results for one in result.not_compared}.values()),
        protocol=_protocol([result.protocol for result in results]),
        bytes=_bytes([result.bytes for result in results]),
        time=_whole(Time, [result.time for result in results], max),
        rounds=max((result.rounds for result in results if result.rounds is not None), default=None),
        guest=_checks([result.guest for result in results]),
        phases=_longest([phases, *(result.phases for result in results)]),
        checks=_longest(result.checks for result in results),
        versions=first.versions,
        replay=replay,
        folder=folder,
    )


def _verdict(results: Sequence[Result], together: Sequence[int]) -> tuple[VerdictWord, str]:
    """The gravest of the guests'; guests that have not moved together have shown nothing of it."""
    by_word = {
        word: [number for number, result in enumerate(results, 1) if result.verdict == word]
        for word in _GRAVITY
    }
    apart = [str(move) for move, common in enumerate(together, 1) if not common]
    gravest = next(word for word in _GRAVITY if by_word[word])
    if gravest == "pass" and apart:
        of_moves = "" if len(together) == 1 else f" in move {', '.join(apart)}"
        return "inconclusive", f"the migrations of the guests were not all under way at one time{of_moves}"
    if gravest == "pass":
        pages = _pages([result.pages for result in results])
        words = f"{pages.total} pages of {len(results)} guests are right: {pages.equal} equal"
        return "pass", f"all {words}, {pages.skipped} skipped; all moved together for {min(together)} ms"
    number = by_word[gravest][0]
    others = [f"{len(by_word[word])} {word}" for word in _GRAVITY if by_word[word]]
    words = f"{len(results)} guests: {', '.join(others)}"
    return gravest, f"guest {number}: {results[number - 1].reason} ({words})"


def _end(guest: int, result: Result, jobs: Iterable[GuestJob]) -> GuestEnd:
    own = sorted((job for job in jobs if job.guest == guest), key=lambda job: job.move)
    time = result.time
    return GuestEnd(
        guest=guest,
        verdict=result.verdict,
        reason=result.reason,
        seed=result.seed,
        folder=folder_of(guest),
        skipped=result.pages.skipped,
        sent=None if result.bytes is None else result.bytes.sent,
        total_ms=None if time is None else time.total_ms,
        downtime_ms=None if time is None else time.downtime_ms,
        under_way=[(round(job.began, 3), None if job.ended is None else round(job.ended, 3)) for job in own],
    )


def folder_of(guest: int) -> str:
    """The name of a guest's folder, in the run's."""
    return f"guest-{guest}"


def _whole(
    kind: type[_Whole], parts: Sequence[_Whole | None], add: Callable[[Iterable[int]], int]
) -> _Whole | None:
    """Numbers of the same names, put together one by one; null unless each guest has them."""
    there = [part for part in parts if part is not None]
    if len(there) < len(parts):
        return None
    return kind(**{name: add([getattr(part, name) for part in there]) for name in kind.model_fields})


def _pages(parts: Sequence[Pages]) -> Pages:
    total, skipped = sum(part.total for part in parts), sum(part.skipped for part in parts)
    return Pages(
        total=total,
        equal=sum(part.equal for part in parts),
        skipped=skipped,
        explained=dict(sum((Counter(part.explained) for part in parts), Counter())),
        wrong=sum(part.wrong for part in parts),
        skipped_percent=round(100 * skipped / total, 3) if total else 0.0,
    )


def _protocol(parts: Sequence[Protocol]) -> Protocol:
    counted = {name for name in Protocol.model_fields if name != "refused"}
    sums = {name: sum(getattr(part, name) for part in parts) for name in counted}
    return Protocol(refused="; ".join(dict.fromkeys(part.refused for part in parts if part.refused)), **sums)


def _bytes(parts: Sequence[Bytes | None]) -> Bytes | None:
    """Sums, where all guests' floors are by the same witness and of the same instant; else null."""
    there = [part for part in parts if part is not None]
    if len(there) < len(parts) or len({(part.floor_by, part.floor_at) for part in there}) > 1:
        return None
    names = ("sent", "full_pages", "zero_pages", "floor", "head", "rest")
    sums = {name: sum(getattr(part, name) for part in there) for name in names}
    return Bytes(
        floor_by=there[0].floor_by,
        floor_at=there[0].floor_at,
        sent_over_floor=round((sums["sent"] - sums["head"]) / sums["floor"], 4) if sums["floor"] else None,
        again=_sum(part.again for part in there),
        unreported=_sum(part.unreported for part in there),
        **sums,
    )


def _sum(numbers: Iterable[int | None]) -> int | None:
    found = list(numbers)
    known = [number for number in found if number is not None]
    return sum(known) if len(known) == len(found) else None


def _checks(parts: Sequence[GuestReport]) -> GuestReport:
    """The guests' own checks; what one of them has not made is null."""
    matches = [part.checksum_matches for part in parts]
    warnings = [part.kernel_warnings for part in parts]
    return GuestReport(
        verify_pages=_sum(part.verify_pages for part in parts),
        verify_bad=_sum(part.verify_bad for part in parts),
        checksum_matches=None if None in matches else all(matches),
        exercise_pages=_sum(part.exercise_pages for part in parts),
        exercise_bad=_sum(part.exercise_bad for part in parts),
        kernel_warnings=None if None in warnings else [line for found in warnings for line in found or ()],
    )


def _first_of_each(lists: Sequence[list[_Whole]], most: int) -> list[_Whole]:
    """So many of them at most, of each guest as many as of the others where it has them."""
    longest = max(map(len, lists), default=0)
    return [one[at] for at in range(longest) for one in lists if at < len(one)][:most]


def _longest(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """By name, of the guest that took longest."""
    found: dict[str, float] = {}
    for part in parts:
        for name, seconds in part.items():
            found[name] = max(round(seconds, 4), found.get(name, 0.0))
    return found
