# SPDX-License-Identifier: GPL-2.0-or-later
"""The migration's own stream, as a tap has heard it, against what both sides hold."""

from __future__ import annotations

from collections.abc import Iterator

from harness.verdict.case import JudgeInput
from harness.verdict.context import Context
from harness.verdict.finding import Finding
from harness.verdict.registry import rule
from harness.verdict.wire import PageList, WireFacts


@rule(
    "witness",
    {
        "wire-not-loaded": "a page is not on the destination as the stream brought it last",
        "wire-stale": "a page came last as something else than the source held at switch-over",
        "wire-never-sent": "a page never came, in an arm in which every page has to",
        "wire-unordered": "a page came by two connections with nothing that says which of them is later",
        "wire-disagrees": "the device's record and the stream disagree about which pages were sent",
    },
    needs=(WireFacts,),
)
def wire_pages(case: JudgeInput, context: Context) -> Iterator[Finding]:
    """Each block that the stream is about."""
    for block in context.fact(WireFacts).blocks:
        kinds: dict[str, tuple[PageList, str]] = {
            "wire-not-loaded": (block.not_loaded, "are not on the destination as the stream brought them"),
            "wire-stale": (block.stale, "came last with other content than the source held at the end"),
            "wire-unordered": (block.unordered, "came by two connections, and it is chance which is later"),
            "wire-disagrees": (
                _both(block.record_only, block.wire_only),
                "were sent by the record alone or by the stream alone",
            ),
        }
        if case.arm == "off":
            kinds["wire-never-sent"] = block.never, "never came"
        for name, (pages, words) in kinds.items():
            if pages.count:
                text = f"{pages.count} pages of {block.name} {words}: the first is {pages.first[0]}"
                yield Finding(name, "witness", text, pages.count, block.name, pages.first)


def _both(one: PageList, other: PageList) -> PageList:
    return PageList(one.count + other.count, tuple(sorted({*one.first, *other.first})))
