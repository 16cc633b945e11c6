# SPDX-License-Identifier: GPL-2.0-or-later
"""What ``freepage explain`` prints: plain lines, for people and pipes alike."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator

from harness.explain.argument import ArgumentStep
from harness.explain.case import Case
from harness.explain.page import _Lines, explain_page
from harness.report.judged_pages import WRONG_PAGES

_WIDTH = 118
_LABEL = 30


def page_lines(lines: _Lines) -> Iterator[str]:
    """What is known of one page, as lines."""
    for label, text in lines:
        yield f"{label:{_LABEL}}{text}"


def step_lines(title: str, steps: Iterable[ArgumentStep]) -> Iterator[str]:
    """The argument as numbered lines below ``title``."""
    yield title
    for number, step in enumerate(steps, start=1):
        yield ""
        yield from _wrapped(f"{number}. ", step.claim)
        for ground in step.grounds:
            yield from _wrapped("   - ", ground)


def _wrapped(mark: str, text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=mark, subsequent_indent=" " * len(mark))


def wrong_frames(case: Case) -> list[int]:
    """The guest frames of the wrong pages that the result lists."""
    return [page.frame for page in case.result.wrong_pages if page.frame is not None]


def wrong_lines(case: Case) -> Iterator[str]:
    """Every wrong page that the result lists, each in full."""
    frames = wrong_frames(case)
    for number, frame in enumerate(frames):
        if number:
            yield ""
        yield from page_lines(explain_page(case, frame))
    for page in case.result.wrong_pages:
        if page.frame is None:
            yield f"page {page.page:#x} of {page.block!r}, which the guest cannot see: {page.rule}"
    if case.result.pages.wrong > WRONG_PAGES:
        more = case.result.pages.wrong - WRONG_PAGES
        yield f"... {more} more wrong pages; {case.folder}/map.svg shows where"
    if not case.result.wrong_pages:
        yield "no page is wrong"
