# SPDX-License-Identifier: GPL-2.0-or-later
"""Actions on pages of the script's own in the guest: known contents, which must survive.

They are read once more at the end of the run: wrong ones are a finding (guest-pages).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from harness.events import Deadline
from harness.scenario.actions.base import GuestAction
from harness.scenario.actions.stage import Stage


class PagesAlloc(GuestAction):
    """The guest takes pages from its free lists and writes known contents to them."""

    action: Literal["pages-alloc"] = "pages-alloc"
    pages: Annotated[int, Field(ge=1, le=262144)]
    """How many."""

    def carry_out(self, stage: Stage, deadline: Deadline) -> None:
        """Their contents follow from the run's seed."""
        stage.pages.call("alloc", stage.facts.seed, self.pages, deadline=deadline)


class PagesFree(GuestAction):
    """The guest gives the last of these pages back."""

    action: Literal["pages-free"] = "pages-free"
    pages: Annotated[int, Field(ge=1, le=262144)]
    """How many."""

    def carry_out(self, stage: Stage, deadline: Deadline) -> None:
        """The last that were taken go first."""
        stage.pages.call("free", self.pages, deadline=deadline)


class PagesWrite(GuestAction):
    """The guest writes new contents to all pages that pages-alloc took."""

    action: Literal["pages-write"] = "pages-write"

    def carry_out(self, stage: Stage, deadline: Deadline) -> None:
        """One write to each."""
        stage.pages.call("write", deadline=deadline)


class PagesRead(GuestAction):
    """The guest reads all pages that pages-alloc took; wrong contents are a finding (guest-pages)."""

    action: Literal["pages-read"] = "pages-read"

    def carry_out(self, stage: Stage, deadline: Deadline) -> None:
        """What is wrong is counted."""
        stage.pages.call("read", deadline=deadline)
