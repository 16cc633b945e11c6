# SPDX-License-Identifier: GPL-2.0-or-later
"""What a tap has heard of the migration, held against both memories at switch-over."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

import numpy as np

from harness.errors import MachineryError
from harness.evidence.switch_over import SwitchOver
from harness.memory.compare import compare
from harness.memory.image import Flags, RamImage
from harness.memory.record import MigrationRecord
from harness.migstream.account import BlockAccount, StreamedGuest, read_stream
from harness.migstream.source import StreamError
from harness.verdict.case import BlockState
from harness.verdict.wire import MOST_LISTED, PageList, WireBlock, WireFacts

_MAGIC: Final = b"QEVM"


def main_stream(folder: Path) -> Path:
    """Of the connections that a tap has heard, the one with the stream.

    Raises :class:`MachineryError` if there is none.
    """
    for path in sorted(folder.glob("*.stream")):
        with path.open("rb") as file:
            if file.read(len(_MAGIC)) == _MAGIC:
                return path
    raise MachineryError("the tap has heard no migration stream")


def forget_stream(folder: Path) -> None:
    """Remove what a tap has heard: as large as all that was sent."""
    for path in folder.glob("*.stream"):
        path.unlink()


def hear_wire(
    folder: Path, switch_over: SwitchOver, record: MigrationRecord, states: Collection[BlockState]
) -> WireFacts:
    """Read the stream, and compare what it makes with what both sides hold."""
    path = main_stream(folder)
    try:
        with path.open("rb") as file:
            guest = read_stream(file)
    except StreamError as error:
        # The destination has loaded it: if we cannot read it, the fault is ours.
        raise MachineryError(f"the migration's stream cannot be read: {error.message}") from error
    with contextlib.closing(guest):
        named = {state.block.name: state.named for state in states}
        blocks = tuple(
            _block(account, guest, switch_over, record, named.get(name, {}))
            for name, account in guest.blocks.items()
        )
        return WireFacts(guest.contents.size, guest.contents.memory_sections, blocks)


def _block(
    account: BlockAccount,
    guest: StreamedGuest,
    switch_over: SwitchOver,
    record: MigrationRecord,
    named: Mapping[int, str],
) -> WireBlock:
    sent: Flags = account.times > 0
    excused = np.zeros(account.pages, np.bool_)
    excused[[page for page in named if page < account.pages]] = True
    with contextlib.closing(_image(account, guest)) as image:
        differs = {
            side: _differing(image, images.get(account.name))
            for side, images in (
                ("source", switch_over.source.images),
                ("destination", switch_over.destination.images),
            )
        }
    said = record.sent[account.name].flags() if account.name in record.sent else None
    return WireBlock(
        name=account.name,
        pages=account.pages,
        full=account.full,
        zero=account.zero,
        delta=account.delta,
        again=account.sent_again,
        not_loaded=_listed(differs["destination"] & sent & ~excused),
        stale=_listed(differs["source"] & sent & ~excused),
        never=_listed(~sent),
        record_only=_listed(said & ~sent) if said is not None else PageList(),
        wire_only=_listed(sent & ~said) if said is not None else PageList(),
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
