# SPDX-License-Identifier: GPL-2.0-or-later
"""The actions of a scenario's script: what each of them does to QEMU, the network and the guest."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from harness.errors import DeadlineExceeded, MachineryError
from harness.events import Deadline, EventStream
from harness.evidence.host_writes import read_registers
from harness.migration.modes import NO_LIMIT
from harness.migration.qmp import Monitor
from harness.run.guest import Guest
from harness.scenario import script
from harness.script.closed_window import ClosedWindow
from harness.verdict.finding import Finding

if TYPE_CHECKING:
    from harness.hosts.interface import Host
    from harness.memory.registered import Source
    from harness.scenario.resolve import Resolved
    from harness.scenario.script import Action

#: One action of the guest: it may be emulated, and have memory to move.
GUEST_SECONDS: Final = 180.0
#: How long QEMU may take to answer a simple question.  Far more than it ever needs: what is
#: looked for is a monitor that hangs for as long as the network does.
QMP_SECONDS: Final = 60.0
#: The finding about a QEMU that takes longer.
FROZEN: Final = "qmp-frozen"
#: How long a source with nobody to send to may take until it blocks.
BLOCK_SECONDS: Final = 120.0

#: The module's misbehaviour that is about pages of the script's own, and how many ranges it takes.
REPORT_OWNED: Final = "report-owned"
MOST_SPANS: Final = 16

#: Where the module holds who takes memory offline: the block's free pages are isolated.
ISOLATED: Final = "going-offline"

#: The kernel's lists of connections.
_TCP: Final = ("tcp", "tcp6")

#: sendmsg, and poll and ppoll: where QEMU's migration thread waits for a socket, on x86-64.
_WAITS: Final = ("46", "7", "271")
#: And futex, with the operation of a semaphore's wait (a mutex has FUTEX_WAIT) and how to read it:
#: with multifd it waits for a channel's thread, which waits for the socket.
_FUTEX: Final = "202"
_WAIT_BITSET: Final = 9
_FUTEX_COMMAND: Final = 0x7F


def waits_for_room(call: str) -> bool:
    """Whether a thread waits for its destination, or for another that does, as long as it takes.

    ``call``: /proc/PID/task/TID/syscall; a number, and the arguments of the call.
    """
    number, *arguments = call.split()
    if number != _FUTEX:
        return number in _WAITS
    # A wait with a time limit is for the bandwidth limit's next window.
    return int(arguments[1], 16) & _FUTEX_COMMAND == _WAIT_BITSET and int(arguments[3], 16) == 0


def spans(frames: Sequence[int]) -> list[int]:
    """First frame and length of the first runs of frames, as the module wants them."""
    found: list[int] = []
    for frame in sorted(frames):
        if found and found[-2] + found[-1] == frame:
            found[-1] += 1
        else:
            found += [frame, 1]
    return found[: 2 * MOST_SPANS]


@dataclass(slots=True)
class Owned:
    """What the script's own pages have come to, for the verdict and for the oracle."""

    alive: bool = False
    bad: int = 0
    frames: list[int] = field(default_factory=list)


