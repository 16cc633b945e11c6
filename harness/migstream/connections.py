# SPDX-License-Identifier: GPL-2.0-or-later
"""The main connection, multifd's channels and postcopy-preempt's, in the order in which they count."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from harness.migstream.ledger import Ledger
from harness.migstream.multifd import MultifdChannel
from harness.migstream.ram import PageRun, RamFormat, RamReader, StreamedBlock
from harness.migstream.source import Readable, Source

if TYPE_CHECKING:
    from harness.migstream.reader import StreamReader

#: As a way of a page, after the channels of multifd.
_URGENT: Final = 255


class Connections:
    """Gives a ledger the pages of all connections.

    The main connection says when the destination waits for the others: by a flag of its own
    or, of machines before QEMU 8.1, by the end of each section of memory.
    """

    def __init__(self, ledger: Ledger, channels: Sequence[Readable], urgent: Readable | None) -> None:
        self._ledger = ledger
        self._files = channels
        self._urgent_file = urgent
        self._channels: list[MultifdChannel] = []
        self._by_flag = False
        self._reader: StreamReader | None = None
        self._urgent_size = 0
        self._whole = 0
        ledger.several_ways = bool(channels) or urgent is not None
        ledger.rounds_by_waits = bool(channels)

    def belongs_to(self, reader: StreamReader) -> None:
        """``reader`` reads the main connection."""
        self._reader = reader
        self._ledger.announced = self._announced

    def _announced(self, name: str) -> StreamedBlock:
        found = self._find(name)
        assert found is not None
        return found

    def _find(self, name: str) -> StreamedBlock | None:
        assert self._reader is not None
        return self._reader.ram.blocks.get(name) if self._reader.ram is not None else None

    @property
    def size(self) -> int:
        """Bytes of all but the main one."""
        return sum(channel.size for channel in self._channels) + self._urgent_size

    @property
    def whole_bytes(self) -> int:
        """Of all connections: what whole pages took, compressed or not."""
        return self._whole + sum(channel.page_bytes for channel in self._channels)

    @property
    def device_bytes(self) -> int:
        """Devices' states that came by the channels of multifd."""
        return sum(channel.device_bytes for channel in self._channels)

    def take(self, run: PageRun) -> None:
        """Pages of the main connection."""
        self._ledger.way = 0
        self._whole += run.contents.size if run.contents is not None else 0
        self._ledger.take(run)

    def flushed(self) -> None:
        """The destination waits."""
        self._by_flag = True
        self._wait()

    def section_ended(self) -> None:
        """It waits here, if it never does elsewhere."""
        if not self._by_flag:
            self._wait()

    def discarded(self, block: str, first: int, count: int) -> None:
        """What came before does not count; what comes again is later."""
        self._ledger.discarded(block, first, count)

    def finish(self) -> None:
        """The main connection has ended: the rest of the others."""
        for way, channel in self._opened():
            self._ledger.way = way
            while channel.until_wait():
                pass
        if self._urgent_file is not None:
            self._read_urgent(self._urgent_file)

    def _opened(self) -> list[tuple[int, MultifdChannel]]:
        assert self._reader is not None
        if not self._channels and self._files:
            page_size = self._reader.contents.page_size
            self._channels = [
                MultifdChannel(file, page_size, self._find, self._ledger.take) for file in self._files
            ]
        return list(enumerate(self._channels, 1))

    def _wait(self) -> None:
        for way, channel in self._opened():
            self._ledger.way = way
            channel.until_wait()
        if self._files:
            self._ledger.next_interval()

    def _read_urgent(self, file: Readable) -> None:
        """Pages of postcopy that the destination has asked for, which overtake the others."""
        assert self._reader is not None
        self._ledger.way, self._ledger.asked_for = _URGENT, True
        source = Source(file)
        before = sum(block.full for block in self._ledger.blocks.values())
        page_size = self._reader.contents.page_size
        urgent = RamReader(RamFormat(page_size), self._ledger)
        if self._reader.ram is not None:
            urgent.blocks = self._reader.ram.blocks
        while source.peek(1):
            # QEMU closes it when all has come, with an end mark or without.
            urgent.pages(source, marked=False)
        self._whole += (sum(block.full for block in self._ledger.blocks.values()) - before) * page_size
        self._urgent_size = source.offset
