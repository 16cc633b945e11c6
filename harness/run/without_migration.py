# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a guest that died after its migration dies without one as well.

    findings = look_without_migration(ready, folder, events, findings)

Made only where a run has found ``guest-died``.  The same guest is booted once more on
the source, from the same plan, seed and workload; in the place of the migration it is
stopped and continued, and then asked for the same checks.  One that dies as well has
not died of the migration: the finding goes, and the run is inconclusive.  What it said
lies in the folder ``without-migration``.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import libvirt

from harness.errors import GuestLost
from harness.events import Deadline, EventStream
from harness.evidence.guest_checks import check, resume
from harness.guest.death import DeathWatch
from harness.report.folder import RunFolder
from harness.run.boot import PLUG_SECONDS
from harness.run.findings import Findings
from harness.run.guest import Guest

if TYPE_CHECKING:
    from harness.run.boot import ReadyGuest

RULE: Final = "guest-died"
_FOLDER: Final = "without-migration"
#: The sockets' folders and the files of this guest begin with it.
_LABEL: Final = "again-"


def look_without_migration(
    ready: ReadyGuest, folder: RunFolder, events: EventStream, findings: Findings
) -> Findings:
    """The findings, with what the same guest did without a migration; as they are if no guest has died."""
    if not any(finding.rule == RULE for finding in findings.found):
        return findings
    if not ready.plan.machines.local:
        return _with_words(findings, "on remote hosts the same guest is not run without a migration")
    with events.step(_FOLDER) as step:
        died = _dies(ready, folder.below(_FOLDER), events)
        step.note(died=died)
    if died is None:
        return _with_words(findings, f"stopped and continued instead, the same guest goes on ({_FOLDER}/)")
    others = tuple(finding for finding in findings.found if finding.rule != RULE)
    words = f"the same guest dies without a migration as well, when it is stopped and continued: {died}"
    return replace(findings, found=others, unexercised=(*findings.unexercised, words))


def _with_words(findings: Findings, words: str) -> Findings:
    found = tuple(
        replace(finding, text=f"{finding.text}; {words}") if finding.rule == RULE else finding
        for finding in findings.found
    )
    return replace(findings, found=found)


def _dies(ready: ReadyGuest, folder: RunFolder, events: EventStream) -> str | None:
    """How it dies, in words; None: it goes on."""
    plan, source = ready.plan, ready.lab.source
    scenario = plan.resolved.scenario
    # Its memory is needed.
    for host in ready.lab.hosts:
        with contextlib.suppress(libvirt.libvirtError):
            host.connect().lookupByName(ready.lab.guest_name).destroy()
    with Guest(plan, ready.lab, folder, events, label=f"{ready.guest.label}{_LABEL}") as guest:
        domain = guest.start()
        guest.wait_until_ready(Deadline(scenario.guest.boot_timeout_s, "the guest's ready word"))
        guest.plug(domain, Deadline(PLUG_SECONDS, "the guest's use of the DIMM"))
        loading = Deadline(
            scenario.workload.load_seconds(plan.resolved.noise_bytes), "the workload's loading"
        )
        guest.load(loading)
        since = guest.control.call("kmsg", deadline=loading)["sequence"]
        assert isinstance(since, int)
        domain.suspend()
        try:
            # libvirt gives no other monitor here: what QEMU would say is seen by its end.
            with DeathWatch(events, guest.control, host=source.name, side=_LABEL):
                resume(domain, guest.control, source.name, events)
                check(guest.control, plan.resolved, since, events)
        except GuestLost as error:
            return error.message
        finally:
            with contextlib.suppress(libvirt.libvirtError):
                domain.destroy()
    return None
