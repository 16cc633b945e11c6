# SPDX-License-Identifier: GPL-2.0-or-later
"""``freepage shell``: a guest with everything in place, and a shell in it.

On a terminal it is interactive; otherwise commands are read from stdin, and
stdout and stderr are the guest's.
"""

from __future__ import annotations

from typing import Final

from harness.events import Deadline, EventStream
from harness.guest.shell import Shell
from harness.hosts.netns import GUEST_ADDRESS
from harness.plan.plan import RunPlan
from harness.report.folder import RunFolder
from harness.run.boot import load, ready_guest
from harness.terminal import TerminalProgress

CONNECT_SECONDS: Final = 30.0


def shell(plan: RunPlan, folder: RunFolder, events: EventStream, terminal: TerminalProgress) -> int:
    """Boot, load, connect; returns the remote shell's exit status."""
    with ready_guest(plan, folder, events) as ready:
        load(ready, events)
        deadline = Deadline(CONNECT_SECONDS, "the guest's ssh server")
        place = ready.lab.runtime_dir / "ssh"
        with Shell.connect(GUEST_ADDRESS, ready.guest.keys, place, deadline) as session, terminal.suspended():
            status = session.attach()
    folder.finish()
    return status
