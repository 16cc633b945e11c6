# SPDX-License-Identifier: GPL-2.0-or-later
"""The one event stream: whatever happens in a run is emitted here, once.

The terminal, the log file and the report are subscribers and know of nothing
else; no part of the harness prints.

    stream = EventStream()
    stream.subscribe(JsonLinesFile(folder / "events.jsonl"), replay=True)
    with TerminalProgress(stream):           # harness.terminal
        with stream.step("boot", memory="1GiB") as step:
            ...
            step.note(ready_s=2.1)          # appears in step-stop
        stream.emit("STOP", source="source.qmp", reason="migration")

Kinds that the terminal knows: ``step-start``, ``step-stop``, ``progress``
(data: step, done, total, unit), ``message`` (text), ``warning`` (text, hint).
All other kinds go to the log file, and to the terminal only when verbose.

Waiting is done on the stream or against a :class:`Deadline`, never by sleeping:

    hold = stream.wait(lambda e: e.kind == "FREE_PAGE_INFO_HOLD", Deadline(30, "the hold"))
"""

from __future__ import annotations

import dataclasses
import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path, PurePath
from types import MappingProxyType, TracebackType
from typing import IO, Final, TypeAlias

from harness.errors import DeadlineExceeded, FreepageError, InputError, MachineryError

#: How many times as long a wait may last in an emulated machine.
EMULATED_PATIENCE: Final = 5.0

Subscriber: TypeAlias = "Callable[[Event], None]"


def jsonable(value: object) -> object:
    """Turn anything that an event may carry into what :mod:`json` can write.

    Never raises: an event that cannot be logged would hide what it reports.
    """
    if isinstance(value, Enum):
        return jsonable(value.value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset | deque):
        items: Iterable[object] = value
        if isinstance(value, set | frozenset):
            items = sorted(value, key=repr)
        return [jsonable(item) for item in items]
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {value}"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: jsonable(getattr(value, f.name)) for f in dataclasses.fields(value)}
    for method in ("model_dump", "tolist"):  # pydantic; numpy scalars and arrays
        convert = getattr(value, method, None)
        if callable(convert):
            return jsonable(convert())
    return repr(value)


@dataclasses.dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened.  ``t`` is in seconds since the stream began."""

    seq: int
    t: float
    source: str
    kind: str
    data: Mapping[str, object]

    def as_dict(self) -> dict[str, object]:
        """The event as plain JSON values."""
        return {
            "seq": self.seq,
            "t": round(self.t, 6),
            "source": self.source,
            "kind": self.kind,
            "data": jsonable(self.data),
        }

    def to_json(self) -> str:
        """The event as one line of JSON, without the newline."""
        return json.dumps(self.as_dict(), ensure_ascii=False)


def patience(seconds: float) -> float:
    """How long a wait of ``seconds`` may last here.

    In a nested machine that is emulated everything takes longer, and nothing is
    wrong with it: see :mod:`harness.nested`.
    """
    return seconds * EMULATED_PATIENCE if os.environ.get("FREEPAGE_CHAIN") == "kvm-in-tcg" else seconds


class _WorkingTime:
    """Monotonic seconds, less those for which somebody had stopped the run to look at it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stopped: float | None = None
        self._lost = 0.0

    def now(self) -> float:
        with self._lock:
            return (time.monotonic() if self._stopped is None else self._stopped) - self._lost

    @contextmanager
    def stopped(self) -> Iterator[None]:
        with self._lock:
            began = self._stopped = time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                self._stopped = None
                self._lost += time.monotonic() - began


_WORKING_TIME: Final = _WorkingTime()


def working_time() -> float:
    """Monotonic seconds in which the run was at work: what deadlines are measured by."""
    return _WORKING_TIME.now()


def time_stands_still() -> AbstractContextManager[None]:
    """While this is entered no deadline comes nearer: a person has stopped the run.  Not to be nested."""
    return _WORKING_TIME.stopped()


