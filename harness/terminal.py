# SPDX-License-Identifier: GPL-2.0-or-later
"""Progress for people: a subscriber of the event stream that writes to stderr.

On a terminal: a live line for each running step, with its time and, where
known, how far it is.  Elsewhere (a pipe, a CI log): plain lines, each complete
in itself.  stdout is never touched; it belongs to the command's result.

    with TerminalProgress(stream) as terminal:
        ...
        with terminal.suspended():      # somebody else has the terminal
            run_a_shell()
"""

from __future__ import annotations

import errno
import os
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from types import TracebackType
from typing import IO, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from harness.events import Event, EventStream

#: Plain output says how far a step is at most this often.
PLAIN_PROGRESS_SECONDS = 10.0


class Verbosity(Enum):
    """How much is said on stderr."""

    #: Warnings and errors.
    QUIET = "quiet"
    #: Steps and their progress too.
    NORMAL = "normal"
    #: Every event; and the traceback of a fault of ours.
    VERBOSE = "verbose"


#: Child processes are told by it, and a user who wants it always may set it.
VERBOSITY_VARIABLE = "FREEPAGE_VERBOSITY"


def verbosity() -> Verbosity:
    """What the user has asked for."""
    try:
        return Verbosity(os.environ.get(VERBOSITY_VARIABLE, Verbosity.NORMAL.value))
    except ValueError:
        return Verbosity.NORMAL


def set_verbosity(level: Verbosity) -> None:
    """From here on, in this process and those that it starts."""
    os.environ[VERBOSITY_VARIABLE] = level.value


_OWN_KEYS = frozenset({"step", "depth", "seconds", "error", "guest"})


class OutputConsole(Console):
    """Rich's console; a reader that is gone is an error as any other, and not the program's end with 1.

    (Rich would also turn stdout into nothing, where it was stderr's reader that went.)
    """

    def on_broken_pipe(self) -> None:
        """Called by Rich where a write has found nobody."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def _args(event: Event) -> str:
    """The arguments or notes of a step, briefly: ``memory=1GiB arm=info``."""
    parts = [f"{key}={value}" for key, value in event.data.items() if key not in _OWN_KEYS]
    text = " ".join(parts)
    return text if len(text) <= 160 else text[:157] + "..."


def _number(event: Event, key: str) -> float | None:
    value = event.data.get(key)
    return float(value) if isinstance(value, int | float) else None


def _depth(event: Event) -> int:
    return int(_number(event, "depth") or 0)


def _amount(value: float, unit: str) -> str:
    if unit == "bytes":
        return f"{value / 2**20:.0f} MiB"
    return f"{value:.0f} {unit}".rstrip()


class _Renderer(Protocol):
    """What both ways of showing progress can do."""

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def line(self, text: Text) -> None: ...
    def step_start(self, event: Event) -> None: ...
    def step_stop(self, event: Event) -> None: ...
    def progress(self, event: Event) -> None: ...


def _stop_line(event: Event) -> Text:
    """``  ok  boot  2.13 s  ready_s=2.1``, or the error of a failed step."""
    error = event.data.get("error")
    seconds = _number(event, "seconds") or 0.0
    text = Text("  " * _depth(event))
    text.append(*(("fail ", "bold red") if error else ("ok   ", "green")))
    text.append(f"{event.data['step']}", "bold")
    text.append(f"  {seconds:.2f} s", "dim")
    if error:
        # The whole of it is told at the end.
        text.append(f"  {str(error).splitlines()[0]}", "red")
    elif _args(event):
        text.append(f"  {_args(event)}", "dim")
    return text


class _Live:
    """On a terminal: running steps at the bottom, what is finished scrolls above."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[amount]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            redirect_stdout=False,  # stdout may be a JSON document that somebody parses
        )
        self._tasks: dict[str, TaskID] = {}

    def start(self) -> None:
        self._progress.start()

    def stop(self) -> None:
        self._progress.stop()

    def line(self, text: Text) -> None:
        self._progress.console.print(text, soft_wrap=True)

    def step_start(self, event: Event) -> None:
        name = str(event.data["step"])
        label = Text("  " * _depth(event) + name)
        if _args(event):
            label.append(f" {_args(event)}", "dim")
        self._tasks[name] = self._progress.add_task(label.markup, total=None, amount="")

    def step_stop(self, event: Event) -> None:
        task = self._tasks.pop(str(event.data["step"]), None)
        if task is not None:
            self._progress.remove_task(task)
        self.line(_stop_line(event))

    def progress(self, event: Event) -> None:
        task = self._tasks.get(str(event.data.get("step", "")))
        done, total = _number(event, "done"), _number(event, "total")
        if task is None or done is None:
            return
        unit = str(event.data.get("unit", ""))
        amount = _amount(done, unit) + (f" / {_amount(total, unit)}" if total else "")
        self._progress.update(task, completed=done, total=total, amount=amount)