class Actor:
    """Carries out the actions of one migration; the :class:`~harness.script.runner.Stage` of a run."""

    def __init__(self, guest: Guest, target: Host, events: EventStream) -> None:
        self.owned = Owned()
        #: What actions have found to be wrong.
        self.findings: list[Finding] = []
        #: Set by the move, once they are there.
        self.source: Monitor | None = None
        self.destination: Monitor | None = None
        #: What the script did to the migration itself.
        self.cancelled = False
        self.killed = False
        #: After a restart: the last kernel message from before the guest was loaded again.
        self.since: int | None = None
        #: Where the guest has its hypervisor write; set by the move, and anew after a restart.
        self.registers: Source | None = None
        self._guest = guest
        self._target = target
        #: The monitor of a QEMU that was stopped to read no more.
        self._stopped: Monitor | None = None
        self._events = events

    @property
    def _resolved(self) -> Resolved:
        return self._guest.plan.resolved

    def at_once(self, action: Action) -> None:
        """Do what waits for nobody but QEMU."""
        match action:
            case script.Stop():
                self._monitor().execute("stop")
            case script.Cont():
                self._monitor().execute("cont")
            case script.Cancel():
                self.cancelled = True
                self._answered("migrate_cancel")
            case script.Answers():
                self._qmp_answers()
            case script.Bandwidth():
                limit = action.limit or self._resolved.scenario.migration.bandwidth or NO_LIMIT
                self._monitor().execute("migrate-set-parameters", {"max-bandwidth": limit})
            case script.Stall():
                self._stall(action)
            case script.Unstall():
                self._unstall()
            case script.Kill():
                self.killed = True
                destination = self._receiver()
                destination.expect_end()
                os.kill(destination.pid, signal.SIGKILL)
            case _:
                raise MachineryError(f"nobody knows how to do {action.action}")

    def with_guest(self, action: Action) -> None:
        """Do what waits for the guest."""
        deadline = Deadline(GUEST_SECONDS, f"the guest's {action.action}")
        match action:
            case script.PagesAlloc():
                self._pages(self._call(deadline, "pages-alloc", self._resolved.seed, action.pages))
                self.owned.alive = True
            case script.PagesFree():
                self._pages(self._call(deadline, "pages-free", action.pages))
            case script.PagesWrite():
                self._pages(self._call(deadline, "pages-write"))
            case script.PagesRead():
                self._pages(self._call(deadline, "pages-read"))
            case script.ModuleHold():
                extra = [] if action.entries is None else [action.entries]
                self._call(deadline, "hold", action.point, *extra)
            case script.ModuleRelease():
                if not self._call(deadline, "release").get("released"):
                    raise MachineryError("no walk was held that could have been released")
            case script.ModuleUnhold():
                self._call(deadline, "unhold")
            case script.AnswersWhile():
                self._answers_while_unheld(deadline)
            case script.Misbehave():
                # Which frames are in use, only the script knows.
                numbers = spans(self.owned.frames) if action.how == REPORT_OWNED else action.numbers
                self._call(deadline, "misbehave", action.how, *numbers)
            case script.Behave():
                self._call(deadline, "behave")
            case script.Take():
                self._call(deadline, "take", action.pages)
            case script.Unbind() | script.Bind():
                self._call(deadline, action.action)
            case script.MemoryOffline():
                self._call(deadline, "memory-offline", action.blocks)
            case script.MemoryIsolate():
                self._call(deadline, "hold", ISOLATED)
                self._call(deadline, "memory-offline-begin")
                self._call(deadline, "held", ISOLATED)
            case script.MemoryOnline():
                self._call(deadline, "memory-online")
            case script.Balloon():
                self._balloon(action.size, deadline)
            case script.Reset() | script.Reboot() | script.Kexec():
                self._restart(action)
            case _:
                raise MachineryError(f"nobody knows how to do {action.action}")

    def wait_for_walk(self, point: str) -> None:
        """Return when the guest's module holds a walk at ``point``."""
        seconds = float(self._resolved.scenario.migration.timeout_s)
        self._call(Deadline(seconds, f"a walk that is held {point}"), "held", point)

    def verify_owned(self, deadline: Deadline) -> int:
        """How many of the pages that the script took hold something wrong, now or before."""
        if self.owned.alive:
            self._pages(self._call(deadline, "pages-read"))
        return self.owned.bad

    def _monitor(self) -> Monitor:
        if self.source is None:
            raise MachineryError("the source's monitor is not connected yet")
        return self.source

    def _receiver(self) -> Monitor:
        if self.destination is None:
            raise MachineryError("there is no QEMU on the destination yet")
        return self.destination

    def _stall(self, action: script.Stall) -> None:
        if action.by == "reader":
            receiver = self._receiver()
            os.kill(receiver.pid, signal.SIGSTOP)
            self._stopped = receiver
            self._wait_for_closed_window()
        else:
            self._target.set_wire(up=False)
        self._wait_until_blocked()

    def _unstall(self) -> None:
        if self._stopped is not None:
            os.kill(self._stopped.pid, signal.SIGCONT)
            self._stopped = None
        else:
            self._target.set_wire(up=True)

    @property
    def _frozen(self) -> bool:
        return any(finding.rule == FROZEN for finding in self.findings)

    def _answered(self, command: str) -> None:
        """An answer that does not come is what a user would suffer from, and no failure of ours."""
        try:
            self._monitor().execute(command, seconds=QMP_SECONDS)
        except DeadlineExceeded as error:
            text = f"QEMU does not answer {command}: {error.message}"
            self.findings.append(Finding(FROZEN, "expectation", text))
            # Whatever comes next would wait for it as well.
            self._unstall()
        else:
            self._events.emit("qmp-answered", command=command)

    def _call(self, deadline: Deadline, verb: str, *words: str | int) -> Mapping[str, object]:
        return self._guest.control.call(verb, *words, deadline=deadline)

    def _qmp_answers(self) -> None:
        for command in ("query-status", "query-migrate"):
            if not self._frozen:
                self._answered(command)

    def _answers_while_unheld(self, deadline: Deadline) -> None:
        """A QEMU that hangs in a queue's handler takes the guest with it: neither waits for the other."""
        before = self._answers_sent(deadline)

        def guest() -> None:
            self._call(deadline, "unhold")
            # The agent answers while the module works, which says to nobody when it is done.
            while self._answers_sent(deadline) <= before:
                deadline.check()

        with ThreadPoolExecutor(1, "unheld") as pool:
            answered = pool.submit(guest)
            # A QEMU that was frozen is asked no more: it goes on with its migration, and is gone soon.
            while not (answered.done() or self._frozen):
                self._qmp_answers()
            answered.result()
        # By now QEMU has had the answer's notification, and handles it before another command.
        self._qmp_answers()

    def _answers_sent(self, deadline: Deadline) -> int:
        """How many answers the module has put on its queue, by its own count."""
        module = self._call(deadline, "stats").get("module")
        count = module.get("answers") if isinstance(module, Mapping) else None
        if not isinstance(count, int):
            raise MachineryError("the guest's module does not say how often it has answered")
        return count

    def _pages(self, answer: Mapping[str, object]) -> None:
        bad, frames = answer.get("bad"), answer.get("frames")
        self.owned.bad += bad if isinstance(bad, int) else 0
        self.owned.frames = list(frames) if isinstance(frames, list) else []

    def _balloon(self, size: int, deadline: Deadline) -> None:
        self._monitor().execute("balloon", {"value": size})
        while True:
            answer = self._monitor().execute("query-balloon")
            actual = answer.get("actual") if isinstance(answer, Mapping) else None
            if actual == size:
                return
            # BALLOON_CHANGE is limited to one a second and may leave out the last change;
            # the guest's own answer comes when its driver has had the processor for a while.
            deadline.check()
            self._call(deadline, "ping")

    def _restart(self, action: Action) -> None:
        """The guest boots again, in the middle of the migration, and is loaded as it was."""
        guest = self._guest
        boot = Deadline(self._resolved.scenario.guest.boot_timeout_s, "the guest's ready word")
        guest.control.forget_ready()
        if isinstance(action, script.Reset):
            self._monitor().execute("system_reset")
        else:
            self._call(boot, action.action)
        guest.control.wait_ready(boot)
        self.owned.alive = False
        again = Deadline(GUEST_SECONDS, "loading the guest again")
        guest.load(again)
        # Its kernel counts its messages anew.
        sequence = guest.control.call("kmsg", deadline=again)["sequence"]
        self.since = sequence if isinstance(sequence, int) else -1
        self.ask_registers()

    def ask_registers(self) -> None:
        """Ask the guest's processors for KVM's registers: emulated ones have none."""
        if self._resolved.accelerator == "kvm":
            vcpus = self._resolved.scenario.guest.vcpus
            self.registers = read_registers(self._guest.control, vcpus)

    def _wait_for_closed_window(self) -> None:
        """Until the source's TCP has been told, and told again, that its receiver takes no more.

        From then on nothing makes room: a thread that waits for its socket now waits for good,
        and not for an acknowledgement that is on its way.
        """
        deadline = Deadline(BLOCK_SECONDS, "a destination whose window is closed")
        connections = Path(f"/proc/{self._monitor().pid}/net")
        window = ClosedWindow()
        while not window.stays_closed("".join((connections / name).read_text("ascii") for name in _TCP)):
            deadline.check()
            self._ask_transferred()

    def _wait_until_blocked(self) -> None:
        """Until the migration's thread waits for a socket, which takes no more.

        No event tells of it.  The kernel does: the thread is in one and the same
        call, and what it has sent does not change.
        """
        deadline = Deadline(BLOCK_SECONDS, "a source that blocks in a write")
        before = ""
        while True:
            now = self._blocked()
            if now and now == before:
                return
            before = now
            deadline.check()
            # Any question that takes QEMU's main loop a turn.
            self._ask_transferred()

    def _blocked(self) -> str:
        """What tells that the thread stands still; empty while it does not."""
        for task in Path(f"/proc/{self._monitor().pid}/task").iterdir():
            name = (task / "comm").read_text(encoding="ascii", errors="replace").strip()
            if name in ("mig/src/main", "live_migration"):
                call = (task / "syscall").read_text(encoding="ascii")
                status = (task / "status").read_text(encoding="utf-8", errors="replace")
                switches = status.partition("voluntary_ctxt_switches:")[2].split()[0]
                return f"{switches} {self._ask_transferred()}" if waits_for_room(call) else ""
        return ""

    def _ask_transferred(self) -> int:
        answer = self._monitor().execute("query-migrate", seconds=QMP_SECONDS)
        ram = answer.get("ram") if isinstance(answer, Mapping) else None
        sent = ram.get("transferred") if isinstance(ram, Mapping) else None
        return sent if isinstance(sent, int) else 0
