# SPDX-License-Identifier: GPL-2.0-or-later
"""Actions on a migration that may switch to postcopy: the switch, a connection that breaks, the recovery."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field

from harness.errors import DeadlineExceeded, MachineryError
from harness.events import Deadline
from harness.scenario.actions.base import Action
from harness.scenario.actions.stage import Qemu, Stage
from harness.scenario.values import Rate


class PostcopyStart(Action):
    """Switch to postcopy: the guest leaves the source at once, and its pages follow.

    A migration that has completed by then has not been switched, which makes the run inconclusive.
    """

    action: Literal["postcopy-start"] = "postcopy-start"
    guest: Literal["paused", "runs"] = "paused"
    """paused: it stands still on the destination until every page has arrived, and each must be what the
    source held. runs: it is let go at the switch, and faults on what is missing; docs/postcopy.md says
    what can be told of its pages then."""
    bandwidth: Rate | None = None
    """Limit of what is pushed in postcopy (max-postcopy-bandwidth); null: none. What the destination asks
    for is sent at once whatever it is."""

    needs_postcopy = True
    needs_network = True

    def carry_out(self, stage: Stage, deadline: Deadline) -> None:
        """QMP's ``migrate-start-postcopy``, of which QEMU takes note and nothing more."""
        stage.will_switch(guest_runs=self.guest == "runs")
        if self.bandwidth is not None:
            stage.source.execute("migrate-set-parameters", {"max-postcopy-bandwidth": self.bandwidth})
        stage.start_postcopy(guest_runs=self.guest == "runs")

    @property
    def not_by_libvirt(self) -> str | None:
        """libvirt: "post-copy migration is not supported with non-live or paused migration"."""
        return None if self.guest == "runs" else "libvirt lets the guest run; say guest: runs"


#: The rule of a page that was asked for and does not come.
PAGE_MISSING: Final = "postcopy-page-missing"
#: One page, on request, on a machine that is busy.
PAGE_SECONDS: Final = 30.0
#: Frames are read below this address: above it a machine may have its PCI hole.
_BELOW: Final = 2 << 30


class PostcopyTouch(Action):
    """Have the destination's QEMU read some of the guest's pages, as a device of it would.

    It asks the source for each that is missing, and waits until it has come. That one does not come is a
    finding (postcopy-page-missing).
    """

    action: Literal["postcopy-touch"] = "postcopy-touch"
    pages: Annotated[int, Field(ge=1, le=4096)] = 64
    """How many, at equal distances over its memory below 2 GiB."""

    needs_postcopy = True
    needs_network = True
    waits = True
    finds: ClassVar[Mapping[str, str]] = {
        PAGE_MISSING: "a page that the destination asked for in postcopy did not come"
    }

    def carry_out(self, stage: Stage, deadline: Deadline) -> None:
        """The monitor's ``xp``."""
        sizes = stage.destination.execute("query-memory-size-summary")
        memory = sizes.get("base-memory") if isinstance(sizes, Mapping) else None
        if not isinstance(memory, int):
            raise MachineryError(f"the destination's QEMU does not say how much memory it has: {sizes!r}")
        step = min(memory, _BELOW) // self.pages & ~0xFFF
        # From the end: what is pushed goes up, and would be ahead of each question.
        for address in range(step * (self.pages - 1), -1, -step):
            line = {"command-line": f"xp /1xb {address:#x}"}
            try:
                stage.destination.execute("human-monitor-command", line, seconds=PAGE_SECONDS)
            except DeadlineExceeded:
                text = f"the page at {address:#x} was asked for in postcopy, and has not come"
                stage.find(PAGE_MISSING, f"{text} within {PAGE_SECONDS:g} s")
                return


class PostcopyBreak(Action):
    """Break the connection of a migration in postcopy.

    Both sides then wait, and the guest, where it runs, for its pages.
    """

    action: Literal["postcopy-break"] = "postcopy-break"
    by: Literal["source", "destination", "wire", "libvirt"] = "source"
    """source, destination: that QEMU closes its end (migrate-pause), and the other has to notice. wire: the
    network between the hosts goes down, of which neither hears anything; both are told by migrate-pause,
    and the network comes back. libvirt, with postcopy: libvirt: the source's libvirt is asked to
    (VIR_DOMAIN_ABORT_JOB_POSTCOPY)."""
    early: bool = False
    """Do not wait until the destination has loaded the guest's devices. A QEMU that has not cannot be
    recovered; see docs/found.md."""

    needs_postcopy = True
    needs_network = True

    def carry_out(self, stage: Stage, deadline: Deadline) -> None:
        """QMP's ``migrate-pause``."""
        stage.will_break()
        if not self.early:
            _await_loaded(stage.destination, deadline)
        if self.by == "libvirt":
            stage.pause_postcopy()
            return
        if self.by == "wire":
            stage.wire.cut()
        if self.by != "destination":
            stage.source.execute("migrate-pause", at_once=True)
        if self.by != "source":
            # Its main loop may wait for a page that does not come.
            stage.destination.execute("migrate-pause", at_once=True)
        if self.by == "wire":
            stage.wire.mend()

    @property
    def touches_wire(self) -> bool:
        """By the wire."""
        return self.by == "wire"

    @property
    def needs_libvirt(self) -> str | None:
        """A migration past libvirt is none that it could abort."""
        return "libvirt has no job that it could be asked to abort" if self.by == "libvirt" else None


def _await_loaded(destination: Qemu, deadline: Deadline) -> None:
    """Return when this QEMU waits for its guest no more, but for pages of it."""
    while True:
        status = destination.execute("query-status", seconds=deadline.timeout())
        if isinstance(status, Mapping) and status.get("status") != "inmigrate":
            return
        deadline.check()


class PostcopyRecover(Action):
    """Connect both sides anew, and have the migration go on where it broke."""

    action: Literal["postcopy-recover"] = "postcopy-recover"
    bandwidth: Rate | None = None
    """The limit of what is pushed from now on; null: none."""

    needs_postcopy = True
    connects_anew = True

    def carry_out(self, stage: Stage, deadline: Deadline) -> None:
        """QMP's ``migrate-recover`` there, and ``migrate`` with ``resume`` here; or libvirt does both."""
        # No limit is a zero here, other than for max-bandwidth.
        limit = self.bandwidth or 0
        stage.source.execute("migrate-set-parameters", {"max-postcopy-bandwidth": limit})
        stage.recover(deadline)