class Deadline:
    """A moment by which something must have happened, and what that is.

    ``sub()`` makes a nearer one which never outlives its parent, so that the
    limit of a whole run bounds every wait inside it.
    """

    __slots__ = ("_end", "seconds", "what")

    def __init__(self, seconds: float, what: str) -> None:
        self.seconds = patience(seconds)
        self.what = what
        self._end = working_time() + self.seconds

    @property
    def expired(self) -> bool:
        """Whether the moment has passed."""
        return working_time() >= self._end

    def remaining(self) -> float:
        """Seconds left, never negative.  See :meth:`timeout` for blocking calls."""
        return max(0.0, self._end - working_time())

    def check(self) -> None:
        """Raise :class:`DeadlineExceeded` if the moment has passed."""
        if self.expired:
            raise DeadlineExceeded(f"{self.what}: not within {self.seconds:g} s")

    def timeout(self, at_most: float | None = None) -> float:
        """Seconds for a blocking call: always positive, and raises when none are left.

        A timeout of 0 means "do not block" to sockets and "for ever" to others,
        so an expired deadline must never be passed on as a number.
        """
        self.check()
        left = max(self.remaining(), 0.001)
        return left if at_most is None else min(left, at_most)

    def sub(self, seconds: float, what: str) -> Deadline:
        """A deadline for a part: at most ``seconds``, and never after this one."""
        child = Deadline(seconds, what)
        if child._end > self._end:
            child._end = self._end
            child.seconds = self.seconds
            child.what = f"{what} (within: {self.what})"
        return child


class Step:
    """What ``with stream.step(...)`` yields; notes end up in the ``step-stop`` event."""

    __slots__ = ("name", "notes")

    def __init__(self, name: str) -> None:
        self.name = name
        self.notes: dict[str, object] = {}

    def note(self, **data: object) -> None:
        """Add to what the ``step-stop`` event will say."""
        self.notes.update(data)


