# SPDX-License-Identifier: GPL-2.0-or-later
"""What a run takes of the machine, and what the machine has."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from harness.hosts.this_machine import memory_available
from harness.nested.machine import OWN_MEMORY
from harness.plan.kinds import kind_of
from harness.scenario.load import Scenario
from harness.scenario.resolve import HOST_MARGIN, host_margin

_HUGE_PAGES: Final = Path("/sys/kernel/mm/hugepages")
_MEMINFO: Final = Path("/proc/meminfo")
#: A nested machine has as many vCPUs at most (:class:`harness.nested.machine.MachineSpec`).
_NESTED_CPUS: Final = 4


@dataclass(frozen=True, slots=True)
class Resources:
    """Memory in bytes, CPUs, and huge pages by their size in bytes."""

    memory: int
    cpus: int
    huge_pages: Mapping[int, int] = field(default_factory=dict)

    def holds(self, needed: Resources) -> bool:
        """Whether ``needed`` is a part of this."""
        pages = needed.huge_pages.items()
        return (
            needed.memory <= self.memory
            and needed.cpus <= self.cpus
            and all(count <= self.huge_pages.get(size, 0) for size, count in pages)
        )

    def without(self, taken: Resources) -> Resources:
        """What is left."""
        left = {size: count - taken.huge_pages.get(size, 0) for size, count in self.huge_pages.items()}
        return Resources(self.memory - taken.memory, self.cpus - taken.cpus, left)

    def within(self, most: Resources) -> Resources:
        """The same, but no more CPUs than there are: a run has to get along with those."""
        return Resources(self.memory, min(self.cpus, most.cpus), self.huge_pages)


def needs_of(scenario: Scenario, *, nested: bool) -> Resources:
    """What one run takes of this machine while it lasts."""
    if not kind_of(scenario).local:
        return Resources(HOST_MARGIN, 1)
    guest = scenario.guest
    both, margin = scenario.memory_of_both, host_margin(scenario)
    vcpus = scenario.guests * guest.vcpus
    if nested:
        # Inside there are no huge pages of this host's.
        return Resources(both + scenario.copied_memory + HOST_MARGIN + margin + OWN_MEMORY, _NESTED_CPUS)
    size = huge_page_size() if guest.hugepages else guest.memory_backend and guest.memory_backend.page
    if size:
        pages = {size: 2 * scenario.guests * -(-guest.all_memory // size)}
        return Resources(scenario.copied_memory + margin, vcpus, pages)
    return Resources(both + scenario.copied_memory + margin, vcpus)


def machine_resources(folder: Path = _HUGE_PAGES) -> Resources:
    """What this machine has to give now."""
    pages = {}
    for place in folder.glob("hugepages-*kB"):
        size = int(place.name.removeprefix("hugepages-").removesuffix("kB")) * 1024
        pages[size] = int((place / "free_hugepages").read_text(encoding="ascii"))
    return Resources(memory_available(), len(os.sched_getaffinity(0)), pages)


def huge_page_size(meminfo: Path = _MEMINFO) -> int:
    """The size of this machine's ordinary huge pages, in bytes; 0: it has none."""
    for line in meminfo.read_text(encoding="ascii").splitlines():
        if line.startswith("Hugepagesize:"):
            return int(line.split()[1]) * 1024
    return 0
