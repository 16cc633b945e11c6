# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU migrates to a file itself: while the guest runs, or as it was at one moment (background snapshot)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Final

from harness.errors import MachineryError
from harness.memory.compare import compare
from harness.migration.qmp import CommandError
from harness.migstream.account import read_stream
from harness.migstream.source import StreamError, UnknownFormError
from harness.run.saved.frozen import frozen
from harness.run.saved.job import SavedJob
from harness.run.saved.qmp_stream import (
    IN_BACKGROUND,
    TO_FILE,
    capabilities_of,
    load,
    parameters_of,
    switch_on,
    told_of,
)
from harness.run.saved.used_memory import fill
from harness.verdict.finding import Finding
from harness.verdict.outcome import KIND as OUTCOME

if TYPE_CHECKING:
    from pathlib import Path

    import libvirt

    from harness.memory.access import Image
    from harness.migration.statistics import RamBlock
    from harness.run.saved.job import Crossing

_PAGES: Final = ("normal", "duplicate")


def _differing(then: Image | OSError, now: Image | OSError) -> int:
    """How many pages of a block are not what they were; none of one that cannot be read."""
    if isinstance(then, OSError) or isinstance(now, OSError):
        return 0
    return int(compare(then, now).differing.size)


def flaw_of(path: Path) -> str | None:
    """Why a file is no whole stream of QEMU's; None: it is, or it is of a form that is not read here."""
    try:
        with path.open("rb") as file:
            read_stream(file, keep=False).close()
    except UnknownFormError:
        return None
    except StreamError as error:
        return error.message
    return None


class StreamToFile(SavedJob):
    """``migrate`` to a ``file:``, and ``migrate-incoming`` from it in a QEMU that has waited."""

    incoming: ClassVar[bool] = True
    #: What is switched on whatever the scenario says.
    always: ClassVar[tuple[str, ...]] = TO_FILE
    #: What is wrong with the file that was written.
    _flaw: str | None = None

    def begin(self) -> None:
        """Start the destination's QEMU, and have the source's write."""
        crossing = self._with
        self.start_destination()
        self._destination = crossing.arrive()
        try:
            capabilities = capabilities_of(crossing.modes, self.always)
            parameters = parameters_of(crossing.modes)
            switch_on(crossing.source, capabilities, parameters)
            # The moment of a snapshot is the source's own matter.
            there = [name for name in capabilities if name != "background-snapshot"]
            switch_on(self._destination.monitor, there, parameters)
            self.before()
            crossing.file.begun()
            with told_of(
                crossing.source, crossing.file.path, crossing.file.how.by, writes=True, direct=self._direct
            ) as uri:
                crossing.source.execute("migrate", {"uri": uri})
        except CommandError as error:
            self.stay_if_stopped()
            self.give_up(error.message)

    @property
    def _direct(self) -> bool:
        return self._with.how.direct_io

    def before(self) -> None:
        """What is done before QEMU is told to begin."""

    def stay_if_stopped(self) -> None:
        """A guest that was stopped for the sake of the file goes on."""

    def on_way(self, status: str) -> None:
        """The device state may be written."""
        if status == "pre-switchover":
            self._with.source.execute("migrate-continue", {"state": "pre-switchover"})

    def written(self) -> None:
        """The file is read here as well: a QEMU that takes it may not need all that is missing of it."""
        self._flaw = flaw_of(self._with.file.path)

    @property
    def findings(self) -> list[Finding]:
        """Of the file as QEMU has written it, too."""
        if self._flaw is None:
            return super().findings
        text = f"QEMU has written {self._with.file.path}, which is no whole stream: {self._flaw}"
        return [*super().findings, Finding("file-broken", OUTCOME, text)]

    def restore(self) -> libvirt.virDomain:
        """Have the QEMU that waits read the file."""
        crossing, destination = self._with, self._destination
        if crossing.file.how.used_memory:
            blocks = destination.ramblocks()
            fill(destination.monitor.pid, [block for block in blocks if block.name in crossing.images])
            crossing.file.memory_was_used()
        monitor, file = destination.monitor, crossing.file
        with told_of(monitor, file.to_restore(), file.how.by, writes=False, direct=self._direct) as uri:
            load(monitor, uri, crossing.deadline)
        assert self._there is not None
        return self._there


class BackgroundSnapshot(StreamToFile):
    """The guest as it is at one moment, while it writes on.

    It stands still when QEMU begins, so that its memory and devices can be put down as they are at that
    moment, and goes on once QEMU has protected all of its pages: that is when the first has been written.
    """

    always: ClassVar[tuple[str, ...]] = IN_BACKGROUND

    def __init__(self, crossing: Crossing) -> None:
        super().__init__(crossing)
        self._held: dict[str, Image] = {}
        self._went_on = False

    def image(self, name: str, image: Image) -> Image:
        """What it held at the moment of the snapshot."""
        return self._held.get(name, image)

    def before(self) -> None:
        """Stop the guest, and put down what it is like."""
        crossing = self._with
        source = crossing.sides.source
        source.monitor.execute("stop")
        for name, image in crossing.images.items():
            self._held[name] = frozen(image)
            source.closing.callback(self._held[name].close)
        crossing.seen.others = source.copy(self._others())
        self.keep_devices(source.save_devices())

    def _others(self) -> list[RamBlock]:
        """The blocks that are no files: all, if the guest's memory is anonymous."""
        blocks = self._with.sides.source.ramblocks()
        return [block for block in blocks if block.name not in self._with.images]

    def stay_if_stopped(self) -> None:
        """The guest, which was stopped for the snapshot, goes on."""
        if not self._went_on:
            self._went_on = True
            self._with.source.execute("cont")

    def give_up(self, reason: str) -> None:
        """The guest goes on, whatever became of its snapshot."""
        if not self._over:
            self.stay_if_stopped()
        super().give_up(reason)

    def on_way(self, status: str) -> None:
        """Let the guest write on, as soon as its pages are protected."""
        if status == "active" and self._pages_written():
            self.stay_if_stopped()

    def _pages_written(self) -> bool:
        """Wait for the first page: QEMU writes none before it has protected all."""
        while True:
            answer = self._with.source.execute("query-migrate")
            if not isinstance(answer, Mapping) or answer.get("status") in ("failed", "cancelled"):
                return False
            ram = answer.get("ram")
            pages = [ram.get(name, 0) for name in _PAGES] if isinstance(ram, Mapping) else []
            if answer.get("status") == "completed" or sum(pages):
                return True
            self._with.deadline.check()

    def written(self) -> None:
        """Stop the guest, which is further than its snapshot by now; how far is counted."""
        self._with.source.execute("stop")
        super().written()
        then = {**self._held, **(self._with.seen.others or {})}
        now = {**self._with.images, **self._with.sides.source.copy(self._others())}
        pages = sum(_differing(held, now[name]) for name, held in then.items())
        self._with.file.pages_written_meanwhile(pages)
        if not self._went_on:
            raise MachineryError("the snapshot was written before the guest could go on")
