# SPDX-License-Identifier: GPL-2.0-or-later
"""From images, digests and the device's record to what the judge wants.

    sight = look(source, destination, requests)     # both sides stopped
    case = sight.case(record, scenario, guest=checks)
    judgement = judge(case)
    account = sight.account(record, scenario, sent=..., pages_sent=...)

``source`` and ``destination`` map the RAMBlock's name to its image.  Blocks that
only one of them has are not compared; :attr:`Sight.not_compared` lists them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from harness.errors import MachineryError
from harness.floor import Account, BlockPages, Instant, Witness, split
from harness.memory.compare import Comparison, compare
from harness.memory.digest import Digests, RequestDigests, page_digests, zero_flags
from harness.memory.image import Flags, RamImage
from harness.memory.record import Block, MigrationRecord, Request
from harness.scenario_model import Scenario
from harness.units import PAGE_SIZE
from harness.verdict import BlockState, GuestChecks, JudgeInput
from harness.verdict_log import Replay, replay


@dataclass(frozen=True, slots=True)
class NotCompared:
    """A migrated block that nobody could look into."""

    name: str
    bytes: int


def statistics_since(
    now: Mapping[str, object] | None, before: Mapping[str, object] | None
) -> dict[str, object] | None:
    """The device's counters of one migration: it counts on through all migrations of its process."""
    if now is None:
        return None
    counted = dict(now)
    for key, value in (before or {}).items():
        this = counted.get(key)
        # Identifiers and the last arming's time are states, not sums.
        if isinstance(value, int) and isinstance(this, int) and key not in ("id", "generation", "arming-ns"):
            counted[key] = this - value
    return counted


@dataclass(frozen=True, eq=False)
class Sight:
    """What was seen while both sides stood still."""

    comparisons: Mapping[str, Comparison]
    unchanged: Mapping[int, Mapping[str, Flags]]
    zero_at: Mapping[int, Mapping[str, Flags]]
    """By request and block: which pages were zero then."""
    digests: Mapping[str, Digests] = field(default_factory=dict)

    def not_compared(self, record: MigrationRecord | None) -> tuple[NotCompared, ...]:
        """The migrated blocks that the record lists and that were not looked into."""
        blocks = record.blocks.values() if record else ()
        return tuple(
            NotCompared(b.name, b.pages * PAGE_SIZE) for b in blocks if b.name not in self.comparisons
        )

    def _blocks(self, record: MigrationRecord | None) -> dict[str, Block]:
        """The compared blocks, with guest addresses where the record has them."""
        blocks = {}
        for name, comparison in self.comparisons.items():
            block = record.blocks.get(name) if record else None
            if record and block is None:
                raise MachineryError(f"{name!r} was compared, but the device's record does not list it")
            if block and block.pages != comparison.pages:
                raise MachineryError(
                    f"{name!r} has {comparison.pages} pages, {block.pages} by the device's record"
                )
            blocks[name] = block or Block(name, comparison.pages)
        return blocks

    def case(
        self,
        record: MigrationRecord | None,
        scenario: Scenario,
        *,
        guest: GuestChecks | None,
        named: Mapping[str, Mapping[int, str]] | None = None,
        statistics_before: Mapping[str, object] | None = None,
        account: Account | None = None,
    ) -> JudgeInput:
        """Everything that the judge wants.

        ``record`` is None only where the device keeps none (a QEMU without the
        feature); ``named``: by block, the pages that the host writes at stop;
        ``statistics_before``: the END of this process's previous migration.
        """
        if record is not None and not record.complete:
            raise MachineryError(
                "the device's record of this migration has no end: it did not reach its cleanup"
            )
        states = []
        for name, block in self._blocks(record).items():
            seen = self.comparisons[name]
            states.append(
                BlockState(
                    block,
                    seen.differing,
                    seen.zero_on_source,
                    seen.zero_on_destination,
                    record.sent[name].flags() if record else None,
                    seen.hole_on_source,
                    (named or {}).get(name, {}),
                )
            )
        return JudgeInput(
            arm=scenario.arm,
            blocks=tuple(states),
            log=record.log if record else (),
            unchanged=self.unchanged,
            strict=scenario.strict,
            statistics=statistics_since(record.statistics, statistics_before) if record else None,
            guest=guest,
            expect=scenario.expect,
            sent_over_floor=account.sent_over_floor if account else None,
        )

    def account(
        self, record: MigrationRecord | None, scenario: Scenario, *, sent: int, pages_sent: int | None = None
    ) -> Account:
        """Floor and split of the bytes sent, by the best witness there is."""
        blocks = self._blocks(record)
        history = replay(record.log if record else (), blocks, scenario.arm)
        first = _first_request(record, history)
        zero = self.zero_at.get(first, {}) if first is not None else {}
        by: Witness = "module" if first is not None else "none"
        at: Instant = "request" if zero else "switch-over"
        parts = []
        for name, block in blocks.items():
            flags = record.sent[name].flags() if record and name in record.sent else None
            part = BlockPages(block.pages, zero.get(name, self.comparisons[name].zero_on_source), sent=flags)
            if first is not None:
                seen = history.clearings[name]
                reported, cleared = seen.first_reported, seen.first_cleared
                part = replace(part, free=reported, reported=reported, cleared=cleared)
            parts.append(part)
        for other in self.not_compared(record):
            flags = record.sent[other.name].flags() if record and other.name in record.sent else None
            parts.append(BlockPages(other.bytes // PAGE_SIZE, None, sent=flags))
        return split(
            sent,
            parts,
            floor_by=by,
            floor_at=at,
            pages_sent=pages_sent,
            multifd=scenario.migration.multifd > 0,
        )


def _first_request(record: MigrationRecord | None, history: Replay) -> int | None:
    """The request whose answer was the first to be accepted."""
    asked = {entry.id for entry in record.log if isinstance(entry, Request)} if record else set()
    return next((request for request in history.requests if request in asked), None)


def look(
    source: Mapping[str, RamImage],
    destination: Mapping[str, RamImage],
    requests: RequestDigests | None = None,
) -> Sight:
    """Compare both sides whole, and the source with what it held at each request."""
    shared = [name for name in source if name in destination]
    comparisons = {name: compare(source[name], destination[name]) for name in shared}
    if requests is None or not requests.requests:
        return Sight(comparisons, {}, {})
    now = {name: page_digests(source[name]) for name in shared}
    zero_at = {}
    for request in requests.requests:
        taken = requests.at(request)
        if taken is not None:
            zero_at[request] = {name: zero_flags(digests) for name, digests in taken.items()}
    return Sight(comparisons, requests.unchanged(now), zero_at, now)
