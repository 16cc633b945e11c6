# SPDX-License-Identifier: GPL-2.0-or-later
"""Puts the command into PID, mount, network, UTS, IPC (and user) namespaces of its own.

Four processes, each a child of the one before, all forks of the command::

    outer    what the user started.  Forwards signals, waits, passes the exit status on.
    porter   makes the namespaces (and is in the old PID namespace itself)
    init     PID 1 in there: makes the mounts, reaps orphans, and tells how each ended
    worker   does the work

When the outer process ends, however it ends, the kernel kills the porter (its
parent-death signal), then init, and with init everything in the PID namespace;
mounts, links, taps and files in memory go with the last process that could see
them.  There is nothing to clean up and nothing to leak.

The porter leaves the terminal's session, so that Ctrl-C reaches the outer
process alone and is forwarded once, like any other signal.  (Reading from the
terminal still works: job control stops only processes of the terminal's session.)

    status = enter(lambda: run(plan))      # outside; run() is called in a lab

Forked, not executed anew: what was imported and resolved is there already.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, NoReturn

from harness.errors import MachineryError
from harness.hosts import kernel, obituary
from harness.hosts.kernel import Namespace
from harness.hosts.outside import remember_outside
from harness.hosts.room import ROOM, furnish
from harness.hosts.userns import leave_for_own, restriction
from harness.last_resort import in_words
from harness.toolchain.sources import installation

#: Carries the run's token; believed only where the lab's private folder has the same one.
MARK: Final = "FREEPAGE_LAB"
_TOKEN: Final = ROOM / "token"

_FORWARDED: Final = frozenset(
    {
        signal.SIGINT,
        signal.SIGTERM,
        signal.SIGHUP,
        signal.SIGQUIT,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGWINCH,
    }
)
_WATCHED: Final = _FORWARDED | {signal.SIGCHLD}

#: Signals that users send; any other that ends the command is a failure of the machinery.
_POLITE: Final = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT})


def inside_lab() -> bool:
    """Whether this process runs in a lab: the mark is there, and is true."""
    mark = os.environ.get(MARK)
    if not mark:
        return False
    try:
        return secrets.compare_digest(mark, _TOKEN.read_text())
    except OSError:
        return False  # a mark inherited from somewhere; the lab it named is not here


def enter(work: Callable[[], int], *, keep: Iterable[Path] = ()) -> int:
    """Call ``work`` in a forked child in namespaces of its own; returns its exit status.

    ``keep`` names existing files and folders that must stay visible inside even if
    they are in memory (below /run or /dev/shm, which are private in a lab).
    """
    # The parent-death signal comes when the forking *thread* ends.
    assert threading.current_thread() is threading.main_thread(), "labs are entered from the main thread"
    wanted = _memory_folders(keep)
    remember_outside()
    sys.stdout.flush()
    sys.stderr.flush()
    ours, theirs = socket.socketpair()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        pid = _fork_porter(theirs, ours, before, work, wanted)
        theirs.close()
        problem = _report(ours)
        status = _attend(pid)
    finally:
        ours.close()
        signal.signal(signal.SIGCHLD, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if problem is not None:
        raise problem
    return _translate(status)


def _report(channel: socket.socket) -> MachineryError | None:
    """What kept the lab from being made.  The channel is closed without a word when the worker runs."""
    with channel.makefile("r", encoding="utf-8") as lines:
        text = lines.read()
    if not text:
        return None
    message = json.loads(text)
    return MachineryError(message["error"], hint=message["hint"])


def _memory_folders(keep: Iterable[Path]) -> tuple[Path, ...]:
    """All that must not disappear behind the lab's own /run and /dev/shm."""
    paths = {Path.cwd(), Path.home(), Path(sys.prefix), installation(), *keep}
    return tuple(sorted(path.resolve() for path in paths))


def _translate(status: int) -> int:
    """The worker's exit status; an end that nobody asked for is an error of the machinery."""
    if status <= 128 or status - 128 in _POLITE:
        return status
    name = signal.Signals(status - 128).name if status - 128 in set(signal.Signals) else str(status - 128)
    raise MachineryError(
        f"the command was killed inside its lab by {name}",
        hint="if the machine ran out of memory, the kernel log names the victim" if status == 137 else None,
    )


