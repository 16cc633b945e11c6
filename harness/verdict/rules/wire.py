# SPDX-License-Identifier: GPL-2.0-or-later
"""The migration's own stream, as a tap has heard it, against what both sides hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from harness.units import human_size
from harness.verdict.case import JudgeInput
from harness.verdict.context import Context
from harness.verdict.finding import Finding
from harness.verdict.registry import rule
from harness.verdict.wire import PageList, PagesCounted, WireFacts


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


@rule(
    "witness",
    {
        "counters-disagree": "QEMU's `normal` or `duplicate` pages, or its `transferred` bytes (from 10.0 "
        "on), are not as many as its stream has"
    },
    needs=(WireFacts, PagesCounted),
)
def counted_right(_: JudgeInput, context: Context) -> Iterator[Finding]:
    """Both count sendings, and a page that comes again counts again."""
    wire, said = context.fact(WireFacts), context.fact(PagesCounted)
    if wire.unread is not None or not wire.blocks:
        return
    came = {
        "whole pages": (said.full, sum(block.full for block in wire.blocks)),
        "pages of zeros": (said.zero, sum(block.zero for block in wire.blocks)),
    }
    if said.bytes is not None:
        came["bytes"] = said.bytes, wire.bytes.total
    for kind, (counted, on_wire) in came.items():
        if counted != on_wire:
            text = f"QEMU counts {counted} {kind}, and its stream has {on_wire}"
            yield Finding("counters-disagree", "witness", text, abs(counted - on_wire))


#: QEMU counts in windows of a tenth of a second; what it writes at once may be a packet of pages.
_WINDOWS: Final = 0.2
_AT_ONCE: Final = 2 << 20
_TOLERANCE: Final = 1.05


@rule(
    "expectation",
    {"bandwidth-exceeded": "more came before the guest was stopped than `migration.bandwidth` lets through"},
    needs=(WireFacts,),
)
def bandwidth_kept(_: JudgeInput, context: Context) -> Iterator[Finding]:
    """Once the guest stands QEMU keeps no limit."""
    pace = context.fact(WireFacts).pace
    if pace is None:
        return
    most = pace.limit * (pace.seconds + _WINDOWS) * _TOLERANCE + _AT_ONCE
    if pace.bytes > most:
        text = (
            f"{human_size(pace.bytes)} came in the {pace.seconds:.2f} s before the guest was stopped, "
            f"at a limit of {human_size(pace.limit)} a second"
        )
        yield Finding("bandwidth-exceeded", "expectation", text)


#: What the guest writes between QEMU's last look at what is left and its own stop, and what is on its way.
_MEANWHILE: Final = 32 << 20


@rule(
    "expectation",
    {
        "pause-exceeded": "more came after the guest was stopped than can be sent in "
        "`migration.downtime_limit_ms`, twice over and 32 MiB: it was stopped too early"
    },
    needs=(WireFacts,),
)
def pause_kept(_: JudgeInput, context: Context) -> Iterator[Finding]:
    """By bytes and not by time, which a busy machine stretches."""
    wire = context.fact(WireFacts)
    if wire.pace is None or wire.pace.left is None:
        return
    after = wire.bytes.total - wire.pace.bytes
    if after > 2 * wire.pace.left + _MEANWHILE:
        text = (
            f"{human_size(after)} came after the guest was stopped, and the limit of its pause leaves "
            f"{human_size(wire.pace.left)}"
        )
        yield Finding("pause-exceeded", "expectation", text)


def _both(one: PageList, other: PageList) -> PageList:
    return PageList(one.count + other.count, tuple(sorted({*one.first, *other.first})))
