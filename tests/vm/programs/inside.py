# SPDX-License-Identifier: GPL-2.0-or-later
"""Parts of a run put together otherwise than the command does; prints one JSON object.

python -m tests.vm.programs.inside WHAT OUT [QEMU]
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path

import libvirt
import numpy as np

from harness.errors import GuestLost, MachineryError
from harness.events import Deadline, EventStream
from harness.hosts.enter import enter
from harness.hosts.netns import GUEST_ADDRESS
from harness.hosts.this_machine import command_start
from harness.plan.here import LabMachines
from harness.plan.plan import RunPlan, Tools
from harness.plan.prepare import load as load_scenario
from harness.plan.prepare import prepare
from harness.report.folder import RunFolder
from harness.run.boot import ReadyGuest, load, ready_guest

PAGE = 4096


def ssh(here: ReadyGuest, folder: RunFolder, events: EventStream) -> dict[str, object]:
    """A session that was opened before the migration is used after it."""
    from harness.guest.shell import Shell
    from harness.run.live_migration import LiveMigration

    deadline = Deadline(120, "ssh")
    boot_id = ["cat", "/proc/sys/kernel/random/boot_id"]
    place = here.lab.runtime_dir / "ssh"
    with Shell.connect(GUEST_ADDRESS, here.guest.keys, place, deadline) as shell:
        before = shell.run(boot_id, deadline).check()
        shell.run(["sh", "-c", "echo kept > /run/mark"], deadline).check()
        with LiveMigration(here.guest, (here.lab.source, here.lab.destination), folder, events) as migration:
            switch_over = migration.run(here.domain, here.plan.resolved.scenario.migration)
            switch_over.domain.resume()
            after = shell.run(boot_id, deadline).check()
            mark = shell.run(["cat", "/run/mark"], deadline).check()
            where = {host.name: len(host.connect().listAllDomains()) for host in here.lab.hosts}
    return {"before": before, "after": after, "mark": mark, "where": where}


def corrupt(here: ReadyGuest, folder: RunFolder, events: EventStream) -> dict[str, object]:
    """One bit of a page that was sent and one of a page that was skipped are changed on the destination."""
    from harness.evidence.gather import gather
    from harness.run.live_migration import LiveMigration
    from harness.verdict.judge import judge_memory

    load(here, events)
    with LiveMigration(here.guest, (here.lab.source, here.lab.destination), folder, events) as migration:
        switch_over = migration.run(here.domain, here.plan.resolved.scenario.migration)
        image = switch_over.destination.images["pc.ram"]
        sent = next(first for first, count in image.extents() if count > 8) + 4
        skipped = int(image.holes().nonzero()[0][1000])
        (path,) = here.lab.destination.memory_dir.rglob("pc.ram")
        descriptor = os.open(path, os.O_RDWR)
        for page in (sent, skipped):
            (byte,) = os.pread(descriptor, 1, page * PAGE + 123)
            os.pwrite(descriptor, bytes([byte ^ 0x10]), page * PAGE + 123)
        os.close(descriptor)
        judgement = judge_memory(gather(switch_over, here.plan.resolved, events).case).judgement
    return {
        "changed": sorted([sent, skipped]),
        "verdict": judgement.verdict,
        "reason": judgement.reason,
        "wrong": [[page.page, page.rule] for page in judgement.wrong_pages()],
    }


def balloon(here: ReadyGuest, folder: RunFolder, events: EventStream) -> dict[str, object]:
    """What `virsh setmem` and `virsh dommemstat` do, before and after a migration of an inflated guest."""
    from harness.migration.qmp import Monitor, MonitorLoop
    from harness.migration.transcript import Transcript
    from harness.run.live_migration import LiveMigration

    deadline = Deadline(180, "the balloon")
    full, small = 512 << 20, 384 << 20

    def resize(domain: libvirt.virDomain, size: int) -> dict[str, int]:
        asked = events.emit("balloon-asked", size=size)
        domain.setMemoryFlags(size >> 10, libvirt.VIR_DOMAIN_AFFECT_LIVE)
        events.wait(
            lambda event: event.kind == "BALLOON_CHANGE" and event.data["data"]["actual"] == size,  # type: ignore[index]
            deadline,
            after=asked.seq,
        )
        domain.setMemoryStatsPeriod(1, libvirt.VIR_DOMAIN_AFFECT_LIVE)
        # QEMU has no event for statistics that have arrived; before, they have no "unused" in them.
        while True:
            statistics: dict[str, int] = domain.memoryStats()
            if statistics.get("last_update", 0) > asked_at and "unused" in statistics:
                return statistics
            deadline.check()
            pause.wait(0.2)

    pause = threading.Event()
    asked_at = int(time.time())
    with MonitorLoop() as loop, Transcript(folder.file("qmp-balloon.jsonl")) as transcript:
        socket = here.guest.monitor_socket(here.lab.source)
        monitor = Monitor.connect(loop, "source", socket, events, transcript, deadline)
        before = resize(here.domain, small)
        monitor.close()
    with LiveMigration(here.guest, (here.lab.source, here.lab.destination), folder, events) as migration:
        switch_over = migration.run(here.domain, here.plan.resolved.scenario.migration)
        switch_over.domain.resume()
        asked_at = int(time.time())
        after = resize(switch_over.domain, full)
    return {"before": before, "after": after}


def fresh(here: ReadyGuest, folder: RunFolder, events: EventStream) -> dict[str, object]:
    """What a guest that clears pages when it frees them finds in fresh ones, after its migration."""
    return _fresh(here, folder, events, plant=0)


def planted(here: ReadyGuest, folder: RunFolder, events: EventStream) -> dict[str, object]:
    """The same, with a destination whose pages that were skipped are not all zeros."""
    return _fresh(here, folder, events, plant=2000)


def _fresh(here: ReadyGuest, folder: RunFolder, events: EventStream, plant: int) -> dict[str, object]:
    from harness.memory.record import read_record
    from harness.run.live_migration import LiveMigration

    load(here, events)
    deadline = Deadline(300, "the guest's exercise")
    with LiveMigration(here.guest, (here.lab.source, here.lab.destination), folder, events) as migration:
        switch_over = migration.run(here.domain, here.plan.resolved.scenario.migration)
        (record,) = read_record(folder.file("source.record"))
        skipped = np.zeros(record.blocks["pc.ram"].pages, dtype=np.bool_)
        for accept in record.accepts:
            flags = accept.cleared.flags()
            skipped[accept.first : accept.first + len(flags)] |= flags
        skipped &= ~record.sent["pc.ram"].flags()
        (path,) = here.lab.destination.memory_dir.rglob("pc.ram")
        with path.open("r+b") as file:
            # From everywhere: the lowest are kept back for devices that reach no others.
            for page in np.random.default_rng(1).choice(skipped.nonzero()[0], plant, replace=False):
                os.pwrite(file.fileno(), b"stale...", int(page) * PAGE + 8)
        switch_over.domain.resume()
        here.guest.control.rebind("destination")
        seen: dict[str, object] = {"skipped": int(skipped.sum()), "exercise": None, "trouble": None}
        try:
            seen["exercise"] = here.guest.control.call("exercise", 1, deadline=deadline)
        except (GuestLost, MachineryError) as error:
            # A page table that is not empty is the end of whoever gets it.
            seen["trouble"] = error.message
    return seen


#: The kernel clears a huge page when it is taken, whatever was done when it was freed.
SMALL = "transparent_hugepage=never"

#: What to do; in which scenario; with which words on the kernel's command line.
PROGRAMS = {
    "ssh": (ssh, "idle", ""),
    "corrupt": (corrupt, "freed", ""),
    "balloon": (balloon, "idle", ""),
    "init-on-free": (fresh, "freed", f"init_on_free=1 {SMALL}"),
    "init-on-free-planted": (planted, "freed", f"init_on_free=1 {SMALL}"),
    "init-on-alloc-planted": (planted, "freed", f"init_on_free=0 {SMALL}"),
}


def main(what: str, out: str, qemu: str | None = None) -> int:
    """Prepare, enter the lab, and do it."""
    work, scenario_name, cmdline = PROGRAMS[what]
    path = Path(qemu) if qemu else None
    began, events = command_start(), EventStream()
    changes = ["guest.memory=512MiB", *([f"guest.cmdline={cmdline}"] if cmdline else [])]
    scenario, tools = load_scenario(scenario_name, changes, Tools(path, path))
    plan: RunPlan = prepare(scenario, tools, events, began, LabMachines())
    folder = RunFolder.create(Path(out), scenario_name, scenario.arm)

    def inside() -> int:
        with ready_guest(plan, folder, events) as here:
            print(json.dumps(work(here, folder, events)))
        return 0

    return enter(inside, keep=[folder.path])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
