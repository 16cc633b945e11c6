# SPDX-License-Identifier: GPL-2.0-or-later
"""A lab with several guests, as one of them sees it: its own name, NIC and connections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.hosts.lab import Lab, LabHost


@dataclass(frozen=True, slots=True)
class LabOfGuest:
    """See :class:`harness.hosts.interface.Pair`.  ``number``: of the guest, from 1."""

    lab: Lab
    number: int
    source: LabHost
    destination: LabHost

    @classmethod
    def of(cls, lab: Lab, number: int) -> LabOfGuest:
        """The view of one guest; to be made once for each."""
        return cls(lab, number, lab.source.for_guest(number), lab.destination.for_guest(number))

    @property
    def hosts(self) -> tuple[LabHost, ...]:
        """Source and destination."""
        return self.source, self.destination

    @property
    def runtime_dir(self) -> Path:
        """The lab's: what a guest puts there begins with its label."""
        return self.lab.runtime_dir

    @property
    def memory_dir(self) -> Path:
        """The lab's."""
        return self.lab.memory_dir

    @property
    def file_room(self) -> Path | None:
        """The lab's."""
        return self.lab.file_room

    @property
    def guest_name(self) -> str:
        """Another one for each guest."""
        return f"{self.lab.guest_name}-{self.number}"

    def report(self) -> None:
        """None, as of a lab."""

    def bring(self, files: Mapping[str, Path]) -> None:
        """Nothing has to be brought."""
