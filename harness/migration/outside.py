# SPDX-License-Identifier: GPL-2.0-or-later
"""The outside walk in a run: one kernel, found while the migration is being set up, and a look at each hold.

    with OutsideWalk.begin(images, ranges, monitor) as outside:     # the search runs in a thread
        looked = outside.look()                                      # the guest stands still

A look is a :class:`FreeWalk`, or the :class:`WalkError` that there is instead.  A
hold must end whatever comes of it, so an error is kept here and raised by whoever
cannot do without the walk.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import TypeAlias

from harness.errors import MachineryError
from harness.memory.access import Image
from harness.memory.image import Flags
from harness.memory.registered import SourceFinding
from harness.memory.walk import (
    FreeWalk,
    GuestMemory,
    KernelLayout,
    TornError,
    WalkError,
    find_kernel,
    to_pages,
    walk_memory,
)
from harness.memory.walk.paravirt import registered_by_kernel
from harness.migration.memory_map import Range

Look: TypeAlias = FreeWalk | WalkError


class OutsideWalk:
    """Walks the guest of one QEMU.  Use :meth:`begin`; ``close()`` waits for the search."""

    def __init__(self, images: Mapping[str, Image], ranges: Mapping[str, Sequence[Range]]) -> None:
        self._images = images
        self._ranges = ranges
        self._stack = ExitStack()
        self._pool = self._stack.enter_context(ThreadPoolExecutor(1, "find-kernel"))
        self._kernel: Future[KernelLayout] | None = None

    @classmethod
    def begin(cls, images: Mapping[str, Image], ranges: Mapping[str, Sequence[Range]]) -> OutsideWalk:
        """Begin to look for the kernel; the guest may run meanwhile.

        Images are read through one buffer each, so the search has its own.
        """
        outside = cls(images, ranges)
        own = {
            name: outside._stack.enter_context(contextlib.closing(image.again()))
            for name, image in images.items()
        }
        outside._kernel = outside._pool.submit(lambda: find_kernel(outside._memory(own)))
        return outside

    def close(self) -> None:
        """Let go of everything."""
        self._stack.close()

    def __enter__(self) -> OutsideWalk:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def look(self) -> Look:
        """Walk the guest, which stands still."""
        assert self._kernel is not None
        try:
            memory = self._memory(self._images)
            try:
                return walk_memory(memory, self._kernel.result())
            except TornError:
                raise
            except WalkError:
                # The guest may have booted another kernel since; if it has not, the first error stands.
                again = find_kernel(memory)
                walk = walk_memory(memory, again)
                self._kernel = Future()
                self._kernel.set_result(again)
                return walk
        except WalkError as error:
            return error

    def registered(self) -> SourceFinding | None:
        """What the kernel has for its hypervisor to write; None if it cannot be told."""
        assert self._kernel is not None
        try:
            return registered_by_kernel(self._memory(self._images), self._kernel.result())
        except WalkError:
            return None

    def pages(self, frames: Flags, block: str, pages: int) -> Flags:
        """Flags by guest frame as flags by page of a RAMBlock."""
        return to_pages(frames, self._ranges.get(block, ()), pages)

    def _memory(self, images: Mapping[str, Image]) -> GuestMemory:
        try:
            return GuestMemory.of(_mapped(images, self._ranges))
        except MachineryError as error:
            raise WalkError("no-memory", "the guest's memory", error.message) from error


def _mapped(
    images: Mapping[str, Image], ranges: Mapping[str, Sequence[Range]]
) -> Iterable[tuple[Image, Sequence[Range]]]:
    return [(image, ranges[name]) for name, image in images.items() if ranges.get(name)]
