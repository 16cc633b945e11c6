# SPDX-License-Identifier: GPL-2.0-or-later
"""What a verdict rests on: everything that is known when both sides stand still, as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from harness.errors import MachineryError
from harness.memory.compare import PageNumbers
from harness.memory.image import Flags
from harness.memory.record import Accept, Block, Request
from harness.memory.walk import FreeWalk
from harness.scenario.expectations import Expect
from harness.scenario.model import Arm


@dataclass(frozen=True, eq=False)
class BlockState:
    """What is known of one compared block at switch-over."""

    block: Block
    differing: PageNumbers
    zero_on_source: Flags
    zero_on_destination: Flags
    sent: Flags | None = None
    """Sent at least once in this migration; None: neither the device's record nor a tap says so."""
    hole_on_source: Flags | None = None
    """Given back by the guest (or never touched): not the same as written with zeros."""
    named: Mapping[int, str] = field(default_factory=dict)
    """Pages that differ for a reason, each with its name: the host writes them while the guest is
    stopped, or the guest has written them after its switch to postcopy."""
    lost: Flags | None = None
    """Of a guest that ran on the destination after the switch to postcopy: pages of its workload that
    differ, and hold no later step of it; None: it did not run."""
    changed_since_switch: Flags | None = None
    """Pages of the source that are not what they were at the switch to postcopy; None: there was none."""
    absent: Flags | None = None
    """Not plugged in (virtio-mem): no memory of the guest's, and none of the migration's; None: all is."""
    recorded: bool = True
    """``sent`` is the device's own word, and so is what it cleared; False: of that nothing is known."""


@dataclass(frozen=True, eq=False)
class RequestWitness:
    """What was seen from outside at one request and at its answer."""

    at_request: FreeWalk | None
    """None: the walk was torn; see ``missing``."""
    at_answer: FreeWalk | None = None
    """None: the whole answer never came, or the walk was torn."""
    unchanged: Mapping[str, Flags] | None = None
    """By block: held the same at the answer as at the request; None: nobody looked at the answer."""
    owned: Mapping[str, Flags] = field(default_factory=dict)
    """By block: belonged to the workload from the request to the answer, with the content
    that the formula gives, as the host computed it."""
    missing: tuple[str, ...] = ()
    """Why a walk is not there."""


@dataclass(frozen=True, eq=False)
class JudgeInput:
    """All that a verdict over the memory rests on; what comes later is in :mod:`harness.verdict.facts`."""

    arm: Arm
    blocks: Sequence[BlockState]
    log: Sequence[Request | Accept] = ()
    unchanged: Mapping[int, Mapping[str, Flags]] = field(default_factory=dict)
    """By request id and block: same digest at that request and at switch-over."""
    strict: bool = True
    """Without: "unchanged" is believed where there is no digest."""
    statistics: Mapping[str, object] | None = None
    """The device's own counters of this migration, to be held against its log."""
    totals: Mapping[str, object] | None = None
    """The device's counters since its QEMU started, of all migrations."""
    counters: Mapping[str, object] | None = None
    """The totals, as the device's property says them over QMP; None: QEMU could not be asked."""
    expect: Expect = field(default_factory=Expect)
    witnesses: Mapping[int, RequestWitness] = field(default_factory=dict)
    """By request id: what the outside walk saw; empty: there is no second witness."""
    quiet: bool = False
    """Nothing in the guest allocated or freed during the migration: then two witnesses have to
    agree, and no reported page may stay undecided."""
    hints_taken: int | None = None
    """Arm hint, with a QEMU that keeps no record: hints that its device has taken; None: not known."""
    left_where_it_is: Sequence[Block] = ()
    """Memory that the guest sees and that both QEMUs map: it is not migrated, and cannot differ."""


def demand_complete(case: JudgeInput) -> None:
    """A verdict over half of the evidence would be a guess: refuse, do not judge."""
    for state in case.blocks:
        name, pages = state.block.name, state.block.pages
        flags = (
            *(state.zero_on_source, state.zero_on_destination, state.sent, state.hole_on_source),
            *(state.lost, state.changed_since_switch),
            state.absent,
        )
        if any(flag is not None and len(flag) != pages for flag in flags):
            raise MachineryError(f"what is known of {name!r} does not cover its {pages} pages")
        if case.arm == "info" and state.sent is None:
            raise MachineryError(f"the device's record does not say which pages of {name!r} were sent")
