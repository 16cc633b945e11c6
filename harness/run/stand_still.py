# SPDX-License-Identifier: GPL-2.0-or-later
"""A run that stands still for a person, who is told how to look at it.

Where QEMU itself waits (a hold of the device, a migration that is over, or has not begun) its guest is
paused and its monitors answer.  At any other moment QEMU would go on while somebody looks: there both
processes are stopped, as they are a moment after QEMU has said so.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

from harness.errors import FreepageError
from harness.events import Deadline, EventStream, time_stands_still
from harness.hosts.netns import GUEST_ADDRESS
from harness.hosts.outside import command_pid, outside_pid
from harness.migration.qmp import Monitor, MonitorLoop
from harness.migration.transcript import Transcript
from harness.report.by_hand import StoppedByHand
from harness.run.attach import LabAtHand, QemuAtHand, lines_of
from harness.run.pausing import ANSWER_SECONDS, Standing, paused
from harness.run.user_word import await_word, tell, what_goes_on
from harness.scenario.actions.module import MODULE_HOLDS
from harness.scenario.script import STATUSES

if TYPE_CHECKING:
    from harness.hosts.interface import Pair
    from harness.plan.by_hand import ByHand
    from harness.report.folder import RunFolder
    from harness.run.guest import Guest
    from harness.terminal import TerminalProgress
    from harness.verdict.judge import MemoryJudgement

#: Moments at which QEMU goes on by itself.
GOES_ON: Final = frozenset({*STATUSES, "pass", *MODULE_HOLDS}) - {"completed", "cancelled", "failed"}


class StandStill:
    """Stops a run where ``hand`` says so.  All methods are for the main thread."""

    def __init__(
        self,
        hand: ByHand,
        guest: Guest,
        pair: Pair,
        folder: RunFolder,
        events: EventStream,
        terminal: TerminalProgress,
    ) -> None:
        self._hand = hand
        self._guest = guest
        self._pair = pair
        self._folder = folder
        self._events = events
        self._terminal = terminal
        self._stops: list[StoppedByHand] = []
        self._told = self._kept = False
        self._reached: set[str] = set()

    @property
    def stops(self) -> list[StoppedByHand]:
        """Each time that the run stood still, in order."""
        return list(self._stops)

    @property
    def keeps_source(self) -> bool:
        """Whether the source's QEMU has to be there until the memory has been judged."""
        return self._hand.keep != "never"

    @property
    def missed(self) -> list[str]:
        """What was to be paused at, and did not come."""
        points = [str(point) for point in self._hand.pause_at]
        return [point for point in points if point not in self._reached]

    def moment(self, moment: str, number: int, move: int, there: Callable[[], list[Standing]]) -> None:
        """A moment of a migration has come, of its name the ``number``th."""
        for point in self._hand.pause_at:
            if point.moment == moment and (point.number or 1) == number:
                self._reached.add(str(point))
                words = f"{moment} {number}" if number > 1 or point.number is not None else moment
                stop = f"paused by hand at {words}" + (f" of migration {move}" if move > 1 else "")
                self._stand(stop, str(point), move, there(), stopped=moment in GOES_ON)
                return

    def judged(self, memory: MemoryJudgement, move: int, there: list[Standing], *, last: bool) -> None:
        """The memory of both sides has been compared, and both stand still."""
        failed = memory.verdict == "fail"
        if (failed and self._hand.keep != "never") or (last and self._hand.keep == "always"):
            self._told, self._kept = failed, True
            words = f"the verdict on memory is {memory.verdict!r}: {memory.judgement.reason}"
            self._stand(words, "switch-over", move, there)

    def failed(self, words: str, move: int, there: list[Standing]) -> None:
        """Something is wrong before the end of the migration."""
        if self._hand.keep != "never":
            self._told = True
            self._stand(words, "failure", move, there)

    def ended(self, verdict: str, reason: str, move: int) -> None:
        """The run has its verdict, and nothing of it is judged any more."""
        always = self._hand.keep == "always" and not self._kept
        if self._hand.keep == "never" or self._told or not (verdict == "fail" or always):
            return
        with self._monitors() as there:
            self._stand(f"the verdict is {verdict!r}: {reason}", "end", move, there)

    @contextlib.contextmanager
    def _monitors(self) -> Iterator[list[Standing]]:
        """Of the QEMUs that are left, when the monitors of their last migration are closed."""
        with ExitStack() as stack:
            loop = stack.enter_context(MonitorLoop())
            said = stack.enter_context(Transcript(self._folder.file("kept.jsonl")))
            found = []
            for host in self._pair.hosts:
                path = self._guest.monitor_socket(host)
                with contextlib.suppress(FreepageError, OSError, KeyError):
                    deadline = Deadline(ANSWER_SECONDS, "a QEMU's monitor")
                    # What it says now is no part of the run's events.
                    monitor = Monitor.connect(loop, host.name, path, EventStream(), said, deadline)
                    stack.callback(monitor.close)
                    found.append(Standing(host.name, host, monitor))
            yield found

    def _stand(
        self, why: str, moment: str, move: int, there: list[Standing], *, stopped: bool = False
    ) -> None:
        began = time.monotonic()
        self._events.emit("stands-still", at=moment, move=move, text=why)
        still = paused(there, self._is_held, stopped=stopped)
        with time_stands_still(), still as states, self._terminal.suspended():
            lab = self._at_hand(there, states, stopped=stopped)
            for line in (f"freepage: {why}", *lines_of(lab), f"freepage: {what_goes_on(command_pid())}"):
                tell(line)
            word = await_word()
        seconds = time.monotonic() - began
        self._events.emit("goes-on", at=moment, move=move, seconds=seconds, after=word)
        self._stops.append(StoppedByHand(at=moment, move=move, seconds=round(seconds, 3)))

    def _is_held(self) -> bool:
        """Whether the device has begun a hold in which the guest stands still, since the run does."""
        for event in reversed(self._events.history()):
            if event.kind == "stands-still":
                return False
            data = event.data.get("data")
            point = data.get("point") if isinstance(data, Mapping) else None
            if event.kind == "FREE_PAGE_INFO_HOLD" and point != "applied":
                return True
        return False

    def _at_hand(self, there: list[Standing], states: Mapping[str, str], *, stopped: bool) -> LabAtHand:
        shell = Path(sys.prefix, "bin", "qmp-shell")
        uris = [(host.name, host.uri.partition("?socket=")) for host in self._pair.hosts]
        return LabAtHand(
            pid=outside_pid(os.getpid()),
            own_users=_own_users(Path("/proc/self/uid_map").read_text(encoding="ascii")),
            qemus=[
                QemuAtHand(
                    one.side,
                    outside_pid(one.pid),
                    Path(f"/proc/{one.pid}/exe").readlink(),
                    states[one.side],
                    self._guest.monitor_socket(one.host).parent,
                    stopped,
                )
                for one in there
            ],
            daemons=[(name, Path(socket)) for name, (_, _, socket) in uris],
            realm=uris[0][1][0].rpartition("/")[2],
            guest_name=self._pair.guest_name,
            keys=self._keys(),
            guest_address=GUEST_ADDRESS,
            qmp_shell=shell if shell.exists() else None,
            socat=shutil.which("socat") is not None,
        )

    def _keys(self) -> Path | None:
        """The keys, as files of the lab, gone with it."""
        if self._pair.source.nic is None:
            return None
        folder = self._pair.runtime_dir / "ssh"
        if not folder.exists():
            folder.mkdir(mode=0o700)
            keys = self._guest.keys
            for name, content in (
                ("client", keys.client_key()),
                ("known_hosts", keys.known_hosts(GUEST_ADDRESS)),
            ):
                (folder / name).touch(mode=0o600)
                (folder / name).write_bytes(content)
        return folder


def _own_users(uid_map: str) -> bool:
    """Whether a process is in a user namespace of its own (user_namespaces(7))."""
    return uid_map.split() != ["0", "0", "4294967295"]
