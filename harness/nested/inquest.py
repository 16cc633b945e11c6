# SPDX-License-Identifier: GPL-2.0-or-later
"""What a nested machine does that says nothing any more: its CPUs, their interrupts, QEMU's threads.

A machine whose CPUs are all halted waits for an interrupt that was lost; one whose CPUs run has a kernel
that turns in a circle; one whose monitor does not answer has a QEMU that hangs.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import dataclass
from typing import Final

from qemu.qmp import QMPClient, QMPError

from harness.hosts.processors import Processor, processors_of
from harness.hosts.stacks import stacks_of

#: For QEMU's greeting and for each of its answers; one that hangs gives none.
_ANSWER_SECONDS: Final = 20.0


@dataclass(frozen=True, slots=True)
class Inquest:
    """``report``: all that was found, to be kept.  ``summary``: one line for a CPU, or why there is none."""

    summary: tuple[str, ...]
    report: str


def summary_of(first: list[Processor], second: list[Processor]) -> tuple[str, ...]:
    """Tell of each CPU how it stood at two moments."""
    later = {place.number: place for place in second}
    lines = []
    for place in first:
        then = later.get(place.number, place)
        state = "halted" if place.halted and then.halted else "runs"
        moved = "" if then.address == place.address else f", then at {then.address:#x}"
        lines.append(f"its CPU {place.number} {state} at {place.address:#x}{moved}")
    return tuple(lines)


def hold_inquest(pid: int, monitor: socket.socket, cpus: int) -> Inquest:
    """Look at the machine whose QEMU is process ``pid`` and listens on the other end of ``monitor``.

    Raises nothing: whatever cannot be asked is said in the report.
    """
    sections: list[tuple[str, str]] = []
    summary: tuple[str, ...]
    try:
        summary = asyncio.run(_ask(monitor, cpus, sections))
    except (QMPError, OSError, EOFError, TimeoutError) as error:
        summary = (f"its QEMU's monitor does not answer ({type(error).__name__})",)
    sections.append(("QEMU's threads", stacks_of(pid)))
    report = "\n".join(f"== {title}\n\n{text.strip()}\n" for title, text in sections)
    return Inquest(summary, "\n".join(summary) + "\n\n" + report)


async def _ask(monitor: socket.socket, cpus: int, sections: list[tuple[str, str]]) -> tuple[str, ...]:
    client = QMPClient("nested-machine")
    await asyncio.wait_for(client.connect(monitor), _ANSWER_SECONDS)
    try:

        async def line(command: str) -> str:
            answer = client.execute("human-monitor-command", {"command-line": command})
            text = str(await asyncio.wait_for(answer, _ANSWER_SECONDS)).replace("\r", "")
            sections.append((command, text))
            return text

        await line("info status")
        first = processors_of(await line("info registers -a"))
        for number in range(cpus):
            await line(f"info lapic {number}")
        await line("info pic")
        # Seen again after all that: a CPU that runs has moved.
        return summary_of(first, processors_of(await line("info registers -a")))
    finally:
        with contextlib.suppress(QMPError, OSError, EOFError, TimeoutError):
            await asyncio.wait_for(client.disconnect(), _ANSWER_SECONDS)