class EventStream:
    """Thread-safe.  Every subscriber sees every event, in order of ``seq``.

    Subscribers run in the emitting thread, one event at a time; they must be
    quick, must not wait for other events, and may emit (their events come
    after the current one).  A subscriber that raises is dropped and the failure
    is itself an event: a full disk must not take a guest down with it.
    """

    def __init__(self, *, keep: int = 200_000) -> None:
        self._zero = time.monotonic()
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._history: deque[Event] = deque(maxlen=keep)
        self._pending: deque[Event] = deque()
        self._dispatching = False
        self._subscribers: list[Subscriber] = []
        self._seq = 0
        self._local = threading.local()
        self.emit("stream-start", wall=datetime.now(UTC).isoformat(timespec="milliseconds"))

    def now(self) -> float:
        """Seconds since the stream began, by the clock of :attr:`Event.t`."""
        return time.monotonic() - self._zero

    def emit(self, kind: str, /, source: str = "harness", **data: object) -> Event:
        """Record that something happened, and tell every subscriber."""
        return self._record(kind, source, data)

    def repeat(self, event: Event, **more: object) -> None:
        """Record what has happened on another stream, with ``more`` data; its time is now.

        That the other one began is not repeated: a stream begins once, and its clock with it.
        """
        if event.kind == "stream-start":
            return
        self._record(event.kind, event.source, {**event.data, **more})

    def _record(self, kind: str, source: str, data: Mapping[str, object]) -> Event:
        with self._lock:
            event = Event(self._seq, self.now(), source, kind, MappingProxyType(dict(data)))
            self._seq += 1
            self._history.append(event)
            self._pending.append(event)
            self._changed.notify_all()
            if not self._dispatching:
                self._dispatch()
        return event

    def _dispatch(self) -> None:
        # A subscriber that emits comes back into emit() in the same thread and
        # only appends: the loop below hands its event on, in order.
        self._dispatching = True
        try:
            while self._pending:
                event = self._pending.popleft()
                for subscriber in tuple(self._subscribers):
                    self._deliver(subscriber, event)
        finally:
            self._dispatching = False

    def _deliver(self, subscriber: Subscriber, event: Event) -> None:
        try:
            subscriber(event)
        except Exception as error:  # any: see the class's docstring
            if subscriber in self._subscribers:
                self._subscribers.remove(subscriber)
            name = getattr(subscriber, "__qualname__", type(subscriber).__qualname__)
            self.emit("warning", text=f"event subscriber {name} failed and was dropped: {error!r}")

    def subscribe(self, subscriber: Subscriber, *, replay: bool = False) -> Callable[[], None]:
        """Call ``subscriber`` with each event from now on; with ``replay``, past ones first.

        Returns a function that ends the subscription and may be called twice.
        """
        with self._lock:
            if replay:
                for event in tuple(self._history):
                    subscriber(event)
            self._subscribers.append(subscriber)

        def unsubscribe() -> None:
            with self._lock:
                if subscriber in self._subscribers:
                    self._subscribers.remove(subscriber)

        return unsubscribe

    def history(self) -> tuple[Event, ...]:
        """Everything so far, oldest first (the newest ``keep`` events)."""
        with self._lock:
            return tuple(self._history)

    def wait(self, predicate: Callable[[Event], bool], deadline: Deadline, *, after: int = -1) -> Event:
        """The first event with ``seq > after`` for which ``predicate`` holds.

        Looks at past events too, so nothing is missed between a cause and the
        wait for its effect; pass the ``seq`` of the cause as ``after``.
        """
        with self._changed:
            while True:
                for event in reversed(self._newer(after)):
                    after = event.seq
                    if predicate(event):
                        return event
                self._changed.wait(deadline.timeout())

    def _newer(self, after: int) -> list[Event]:
        found: list[Event] = []
        for event in reversed(self._history):
            if event.seq <= after:
                break
            found.append(event)
        return found

    @contextmanager
    def step(self, name: str, **args: object) -> Iterator[Step]:
        """A named piece of work: ``step-start`` and ``step-stop`` with its duration.

        ``step-stop`` carries ``seconds``, ``error`` (None when all went well)
        and whatever was noted.  ``depth`` is the nesting within this thread.
        """
        depth: int = getattr(self._local, "depth", 0)
        step = Step(name)
        began = time.monotonic()
        self._record("step-start", "harness", {**args, "step": name, "depth": depth})
        self._local.depth = depth + 1
        error: str | None = None
        try:
            yield step
        except BaseException as caught:  # Ctrl-C ends a step as well
            error = _said(caught)
            raise
        finally:
            self._local.depth = depth
            seconds = time.monotonic() - began
            outcome = {"step": name, "depth": depth, "seconds": seconds, "error": error}
            self._record("step-stop", "harness", {**step.notes, **outcome})


def _said(error: BaseException) -> str:
    """What ended a step, for people: the name of a class only where it says more than the words."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, FreepageError):
        return error.message
    return f"{type(error).__name__.lstrip('_')}: {error}".rstrip(": ")


def step_seconds(events: Iterable[Event], *, depth: int | None = 0) -> dict[str, float]:
    """Seconds by step name, in order of their end; ``depth=None`` takes nested ones too."""
    seconds: dict[str, float] = {}
    for event in events:
        if event.kind != "step-stop" or (depth is not None and event.data["depth"] != depth):
            continue
        name, took = str(event.data["step"]), event.data["seconds"]
        if isinstance(took, float):
            seconds[name] = seconds.get(name, 0.0) + took
    return seconds


class JsonLinesFile:
    """Subscriber that writes one JSON object a line, each at once, to a new file."""

    def __init__(self, path: PurePath | str) -> None:
        try:
            # "x": an earlier attempt's log is never overwritten.
            self._file: IO[str] = Path(path).open("x", encoding="utf-8", buffering=1)  # noqa: SIM115 - closed by close()
        except FileExistsError as error:
            raise InputError(f"{path} exists already", hint="every run needs a folder of its own") from error
        except OSError as error:
            raise MachineryError(f"cannot write {path}: {error.strerror}") from error

    def __call__(self, event: Event) -> None:
        """Write one event."""
        self._file.write(event.to_json() + "\n")

    def close(self) -> None:
        """Close the file; may be called twice."""
        self._file.close()

    def __enter__(self) -> JsonLinesFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
