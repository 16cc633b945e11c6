# SPDX-License-Identifier: GPL-2.0-or-later
"""What needs the pieces of a run in another order than a scenario has them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from typing import Any

import libvirt
import numpy as np
import pytest

from harness.errors import GuestLost, MachineryError
from harness.events import Deadline
from harness.memory.image import RamImage
from harness.memory.record import read_record
from harness.testing import LabFixture, LabGuest

MEMORY = "512MiB"
PAGE = 4096

#: The kernel clears a huge page when it is taken, whatever was done when it was freed.
SMALL = "transparent_hugepage=never"


def test_an_ssh_session_survives_the_migration(lab: LabFixture) -> None:
    """A session that was opened before the migration is used after it."""
    guest = lab.boot("idle", memory=MEMORY)
    boot_id = ["cat", "/proc/sys/kernel/random/boot_id"]
    before = guest.shell(boot_id)
    guest.shell("echo kept > /run/mark")
    with guest.migration() as migration:
        migration.run()
        migration.resume()
        after = guest.shell(boot_id)
        mark = guest.shell(["cat", "/run/mark"])
        sides = ("source", "destination")
        where = {side: len(guest.host(side).connect().listAllDomains()) for side in sides}
    assert before == after
    assert mark == "kept\n"
    assert where == {"source": 0, "destination": 1}


def test_there_and_back_by_hand(lab: LabFixture) -> None:
    """One migration is left, and so cancelled; the next two go there and back."""
    guest = lab.boot("idle", memory="256MiB")
    with guest.migration() as migration:
        migration.begin(hold=["request"])
        with migration.held("request"):
            assert migration.monitor("source").execute("query-status")["running"] is False  # type: ignore[index]
    assert guest.call("ping") is not None
    guest.shell("echo kept > /run/mark")
    for _ in range(2):
        with guest.migration() as migration:
            migration.run()
            assert migration.judge().verdict == "pass"
            migration.resume()
    assert guest.shell("cat /run/mark") == "kept\n"
    assert len(guest.host("source").connect().listAllDomains()) == 1
    assert "Linux version" in guest.console()


def test_a_changed_bit_is_found(lab: LabFixture) -> None:
    """A checker that nobody has seen fail is not a checker.

    One bit of a page that was sent and one of a page that was skipped are changed on the destination.
    """
    guest = lab.boot("freed", memory=MEMORY)
    guest.load()
    with guest.migration() as migration:
        migration.run()
        image = migration.images("destination")["pc.ram"]
        assert isinstance(image, RamImage)
        sent = next(first for first, count in image.extents() if count > 8) + 4
        skipped = int(image.holes().nonzero()[0][1000])
        with guest.memory_file("destination").open("r+b") as file:
            for page in (sent, skipped):
                (byte,) = os.pread(file.fileno(), 1, page * PAGE + 123)
                os.pwrite(file.fileno(), bytes([byte ^ 0x10]), page * PAGE + 123)
        judgement = migration.judge()
    assert judgement.verdict == "fail"
    wrong = judgement.wrong_pages()
    assert [page.page for page in wrong] == sorted([sent, skipped])
    assert {page.rule for page in wrong} == {"differs-though-sent", "skipped-but-not-zero-on-destination"}


def resize(guest: LabGuest, size: int, after: int) -> Mapping[str, int]:
    """What `virsh setmem` and `virsh dommemstat` do; ``after``: statistics are to be younger."""
    deadline = Deadline(180, "the balloon")
    domain = guest.domain
    asked = guest.events.emit("balloon-asked", size=size)
    domain.setMemoryFlags(size >> 10, libvirt.VIR_DOMAIN_AFFECT_LIVE)
    guest.events.wait(
        lambda event: event.kind == "BALLOON_CHANGE" and event.data["data"]["actual"] == size,  # type: ignore[index]
        deadline,
        after=asked.seq,
    )
    domain.setMemoryStatsPeriod(1, libvirt.VIR_DOMAIN_AFFECT_LIVE)
    pause = threading.Event()
    # QEMU has no event for statistics that have arrived; before, they have no "unused" in them.
    while True:
        statistics: dict[str, int] = domain.memoryStats()
        if statistics.get("last_update", 0) > after and "unused" in statistics:
            return statistics
        deadline.check()
        pause.wait(0.2)


def test_the_balloon_works_before_and_after_a_migration(lab: LabFixture) -> None:
    """Inflated on the source, deflated on the destination, and statistics on both."""
    guest = lab.boot("idle", memory=MEMORY)
    full, small = 512 << 20, 384 << 20
    asked_at = int(time.time())
    with guest.monitor("source"):
        before = resize(guest, small, asked_at)
    with guest.migration() as migration:
        migration.run()
        migration.resume()
        after = resize(guest, full, int(time.time()))
    assert before["actual"] == 384 << 10
    assert after["actual"] == 512 << 10
    # What was given back can be used again; the statistics are the guest's own.
    assert after["unused"] - before["unused"] > 100 << 10


def fresh_pages(lab: LabFixture, cmdline: str, plant: int = 0) -> dict[str, Any]:
    """What a guest finds in pages that it takes after its migration.

    ``plant``: so many pages that were skipped are not all zeros on the destination.
    """
    guest = lab.boot("freed", memory=MEMORY, set={"guest.cmdline": f"{cmdline} {SMALL}"})
    guest.load()
    with guest.migration() as migration:
        migration.run()
        (record,) = read_record(guest.folder.file("source.record"))
        skipped = np.zeros(record.blocks["pc.ram"].pages, dtype=np.bool_)
        for accept in record.accepts:
            flags = accept.cleared.flags()
            skipped[accept.first : accept.first + len(flags)] |= flags
        skipped &= ~record.sent["pc.ram"].flags()
        with guest.memory_file("destination").open("r+b") as file:
            # From everywhere: the lowest are kept back for devices that reach no others.
            for page in np.random.default_rng(1).choice(skipped.nonzero()[0], plant, replace=False):
                os.pwrite(file.fileno(), b"stale...", int(page) * PAGE + 8)
        seen: dict[str, Any] = {"skipped": int(skipped.sum()), "exercise": None, "trouble": None}
        try:
            migration.resume()
            seen["exercise"] = guest.call("exercise", 1, timeout=300)
        except (GuestLost, MachineryError) as error:
            # A page table that is not empty is the end of whoever gets it.
            seen["trouble"] = error.message
    return seen


def test_a_guest_that_clears_what_it_frees_gets_zeros(lab: LabFixture) -> None:
    """With init_on_free nobody clears a page when it is taken: one that was skipped must be zeros."""
    seen = fresh_pages(lab, "init_on_free=1")
    assert seen["skipped"] > 50_000
    assert seen["exercise"]["pages"] > 50_000
    assert (seen["exercise"]["bad"], seen["exercise"]["nonzero"]) == (0, 0)


def test_such_a_guest_would_notice(lab: LabFixture) -> None:
    """The test above can fail: of 2000 pages that are not zeros, most are found, or somebody dies of them."""
    seen = fresh_pages(lab, "init_on_free=1", plant=2000)
    assert seen["trouble"] or seen["exercise"]["nonzero"] > 1000


@pytest.mark.slow
def test_others_do_not_care(lab: LabFixture) -> None:
    """Without it the same pages are cleared when they are taken."""
    seen = fresh_pages(lab, "init_on_free=0", plant=2000)
    assert seen["exercise"]["nonzero"] == 0
