# SPDX-License-Identifier: GPL-2.0-or-later
"""What a run leaves on this machine, and how it is taken away again.

Used twice: by the deputy at the end of a run, and by its keeper when the deputy
is gone.  libvirt is not asked (its client may not be installed): a QEMU that ends
is noticed by its daemon, which then removes what belongs to the guest.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
from dataclasses import asdict, dataclass, field
from typing import Any

from . import qemus
from .vanish import await_gone

#: How long a killed process may take to be gone, and libvirt to notice that it is.
_END_SECONDS = 10.0
_NOTICE_SECONDS = 20.0


@dataclass
class Traces:
    """Everything of a run on this machine.  ``folder`` is its own, and goes as a whole."""

    guest: str = ""
    folder: str = ""
    #: Files outside of it that came into being with the run.
    files: list[str] = field(default_factory=list)
    #: libvirt's own notes of a running guest: when they are gone, it has finished with it.
    states: list[str] = field(default_factory=list)
    #: A daemon that was started for the run, and its name.
    daemon: int = 0
    program: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The traces as plain values, to be sent."""
        return asdict(self)


def tidy(traces: Traces) -> list[str]:
    """Take it all away; returns what could not be."""
    left: list[str] = []
    if traces.folder:
        _end_processes(traces)
        left += _await_notice(traces)
        shutil.rmtree(traces.folder, ignore_errors=True)
        # Whoever was just being started finds nothing to start from; who was quicker is found here.
        if _end_processes(traces):
            left += _await_notice(traces)
    for path in traces.files:
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass  # it never came into being
        except OSError as error:
            left.append(f"{path}: {error.strerror}")
    if traces.daemon and traces.program in " ".join(qemus.command_of(traces.daemon)):
        _end(traces.daemon, signal.SIGTERM)
    if traces.folder:
        if os.path.lexists(traces.folder):
            left.append(f"{traces.folder}: could not be removed")
        left += [f"{path}: libvirt has not removed it" for path in traces.states if os.path.exists(path)]
        left += [f"process {pid} has not ended" for pid in _processes(traces)]
    return left


def _processes(traces: Traces) -> list[int]:
    """The run's QEMUs, and whatever runs a program out of its folder."""
    found = set(qemus.find(traces.guest, traces.folder)) if traces.guest else set()
    for pid, _ in qemus.processes():
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/{pid}/exe").startswith(traces.folder + "/"):
                found.add(pid)
    return sorted(found)


def _end_processes(traces: Traces) -> bool:
    found = _processes(traces)
    for pid in found:
        _end(pid, signal.SIGKILL)
    return bool(found)


def _end(pid: int, number: int) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return  # gone already
    try:
        signal.pidfd_send_signal(descriptor, number)
        select.select([descriptor], [], [], _END_SECONDS)
    except OSError:
        pass
    finally:
        os.close(descriptor)


def _await_notice(traces: Traces) -> list[str]:
    """Wait until libvirt has put away its notes; returns why they could not be waited for."""
    try:
        await_gone(traces.states, _NOTICE_SECONDS)
    except OSError as error:
        return [f"{error.filename}: cannot be watched: {error.strerror}"]
    return []
