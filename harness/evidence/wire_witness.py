# SPDX-License-Identifier: GPL-2.0-or-later
"""What a tap has heard of the migration, held against both memories at switch-over."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from harness.devicestate.sections import Section
from harness.errors import MachineryError
from harness.evidence.switch_over import SwitchOver
from harness.explain.sendings import Sendings
from harness.hosts.tap import TIMES_ENDING
from harness.memory.compare import compare
from harness.memory.image import Flags, RamImage
from harness.memory.record import MigrationRecord
from harness.migstream.account import BlockAccount, StreamedGuest
from harness.migstream.folder import StreamFiles, stream_files
from harness.migstream.ram import PageForm
from harness.migstream.source import StreamError, UnknownFormError
from harness.verdict.case import BlockState
from harness.verdict.wire import (
    MOST_LISTED,
    MOST_ROUNDS,
    PageList,
    WireBlock,
    WireBytes,
    WireFacts,
    WireRound,
)

#: Of a round, in the order in which its parts are told.
_COLUMNS: Final = [form.value for form in (PageForm.FULL, PageForm.ZERO, PageForm.DELTA)]
_NOTHING: Final[Mapping[str, Flags]] = {}


def forget_stream(folder: Path) -> None:
    """Remove what a tap has heard: as large as all that was sent."""
    for path in (*folder.glob("*.stream"), *folder.glob(f"*{TIMES_ENDING}")):
        path.unlink()


@dataclass(frozen=True, eq=False)
class HeardStream:
    """A stream that was read; ``guest`` is None if it could not be, and ``unread`` says why."""

    size: int
    guest: StreamedGuest | None = None
    unread: str | None = None

    def sent(self, name: str, pages: int) -> Flags | None:
        """Which of a block's pages came at all; None: the stream does not say."""
        account = self.guest.blocks.get(name) if self.guest is not None else None
        if account is None or account.pages != pages:
            return None
        came: Flags = account.times > 0
        return came

    def devices(self) -> tuple[Section, ...] | None:
        """The devices' state, as it was sent; None: the stream could not be read."""
        if self.guest is None:
            return None
        streamed = self.guest.contents.devices
        return tuple(Section(one.name, one.instance, one.version, one.state) for one in streamed)

    def sendings(self) -> Mapping[str, Sendings]:
        """Which page came in which round, how, and with which content."""
        found = {}
        for name, account in self.guest.blocks.items() if self.guest is not None else ():
            every = account.sendings()
            found[name] = Sendings(every.page, every.round, every.how, every.digest)
        return found

    def facts(
        self,
        switch_over: SwitchOver,
        record: MigrationRecord,
        states: Mapping[str, BlockState],
        hinted: Mapping[str, Flags] = _NOTHING,
    ) -> WireFacts:
        """What it makes of memory, against what both sides hold.

        ``hinted``: pages whose dirty bit upstream's hints took away; they may be stale.
        """
        if self.guest is None:
            return WireFacts(WireBytes(self.size), 0, unread=self.unread, pace=switch_over.pace)
        blocks = tuple(
            _block(account, self.guest, switch_over, record, states.get(name), hinted.get(name))
            for name, account in self.guest.blocks.items()
        )
        size = self.guest.bytes
        return WireFacts(
            WireBytes(size.total, size.whole, size.deltas, size.devices),
            self.guest.contents.memory_sections,
            blocks,
            _rounds(self.guest),
            pace=switch_over.pace,
        )


@contextlib.contextmanager
def heard_stream(folder: Path) -> Iterator[HeardStream]:
    """Read what a tap has written down.

    A QEMU of somebody's own may send what is not read here; both memories are judged all the same.
    Raises :class:`MachineryError` if nothing came by the tap.
    """
    paths = list(stream_files(folder))
    size = sum(path.stat().st_size for path in paths)
    if not size:
        raise MachineryError("the tap has heard no migration stream")
    try:
        guest = StreamFiles.of(paths).read()
    except UnknownFormError as error:
        yield HeardStream(size, unread=error.form)
        return
    except StreamError as error:
        yield HeardStream(size, unread=f"it cannot be read: {error.message}")
        return
    with contextlib.closing(guest):
        yield HeardStream(size, guest)


def _block(
    account: BlockAccount,
    guest: StreamedGuest,
    switch_over: SwitchOver,
    record: MigrationRecord,
    state: BlockState | None,
    hinted: Flags | None,
) -> WireBlock:
    sent: Flags = account.times > 0
    moved = switch_over.postcopy
    # By the name of what else writes to them.
    judged = account.valid.copy()
    if state is not None:
        judged[[page for page in state.named if page < account.pages]] = False
    with contextlib.closing(_image(account, guest)) as image:
        on_source = _differing(image, switch_over.source.images.get(account.name))
        # A guest that ran there since the switch to postcopy has written to it.
        ran = moved is not None and moved.guest_ran
        there = None if ran else switch_over.destination.images.get(account.name)
        on_destination = _differing(image, there)
    never = ~account.valid
    if state is not None and state.absent is not None:
        never &= ~state.absent
    stale = on_source & judged
    if hinted is not None and len(hinted) == account.pages:
        stale &= ~hinted
    said = record.sent[account.name].flags() if account.name in record.sent else None
    return WireBlock(
        name=account.name,
        pages=account.pages,
        full=account.full,
        zero=account.zero,
        delta=account.delta,
        again=account.sent_again,
        not_loaded=_listed(on_destination & judged),
        stale=_listed(stale),
        never=_listed(never),
        unordered=_listed(account.unordered),
        record_only=_listed(said & ~sent) if said is not None else PageList(),
        wire_only=_listed(sent & ~said) if said is not None else PageList(),
    )


def _rounds(guest: StreamedGuest) -> tuple[WireRound, ...]:
    """Sendings of all blocks by round and form; the last one listed has those of all after it."""
    counts = np.zeros((MOST_ROUNDS + 1, 3), np.int64)
    for account in guest.blocks.values():
        every = account.sendings()
        np.add.at(counts, (np.minimum(every.round, MOST_ROUNDS), every.how), 1)
    last = int(np.flatnonzero(counts.any(axis=1)).max(initial=0))
    return tuple(
        WireRound(*(int(count) for count in counts[number, _COLUMNS])) for number in range(1, last + 1)
    )


def _image(account: BlockAccount, guest: StreamedGuest) -> RamImage:
    return RamImage(os.dup(guest.files[account.name]), account.pages * account.page_size, account.name)


def _differing(heard: RamImage, there: object) -> Flags:
    """Pages that are not as the stream makes them; none where nobody can look."""
    differs = np.zeros(heard.pages, np.bool_)
    if isinstance(there, RamImage) and there.size == heard.size:
        differs[compare(heard, there).differing] = True
    return differs


def _listed(flags: Flags) -> PageList:
    pages = np.flatnonzero(flags)
    return PageList(int(pages.size), tuple(pages[:MOST_LISTED].tolist()))