def _attend(child: int, *, obituaries: int | None = None) -> int:
    """Forward signals to ``child`` until it ends; its exit status as a shell would give it.

    ``obituaries``: reap every child, and write to this pipe how each ended.

    Signals are blocked in the callers and taken here one by one, which is also
    what lets PID 1 have them: the kernel would ignore those it has no handler for.
    """
    while True:
        info = signal.sigwaitinfo(_WATCHED)
        if info.si_signo != signal.SIGCHLD:
            os.kill(child, info.si_signo)
            continue
        # One SIGCHLD may stand for several children.
        while True:
            try:
                # A name is to be read before the process is reaped.
                dead, name = (child, "") if obituaries is None else obituary.next_dead()
                pid, status = os.waitpid(dead, os.WNOHANG) if dead else (0, 0)
            except ChildProcessError:
                return 128 + signal.SIGKILL  # somebody else has taken its status
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
            if pid == 0:
                break
            if obituaries is not None:
                code, core = os.waitstatus_to_exitcode(status), os.WCOREDUMP(status)
                obituary.write(obituaries, pid, code, core=core, name=name)


# --- the porter


def _fork_porter(
    channel: socket.socket,
    others: socket.socket,
    mask: set[int | signal.Signals],
    work: Callable[[], int],
    keep: tuple[Path, ...],
) -> int:
    outer = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    others.close()
    with _Last(channel):
        os.setsid()
        if os.geteuid() != 0:
            leave_for_own()
        # After the change of namespace: new credentials may clear it.
        kernel.die_with_parent()
        if os.getppid() != outer:
            os._exit(1)  # it ended before the kernel knew that we care
        kernel.unshare(Namespace.MOUNT | Namespace.NET | Namespace.UTS | Namespace.IPC | Namespace.PID)
        # Nobody but the porter holds the writing end: hang-up means that it is gone.
        alive, porter_alive = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(porter_alive)
            _init(channel, alive, mask, work, keep)
        os.close(alive)
        channel.close()
        os._exit(_attend(child))


# --- init and the worker


def _init(
    channel: socket.socket,
    alive: int,
    mask: set[int | signal.Signals],
    work: Callable[[], int],
    keep: tuple[Path, ...],
) -> NoReturn:
    with _Last(channel):
        kernel.die_with_parent()
        # getppid() is 0 for a parent outside; its pipe tells whether there is one.
        if select.select([alive], [], [], 0)[0]:
            os._exit(1)
        socket.sethostname("lab")
        kernel.bring_loopback_up()
        furnish(keep)
        token = secrets.token_hex(16)
        _TOKEN.write_text(token)
        obituaries = obituary.open_pipe()
        worker = os.fork()
        if worker == 0:
            os.close(alive)
            os.close(obituaries)
            channel.close()
            os.environ.update({MARK: token, "TMPDIR": str(ROOM / "tmp")})
            _work(mask, work)
        channel.close()
        obituary.close_reader()
        os._exit(_attend(worker, obituaries=obituaries))


def _work(mask: set[int | signal.Signals], work: Callable[[], int]) -> NoReturn:
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    try:
        code = work()
    except SystemExit as error:
        # 1 is a verdict, and Python's own status for sys.exit("words").
        code = error.code if isinstance(error.code, int) else MachineryError.exit_code * bool(error.code)
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except BaseException as error:
        problem = in_words(error)
        with contextlib.suppress(OSError):
            print(f"freepage: {problem.render()}", file=sys.stderr)  # noqa: T201 - nobody above us will
        code = problem.exit_code
    # A reader that has gone (a pipe into head, say) is no reason to change the status.
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


class _Last:
    """A forked child must never return into its parent's code: it reports and exits."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> NoReturn:
        text, hint = "a process of the lab returned", None
        if isinstance(error, MachineryError):
            text, hint = error.message, error.hint
        elif isinstance(error, OSError):
            where = f"{error.filename}: " if error.filename else ""
            text = f"cannot make the lab's namespaces: {where}{error.strerror}"
            hint = _advice(error)
        elif error is not None:
            problem = in_words(error)
            text, hint = problem.message, problem.hint
        try:
            self._channel.sendall(json.dumps({"error": text, "hint": hint}).encode())
        finally:
            os._exit(MachineryError.exit_code)


def _advice(error: OSError) -> str | None:
    # ENOSPC is how unshare() says that a limit on namespaces is reached.
    if error.errno not in (errno.EPERM, errno.EACCES, errno.ENOSPC):
        return None
    lift = restriction() if os.geteuid() != 0 else None
    return lift or "a container must be allowed to make namespaces and mounts (--privileged)"