class _Plain:
    """Elsewhere: one line when a step starts, one when it ends, few in between."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._said: dict[str, float] = {}

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass

    def line(self, text: Text) -> None:
        self._console.print(text, soft_wrap=True)

    def step_start(self, event: Event) -> None:
        self._said[str(event.data["step"])] = event.t
        self.line(Text(f"{'  ' * _depth(event)}...  {event.data['step']} {_args(event)}".rstrip()))

    def step_stop(self, event: Event) -> None:
        self._said.pop(str(event.data["step"]), None)
        self.line(_stop_line(event))

    def progress(self, event: Event) -> None:
        name = str(event.data.get("step", ""))
        done, total = _number(event, "done"), _number(event, "total")
        if done is None or event.t - self._said.get(name, 0.0) < PLAIN_PROGRESS_SECONDS:
            return
        self._said[name] = event.t
        unit = str(event.data.get("unit", ""))
        of = f" of {_amount(total, unit)} ({100 * done / total:.0f} %)" if total else ""
        self.line(Text(f"     {name}: {_amount(done, unit)}{of}"))


class TerminalProgress:
    """Shows the stream on stderr while it is entered: as much as the user has asked for."""

    def __init__(
        self, stream: EventStream, *, level: Verbosity | None = None, file: IO[str] | None = None
    ) -> None:
        console = OutputConsole(file=file) if file is not None else OutputConsole(stderr=True)
        self._stream = stream
        self._level = level or verbosity()
        self._renderer: _Renderer = (
            _Live(console) if console.is_terminal and self._level is not Verbosity.QUIET else _Plain(console)
        )
        self._unsubscribe: Callable[[], None] | None = None

    def __enter__(self) -> TerminalProgress:
        self._enter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._leave()

    def _enter(self) -> None:
        self._renderer.start()
        self._unsubscribe = self._stream.subscribe(self)

    def _leave(self) -> None:
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        self._renderer.stop()

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Leave the terminal alone for a while: an interactive shell has it."""
        self._leave()
        try:
            yield
        finally:
            self._enter()

    def __call__(self, event: Event) -> None:
        """Show one event."""
        if self._level is Verbosity.QUIET and event.kind != "warning":
            return
        if event.kind == "step-start":
            self._renderer.step_start(event)
        elif event.kind == "step-stop":
            self._renderer.step_stop(event)
        elif event.kind == "progress":
            self._renderer.progress(event)
        elif event.kind in ("message", "warning"):
            style = "yellow" if event.kind == "warning" else ""
            self._renderer.line(Text(f"{event.data.get('text', '')}", style))
            if event.data.get("hint"):
                self._renderer.line(Text(f"hint: {event.data['hint']}", style))
        elif self._level is Verbosity.VERBOSE:
            self._renderer.line(Text(f"{event.t:9.3f} {event.source} {event.kind} {_args(event)}", "dim"))


@contextmanager
def raw_mode(descriptor: int) -> Iterator[None]:
    """Every key of a terminal comes as it is, Ctrl-C among them."""
    saved = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, saved)


def print_error(rendered: str) -> None:
    """The last thing that a failed command says, on stderr."""
    text = Text(rendered, "red" if sys.stderr.isatty() else "")
    # Nobody may be left to read it; the status says what there is to say.
    with suppress(OSError):
        OutputConsole(stderr=True).print(text, soft_wrap=True)
