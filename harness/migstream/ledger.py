# SPDX-License-Identifier: GPL-2.0-or-later
"""Takes the pages of a stream as they come: how often, how, in which round, with which content."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xxhash

from harness.migstream.ram import PageForm, PageRun, StreamedBlock, StreamedPages
from harness.migstream.source import StreamError, UnknownFormError
from harness.migstream.xbzrle import apply_delta

#: Memory of all blocks together that is put together; beyond it pages are only counted.
MOST_MEMORY: Final = 64 << 30

_MOST_TIMES: Final = 255
_LAST_ROUND: Final = (1 << 16) - 1
#: A page's number within its block has fewer bits.
_BLOCK_SHIFT: Final = 44


@dataclass(frozen=True, eq=False, slots=True)
class PageSendings:
    """Every sending of a block's pages, in order: page, round (from 1), form, and XXH3 of what came.

    Without memory that was put together the digest of a delta is not known, and is 0.
    """

    page: npt.NDArray[np.uint32]
    round: npt.NDArray[np.uint16]
    how: npt.NDArray[np.uint8]
    digest: npt.NDArray[np.uint64]


@dataclass(slots=True)
class BlockAccount:
    """One RAMBlock: sendings of pages by form, and how often each page came (255: that often, or more)."""

    name: str
    size: int
    page_size: int
    full: int = 0
    zero: int = 0
    delta: int = 0
    delta_bytes: int = 0
    times: npt.NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))
    #: Pages of which what came last counts: they came, and were not thrown away for postcopy since.
    valid: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    #: Pages that came by two connections with nothing between them that says which is later.
    unordered: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    pieces: list[PageSendings] = field(default_factory=list)

    @property
    def pages(self) -> int:
        """How many it has."""
        return -(-self.size // self.page_size)

    @property
    def sent_pages(self) -> int:
        """Pages that came at all."""
        return int(np.count_nonzero(self.times))

    @property
    def sent_again(self) -> int:
        """Pages that came more than once."""
        return int(np.count_nonzero(self.times > 1))

    def sendings(self) -> PageSendings:
        """All of them."""
        if not self.pieces:
            nothing = np.zeros(0, np.uint32)
            return PageSendings(
                nothing, nothing.astype(np.uint16), nothing.astype(np.uint8), nothing.astype(np.uint64)
            )
        if len(self.pieces) > 1:
            parts = ("page", "round", "how", "digest")
            joined = [np.concatenate([getattr(one, part) for one in self.pieces]) for part in parts]
            self.pieces = [PageSendings(*joined)]
        return self.pieces[0]


class Ledger:
    """What came, block by block; ``keep``: put memory together.

    ``announced`` finds what the stream has said of a block.
    """

    def __init__(self, *, keep: bool) -> None:
        self._keep = keep
        self.blocks: dict[str, BlockAccount] = {}
        self.memory: dict[str, mmap.mmap] = {}
        self.files: dict[str, int] = {}
        self.announced: Callable[[str], StreamedBlock] | None = None
        self._numbers: dict[str, int] = {}
        self._round = 1
        self._last = -1
        #: Of whoever reads several connections: which it reads, and how often it has waited for all.
        self.way = 0
        self.interval = 0
        #: By block: interval and connection of each page's last sending; only with several connections.
        self._ways: dict[str, tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint8]]] = {}
        self.several_ways = False
        #: What tells rounds apart: the waits, or the order of pages; of pages that were asked for, neither.
        self.rounds_by_waits = False
        self.asked_for = False

    def announce(self, block: StreamedBlock) -> BlockAccount:
        """A block is there, whether a page of it comes or not."""
        account = BlockAccount(block.name, block.size, block.page_size)
        account.times = np.zeros(account.pages, np.uint8)
        account.valid = np.zeros(account.pages, np.bool_)
        account.unordered = np.zeros(account.pages, np.bool_)
        if self._keep and sum(one.size for one in self.blocks.values()) + block.size <= MOST_MEMORY:
            # Zeros until something is written: memory that no page comes to costs nothing.
            size = account.pages * block.page_size
            file = self.files[block.name] = os.memfd_create("stream", os.MFD_CLOEXEC)
            os.ftruncate(file, size)
            self.memory[block.name] = mmap.mmap(file, size)
        elif self._keep:
            raise UnknownFormError(0, f"the stream is of more than {MOST_MEMORY >> 30} GiB of memory")
        self._numbers[block.name] = len(self.blocks)
        self.blocks[block.name] = account
        return account

    def take(self, run: PageRun) -> None:
        """Pages have come."""
        account = self._account(run.block)
        if len(run.pages) > 1 and not (np.diff(run.pages) > 0).all():
            # A page that comes twice in one run, which QEMU does not do: one after the other.
            for at in range(len(run.pages)):
                contents = None if run.contents is None else run.contents[at : at + 1]
                self.take(PageRun(run.block, run.pages[at : at + 1], run.form, contents))
            return
        count = len(run.pages)
        if run.form is PageForm.FULL:
            account.full += count
        elif run.form is PageForm.ZERO:
            account.zero += count
        else:
            account.delta += count
            account.delta_bytes += len(run.delta)
        if self.several_ways:
            self._mind_order(account, run.pages)
        digests = self._put(account, run)
        times = account.times[run.pages]
        account.times[run.pages] = np.minimum(times, _MOST_TIMES - 1) + 1
        account.valid[run.pages] = True
        account.pieces.append(
            PageSendings(
                run.pages.astype(np.uint32),
                self._rounds(account.name, run.pages),
                np.full(count, run.form.value, np.uint8),
                digests,
            )
        )

    def discarded(self, block: str, first: int, count: int) -> None:
        """What came of these pages does not count any more; their memory is zero."""
        account = self._account(block)
        account.valid[first : first + count] = False
        if block in self._ways:
            self._ways[block][0][first : first + count] = 0
        if self._keep:
            size = account.page_size
            np.frombuffer(self.memory[block], np.uint8)[first * size : (first + count) * size] = 0

    def next_interval(self) -> None:
        """All connections have been read up to here: what comes now is later."""
        self.interval += 1

    def flushed(self) -> None:
        """Of one connection: nothing to wait for."""

    def section_ended(self) -> None:
        """Likewise."""

    def _account(self, name: str) -> BlockAccount:
        known = self.blocks.get(name)
        if known is not None:
            return known
        assert self.announced is not None
        return self.announce(self.announced(name))

    def _rounds(self, name: str, pages: StreamedPages) -> npt.NDArray[np.uint16]:
        """QEMU goes through memory in order: where it goes back, another round begins.

        Of several connections the pages between two waits are not in order, so there a wait begins a round.
        """
        if self.rounds_by_waits or self.asked_for:
            now = self.interval if self.rounds_by_waits else self._round
            return np.full(len(pages), min(max(now, 1), _LAST_ROUND), np.uint16)
        places = pages + (self._numbers[name] << _BLOCK_SHIFT)
        back = np.diff(places, prepend=self._last) <= 0
        rounds = np.minimum(self._round + np.cumsum(back), _LAST_ROUND)
        self._round, self._last = int(rounds[-1]), int(places[-1])
        found: npt.NDArray[np.uint16] = rounds.astype(np.uint16)
        return found

    def _mind_order(self, account: BlockAccount, pages: StreamedPages) -> None:
        if account.name not in self._ways:
            # Intervals count from 1 here: 0 is "never came".
            self._ways[account.name] = (
                np.zeros(account.pages, np.uint32),
                np.zeros(account.pages, np.uint8),
            )
        intervals, ways = self._ways[account.name]
        now = self.interval + 1
        both = (intervals[pages] == now) & (ways[pages] != self.way)
        account.unordered[pages[both]] = True
        intervals[pages], ways[pages] = now, self.way

    def _put(self, account: BlockAccount, run: PageRun) -> npt.NDArray[np.uint64]:
        """Into memory; returns the digests of what is there then."""
        pages, size = run.pages, account.page_size
        if run.form is PageForm.DELTA:
            return self._put_delta(account, run)
        memory = None if not self._keep else np.frombuffer(self.memory[account.name], np.uint8)
        rows = None if memory is None else memory.reshape(-1, size)
        if run.form is PageForm.ZERO:
            # As QEMU does: a page that is zero already is not written to.
            written = pages[account.times[pages] > 0]
            if rows is not None and len(written):
                rows[written] = 0
            return np.full(len(pages), _zero_digest(size), np.uint64)
        assert run.contents is not None
        contents = np.ascontiguousarray(run.contents)
        if rows is not None:
            rows[pages] = contents
        return _digests(contents)

    def _put_delta(self, account: BlockAccount, run: PageRun) -> npt.NDArray[np.uint64]:
        if not self._keep:
            return np.zeros(1, np.uint64)
        begin = int(run.pages[0]) * account.page_size
        end = begin + account.page_size
        memory = self.memory[account.name]
        try:
            page = apply_delta(memory[begin:end], run.delta)
        except ValueError as error:
            raise StreamError(0, f"a delta of page {run.pages[0]} of {account.name!r}: {error}") from error
        memory[begin:end] = page
        return np.array([xxhash.xxh3_64_intdigest(page)], np.uint64)


def _digests(contents: npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
    view, (count, size) = contents.data.cast("B"), contents.shape
    digest = xxhash.xxh3_64_intdigest
    each = (digest(view[start : start + size]) for start in range(0, count * size, size))
    return np.fromiter(each, np.uint64, count)


_ZERO_DIGESTS: Final[dict[int, int]] = {}


def _zero_digest(size: int) -> int:
    if size not in _ZERO_DIGESTS:
        _ZERO_DIGESTS[size] = xxhash.xxh3_64_intdigest(bytes(size))
    return _ZERO_DIGESTS[size]
