# SPDX-License-Identifier: GPL-2.0-or-later
"""The whole run as an argument: what is claimed, what each claim rests on, and what it leaves open.

for step in argument(case): step.claim, step.grounds
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from harness.explain.case import Case
from harness.explain.store import PAGES_FILE
from harness.memory.record import Request
from harness.units import human_size


@dataclass(frozen=True)
class ArgumentStep:
    """One claim, and the grounds for it."""

    claim: str
    grounds: list[str] = field(default_factory=list)


def argument(case: Case) -> list[ArgumentStep]:
    """Every step, in order; the last is what follows."""
    return [*_looked(case), *_equal(case), *_skipped(case), *_explained(case), *_wrong(case), *_guest(case),
            *_bytes(case), *_open(case), _therefore(case)]  # fmt: skip


def _looked(case: Case) -> Iterator[ArgumentStep]:
    pages, kept = case.result.pages, case.kept
    names = ", ".join(f"{name} ({one.block.pages})" for name, one in kept.blocks.items())
    grounds = [f"both sides stood still; the blocks and their pages: {names}"]
    left = [f"{block.name}: {block.reason}" for block in case.result.not_compared]
    grounds.append(f"not compared: {'; '.join(left)}" if left else "no migrated block was left out")
    yield ArgumentStep(
        f"All memory was looked at: {pages.total} pages, each on both sides, at switch-over.", grounds
    )


def _equal(case: Case) -> Iterator[ArgumentStep]:
    zero = sum(
        int((one.zero_source & one.zero_destination)[one.pages("equal")].sum())
        for one in case.kept.blocks.values()
    )
    equal = case.result.pages.equal
    yield ArgumentStep(
        f"{equal} pages are the same on both sides, byte for byte, so nothing more has to be said of them.",
        [f"{zero} of them hold nothing but zeros"],
    )


def _skipped(case: Case) -> Iterator[ArgumentStep]:
    pages = case.result.pages
    if not pages.skipped:
        return
    yield ArgumentStep(
        f"{pages.skipped} pages ({pages.skipped_percent:.1f} %) were left behind, and nobody needs them:",
        [*_free(case), *_accepted(case), *_unwritten(case), *_zeros(case)],
    )


def _free(case: Case) -> Iterator[str]:
    heard, reported = case.result.witnesses, case.result.protocol.reported
    yield f"the guest said that they were free ({reported} pages reported, one count for each request)"
    if heard is None or not heard.judged:
        yield "nobody else says so: the request was not held, or nobody walked (strict or walk is false)"
        return
    standing = ", ".join(f"{count} {name}" for name, count in heard.standing.items())
    yield (
        f"a second witness says so: at {heard.judged} of {heard.answered} answered requests the guest was "
        f"held, and its free lists were walked from outside; of the pages that it reported then, {standing}"
    )
    if heard.agreement:
        apart = {name: count for name, count in heard.agreement.items() if name != "both"}
        words = ", ".join(f"{count} {name}" for name, count in apart.items()) or "none"
        both = heard.agreement.get("both", 0)
        yield (
            f"the guest was quiet, so both had to name the same pages: {both} by both, by only one {words}"
        )


def _accepted(case: Case) -> Iterator[str]:
    if case.record is None:
        return
    asked = {entry.id: entry for entry in case.record.log if isinstance(entry, Request)}
    applied: dict[int, set[int]] = {}
    for entry in case.record.accepts:
        applied.setdefault(entry.id, set()).add(entry.generation)
    for request, generations in applied.items():
        left = asked.get(request)
        if left is None:
            yield f"an answer to {request:#x} was applied, which was never asked"
            continue
        when = ", ".join(map(str, sorted(generations)))
        if generations == {left.generation}:
            yield (
                f"answer {request:#x} was applied in sync generation {when}, in which it was asked: "
                "no sync came between that could have consumed a write"
            )
        else:
            yield f"answer {request:#x} was asked in sync generation {left.generation}, and applied in {when}"


def _unwritten(case: Case) -> Iterator[str]:
    if case.result.strict:
        yield (
            "nobody has written them since that request: a digest of each was taken while the guest was held "
            "at the request, and again at switch-over, and both are the same"
        )
    else:
        yield "nobody has written them since, by the dirty log that is itself under test (strict: false)"


def _zeros(case: Case) -> Iterator[str]:
    yield "they were never sent, by the device's record, and the destination holds zeros there"
    differing = sum(int((~one.zero_source)[one.pages("skipped")].sum()) for one in case.kept.blocks.values())
    yield f"{differing} of them hold something on the source: bytes that did not have to travel"


def _explained(case: Case) -> Iterator[ArgumentStep]:
    for name, count in case.result.pages.explained.items():
        yield ArgumentStep(f"{count} pages differ for a reason that has a name: {name}.")


def _wrong(case: Case) -> Iterator[ArgumentStep]:
    result = case.result
    if not result.findings:
        yield ArgumentStep("No page is wrong, and no rule was broken.")
        return
    grounds = [f"{found.rule} ({found.kind}): {found.text}" for found in result.findings]
    first = result.wrong_pages[0] if result.wrong_pages else None
    if first is not None and first.frame is not None:
        grounds.append(f"for one of them: freepage explain {case.folder} --pfn {first.frame:#x}")
    yield ArgumentStep(f"{result.pages.wrong} pages are wrong, and these rules were broken:", grounds)


def _guest(case: Case) -> Iterator[ArgumentStep]:
    guest = case.result.guest
    if guest.verify_bad is None:
        yield ArgumentStep("The guest was not asked what it thinks of its memory.")
        return
    grounds = [f"{guest.verify_bad} of the {guest.verify_pages} pages that it owned are wrong"]
    if guest.checksum_matches is not None:
        grounds.append(
            "their checksum is "
            + ("" if guest.checksum_matches else "not ")
            + "the one that the host computes from the seed"
        )
    grounds.append(
        f"it then allocated, filled, verified and freed {guest.exercise_pages} pages: "
        f"{guest.exercise_bad} were bad"
    )
    if guest.kernel_warnings is not None:
        grounds.append(f"its kernel's log has {len(guest.kernel_warnings)} new warnings")
    yield ArgumentStep("The guest went on, and looked for itself:", grounds)


def _bytes(case: Case) -> Iterator[ArgumentStep]:
    sent = case.result.moved_bytes
    times = f", {sent.sent_over_floor:.3f} times the floor" if sent.sent_over_floor is not None else ""
    parts = (
        ("what had to be sent (the floor)", sent.floor),
        ("free pages that were sent before the answer came (head)", sent.head),
        ("sent again, as they were written meanwhile", sent.again),
        ("free pages that no answer reported", sent.unreported),
        ("headers, device state, pages that changed their kind", sent.rest),
    )
    yield ArgumentStep(
        f"{human_size(sent.sent)} were sent{times}; free by: {sent.floor_by}, at: {sent.floor_at}.",
        [
            f"{words}: {human_size(abs(size)) if size >= 0 else '-' + human_size(-size)}"
            for words, size in parts
            if size is not None
        ],
    )


def _open(case: Case) -> Iterator[ArgumentStep]:
    grounds = []
    heard, result = case.result.witnesses, case.result
    if heard is not None and heard.undecided:
        grounds.append(
            f"{heard.undecided} reported pages were on no free list at the request nor at the answer, and "
            "did not change: they may have been free in between"
        )
    if heard is not None:
        grounds += [f"a walk is missing: {why}" for why in heard.missing]
    grounds += [f"{name}: {count}" for name, count in result.observed.items() if count]
    grounds.append("a page that was written and written back to all of its old bytes would not be seen")
    if result.accelerator == "tcg":
        grounds.append("the guest was emulated: KVM's dirty log was not exercised")
    yield ArgumentStep("What this leaves open:", grounds)


def _therefore(case: Case) -> ArgumentStep:
    result = case.result
    size = (case.folder / PAGES_FILE).stat().st_size
    return ArgumentStep(
        f"Verdict: {result.verdict}. {result.reason}.",
        [f"kept for questions about single pages: {PAGES_FILE}, {human_size(size)}"],
    )
