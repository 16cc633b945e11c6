# SPDX-License-Identifier: GPL-2.0-or-later
"""Which of a guest's pages its hypervisor writes to: asked of the guest, of its memory, and of QEMU."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from harness.errors import FreepageError, GuestRefused
from harness.events import Deadline, EventStream
from harness.guest.control import GuestControl
from harness.memory.access import Comparison, Image
from harness.memory.host_written import MOST_CANDIDATES, Page, guid_in_memory, named_pages
from harness.memory.record import Block
from harness.memory.registered import (
    GENERATION,
    LINK_EVENT,
    SIZES,
    HostStructure,
    SourceFinding,
    agreed,
    from_registers,
)
from harness.migration.outside import OutsideWalk
from harness.units import PAGE_SIZE

if TYPE_CHECKING:
    from harness.migration.qmp import Monitor

#: Of a guest that answers at all.
_ANSWER_SECONDS: Final = 60.0
#: struct Vmxnet3_DriverShared of Linux's drivers/net/vmxnet3/vmxnet3_defs.h, in a page of its own: how it
#: begins, and where the events are.
_SHARED_MAGIC: Final = (0xBABEFEE1).to_bytes(4, "little")
_EVENTS_OFFSET: Final = 696
#: Where QEMU puts the id in its page, so that firmware finds a table's header in front of it.
_GUID_OFFSET: Final = 40


@dataclass(frozen=True)
class HostWritten:
    """What the hypervisor may write to, as far as anybody can tell."""

    structures: frozenset[HostStructure] = frozenset()
    guids: tuple[bytes, bytes] | None = None
    #: QEMU gives each its registers anew.
    vcpus: int = 1
    #: The guest has such a NIC: QEMU tells its driver, when it ends, that the link is down.
    vmxnet3: bool = False


def read_registers(control: GuestControl, vcpus: int) -> SourceFinding | None:
    """KVM's registers of every processor, as the guest reads them; None if it cannot.

    Raises :class:`harness.errors.GuestLost` if it does not answer.
    """
    deadline = Deadline(_ANSWER_SECONDS, "the guest's registers")
    try:
        cpus = [control.call("msrs", cpu, deadline=deadline) for cpu in range(vcpus)]
    except GuestRefused:
        # A kernel without /dev/cpu, a driver of somebody's own: its memory tells as well.
        return None
    return from_registers([{name: _number(value) for name, value in cpu.items()} for cpu in cpus])


def _number(value: object) -> int | None:
    return int(value, 16) if isinstance(value, str) else None


def generation_id(monitor: Monitor) -> bytes | None:
    """The VM generation id that a QEMU gives its guest, as the guest's memory holds it."""
    with contextlib.suppress(FreepageError, ValueError):
        answer = monitor.execute("query-vm-generation-id")
        if isinstance(answer, Mapping):
            return guid_in_memory(str(answer.get("guid")))
    return None


def host_written(
    registers: SourceFinding | None,
    outside: OutsideWalk | None,
    guids: tuple[bytes | None, bytes | None],
    accelerator: str,
    vcpus: int,
    events: EventStream,
    *,
    vmxnet3: bool = False,
) -> HostWritten:
    """Put together what is registered; the guest stands still."""
    structures: frozenset[HostStructure] = frozenset()
    if accelerator == "kvm":
        kernel = outside.registered() if outside is not None else None
        found = agreed([source for source in (registers, kernel) if source is not None])
        structures = found.structures
        events.emit(
            "registered",
            by=list(found.by),
            structures=[f"{one.name} at {one.address:#x}" for one in sorted(structures)],
            unconfirmed=[f"{one.name} at {one.address:#x}" for one in sorted(found.unconfirmed)],
        )
    here, there = guids
    both = (here, there) if here is not None and there is not None else None
    return HostWritten(structures, both, vcpus, vmxnet3)


def names_of(
    known: HostWritten, block: Block, found: Comparison, source: Image, destination: Image
) -> Mapping[int, str]:
    """Names for those pages of a block that differ because the hypervisor wrote to them."""
    if not known.structures and known.guids is None and not known.vmxnet3:
        return {}
    # What was left behind is zero over there, and is nothing that anybody wrote.
    candidates = found.differing[~found.zero_on_destination[found.differing]].tolist()
    if len(candidates) > MOST_CANDIDATES:
        return {}
    pages = []
    for number in candidates:
        frame = block.frame(number)
        if frame is not None:
            pages.append(Page(number, frame * PAGE_SIZE, source.page(number), destination.page(number)))
    structures = known.structures | _generations(pages, known.guids)
    if known.vmxnet3:
        structures |= _link_events(pages)
    return named_pages(pages, structures, known.guids, vcpus=known.vcpus)


def _generations(pages: list[Page], guids: tuple[bytes, bytes] | None) -> frozenset[HostStructure]:
    """The one page that has the source's id where QEMU puts it; none if there are several."""
    if guids is None:
        return frozenset()
    end = _GUID_OFFSET + SIZES[GENERATION]
    found = [page.address for page in pages if page.source[_GUID_OFFSET:end] == guids[0]]
    return frozenset({HostStructure(GENERATION, found[0] + _GUID_OFFSET)}) if len(found) == 1 else frozenset()


def _link_events(pages: list[Page]) -> frozenset[HostStructure]:
    """Where drivers of vmxnet3 have what they share with their devices, as both sides say."""
    shared = [page for page in pages if page.source[:4] == page.destination[:4] == _SHARED_MAGIC]
    return frozenset(HostStructure(LINK_EVENT, page.address + _EVENTS_OFFSET) for page in shared)
