# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a run's guest comes from: booted, or from a file; and who makes the file.

    kept = kept_guest(plan, lab, guest, folder, events)     # None: boot it

A run that was asked for a warm guest finds it in the cache.  The first run that wants a guest boots it, and
leaves word that it did; the second one keeps it, in a boot of its own, and goes on from the file as all
others after it.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from harness.errors import FreepageError, MachineryError
from harness.events import Deadline, EventStream
from harness.faults.injection import NO_INJECTION
from harness.plan.warming import why_cold
from harness.run.guest import Guest
from harness.run.warm import KeptGuest, space_for
from harness.toolchain.cache import Cache
from harness.toolchain.warm_store import WarmStore

if TYPE_CHECKING:
    from harness.hosts.interface import Pair
    from harness.plan.plan import RunPlan
    from harness.report.folder import RunFolder

#: In the run folder, of a run that has kept its guest; and before the names of its sockets.
_FOLDER: Final = "kept-guest"
_LABEL: Final = "kept-"
#: To write it down, or to give it to a QEMU: seconds, of which one is ample.
KEEP_SECONDS: Final = 60.0


def kept_guest(
    plan: RunPlan, lab: Pair, guest: Guest, folder: RunFolder, events: EventStream
) -> KeptGuest | None:
    """The guest that this run goes on from; None: it has to be booted."""
    if not plan.tools.warm:
        return None
    why = why_cold(plan)
    if why is not None:
        events.emit("message", text=f"the guest is booted, and not taken from a file: {why}")
        return None
    store = WarmStore(Cache(None, events))
    try:
        key = guest.key()
        if not store.wanted_again(key):
            return None
        place = store.get(key, lambda kept: _keep(plan, lab, folder, events, kept), space_for(plan))
        closed = [path.name for path in place.iterdir() if not os.access(path, os.R_OK)]
        if closed:
            raise MachineryError(f"{place} is another user's, who alone can read {', '.join(closed)}")
        return KeptGuest.load(place)
    except (MachineryError, OSError, ValueError, KeyError) as error:
        # A full disk, say: the guest is booted, as it would be anyway.
        text = error.message if isinstance(error, FreepageError) else str(error)
        events.emit("warning", text=f"the guest cannot be kept, and is booted: {text}")
        return None


def _keep(plan: RunPlan, lab: Pair, folder: RunFolder, events: EventStream, kept: Path) -> None:
    """Boot the guest, without a fault in it, and write it down."""
    sound = replace(plan, injection=NO_INJECTION)
    scenario = plan.resolved.scenario
    with (
        events.step("keep-guest"),
        Guest(sound, lab, folder.below(_FOLDER), events, label=_LABEL) as guest,
    ):
        domain = guest.start()
        try:
            guest.wait_until_ready(Deadline(scenario.guest.boot_timeout_s, "the guest's ready word"))
            guest.write(domain, kept, events, Deadline(KEEP_SECONDS, "writing down the guest"))
        finally:
            domain.destroy()
