# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that is ready: the hosts, the guest booted on one of them, its workload loaded."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from harness.errors import DeadlineExceeded, GuestLost, MachineryError
from harness.events import Deadline, EventStream
from harness.hosts.interface import Pair
from harness.migration.statistics import MigrationError
from harness.plan.plan import RunPlan
from harness.report.folder import RunFolder
from harness.run.guest import Guest
from harness.run.last_words import start_refusal
from harness.run.warm_up import KEEP_SECONDS, kept_guest

if TYPE_CHECKING:
    import libvirt


#: Memory that was plugged in: initialised page by page, maybe emulated.
PLUG_SECONDS: Final = 120.0

#: How long the end of a daemon may take to be noticed, once its socket is closed.
NOTICE_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class ReadyGuest:
    """A guest that is ready on the source, and everything around it."""

    plan: RunPlan
    lab: Pair
    guest: Guest
    domain: libvirt.virDomain


@contextlib.contextmanager
def ready_guest(
    plan: RunPlan,
    folder: RunFolder,
    events: EventStream,
    meanwhile: Callable[[], object] = lambda: None,
) -> Iterator[ReadyGuest]:
    """Steps 3 and 4: the hosts, and on one of them a guest that has said that it is ready.

    ``meanwhile`` is called once, while the guest boots.
    """
    scenario = plan.resolved.scenario
    with contextlib.ExitStack() as stack:
        with events.step(plan.machines.step):
            hosts = plan.machines.hosts(scenario, plan.binaries, folder.file("hosts"), events)
            lab = stack.enter_context(hosts)
            guest = stack.enter_context(Guest(plan, lab, folder, events))
        yield stack.enter_context(booted(plan, lab, guest, folder, events, meanwhile))


@contextlib.contextmanager
def booted(
    plan: RunPlan,
    lab: Pair,
    guest: Guest,
    folder: RunFolder,
    events: EventStream,
    meanwhile: Callable[[], object] = lambda: None,
) -> Iterator[ReadyGuest]:
    """The same, of a guest that has been entered, on hosts that are there."""
    import libvirt

    scenario = plan.resolved.scenario
    with contextlib.ExitStack() as stack:
        try:
            ready = _boot(plan, lab, guest, folder, events, meanwhile)
            if scenario.guest.traffic:
                from harness.hosts.traffic import DENSE, SPARSE, Traffic

                rate = SPARSE if scenario.guest.traffic == "sparse" else DENSE
                stack.enter_context(Traffic(guest.address, rate))
            yield ready
            _end_politely(plan, lab)
        except GuestLost as error:
            _demand_hosts(lab)
            explained = guest.explained(error)
            from harness.run.early_crash import EarlyCrash, early_crash

            own = guest.control.peers if scenario.guests > 1 else None
            finding = early_crash(plan, lab, events, own)
            if finding is not None:
                raise EarlyCrash(explained, finding, guest) from error
            raise explained from error
        except (MigrationError, libvirt.libvirtError) as error:
            # A daemon that has just died may not have been noticed yet: its socket is quicker.
            with contextlib.suppress(DeadlineExceeded):
                events.wait(
                    lambda event: event.kind == "host-ended", Deadline(NOTICE_SECONDS, "a daemon's end")
                )
            _demand_hosts(lab)
            # A migration that had begun is judged; one that had not may have found no QEMU to go to.
            name = lab.guest_name
            its_words = start_refusal(scenario, lab.destination, name, str(error), by_libvirt=False)
            raise its_words or MachineryError(str(error)) from error


def _end_politely(plan: RunPlan, lab: Pair) -> None:
    """End this guest's QEMUs by libvirt, where they have something to write when they exit."""
    import libvirt

    if not any(qemu.counts_lines for qemu in (plan.source_qemu, plan.destination_qemu)):
        return
    for host in lab.hosts:
        # One that is gone already, or hangs, has written what it will.
        with contextlib.suppress(libvirt.libvirtError, MachineryError):
            # It says SIGTERM first (virProcessKillPainfully()).
            host.connect().lookupByName(lab.guest_name).destroy()


def _demand_hosts(lab: Pair) -> None:
    """Raise if a host's daemon has ended: then that is the reason of whatever else went wrong."""
    for host in lab.hosts:
        host.check()


def _boot(
    plan: RunPlan,
    lab: Pair,
    guest: Guest,
    folder: RunFolder,
    events: EventStream,
    meanwhile: Callable[[], object],
) -> ReadyGuest:
    scenario = plan.resolved.scenario
    with events.step("boot", memory=scenario.guest.memory, accelerator=plan.resolved.accelerator) as step:
        kept = kept_guest(plan, lab, guest, folder, events)
        if kept is None:
            domain = guest.start()
            meanwhile()
            said = guest.wait_until_ready(Deadline(scenario.guest.boot_timeout_s, "the guest's ready word"))
        else:
            meanwhile()
            domain, said = guest.go_on(kept, events, Deadline(KEEP_SECONDS, "the guest's going on"))
            step.note(warm=True)
        step.note(kernel=said.get("release"), driver=said.get("driver"), guest_ms=said.get("uptime_ms"))
        guest.demand_dirty_log()
        guest.plug(domain, Deadline(PLUG_SECONDS, "the guest's use of the DIMM"))
    # What libvirt has learnt about this QEMU is not asked again by the next run.
    lab.source.keep_capabilities()
    return ReadyGuest(plan, lab, guest, domain)


def load_workload(ready: ReadyGuest, events: EventStream) -> int:
    """Step 5: the workload.  Returns the number of the last record in the guest's kernel log.

    What the kernel warned of until then (a mitigation that the CPU lacks, say) is
    no consequence of the migration.
    """
    resolved = ready.plan.resolved
    workload = resolved.scenario.workload
    deadline = Deadline(workload.load_seconds(resolved.noise_bytes), "the workload's loading")
    with events.step("load", workload=workload.kind) as step:
        answer = ready.guest.load(deadline)
        step.note(pages=answer["pages"], freed=answer["freed"])
        sequence = ready.guest.control.call("kmsg", deadline=deadline)["sequence"]
    assert isinstance(sequence, int)
    return sequence
