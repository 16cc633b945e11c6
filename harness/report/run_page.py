# SPDX-License-Identifier: GPL-2.0-or-later
"""One run as a page: one file, which refers to nothing outside, needs no scripts, and can be printed.

All text that comes from guests, QEMU or scenarios is escaped by the template; the picture of memory is
data in an image, in which nothing runs.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from harness.report.finished import FinishedRun
from harness.report.folder import INCOMPLETE_MARKER
from harness.report.result import Result
from harness.report.templates_of import render
from harness.report.timeline import SHOWN_KINDS, EventRecord, migration_timeline, run_timeline
from harness.units import human_size

RUN_PAGE: Final = "report.html"

#: Larger pictures of memory would make a page that nobody can send.
_LARGEST_MAP: Final = 1 << 20
#: So much of the end of a console or log is shown.
_TAIL_BYTES: Final = 6000
_TAIL_LINES: Final = 40
#: A line of events that is longer is none of those that are shown.
_LONGEST_EVENT: Final = 1 << 16
#: What a console says to a terminal, and a page has no use for.
_CONTROL: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")
_CONSOLES: Final = ("console.log", "destination-console.log", "nested-console.log", INCOMPLETE_MARKER)


@dataclass(frozen=True, slots=True)
class StackPart:
    """A part of a whole, as a piece of a bar: percent."""

    name: str
    words: str
    percent: float
    style: str


def run_page(folder: Path, result: Result | None, run: FinishedRun | None = None) -> str:
    """The page of the run in a folder.

    ``run``: what is known of a run that reached no result, or of its place in a suite.
    """
    events = list(read_events(folder / "events.jsonl"))
    return render(
        "run.html.j2",
        title=result.scenario if result is not None else run.scenario if run is not None else folder.name,
        run=run,
        result=result,
        outcome=run.outcome if run is not None else result.verdict if result is not None else "error",
        reason=result.reason if result is not None else run.reason if run is not None else _ended(folder),
        steps=run_timeline(events),
        migration=migration_timeline(events),
        pages=_pages(result),
        bytes=_bytes(result),
        facts=_facts(result, run),
        versions=_versions(result),
        map=_map(folder),
        consoles=[(name, text) for name in _CONSOLES if (text := tail(folder / name))],
        replay=result.replay if result is not None else run.replay if run is not None else "",
        folder=str(folder),
        human=human_size,
    )


def read_events(path: Path) -> Iterator[EventRecord]:
    """The events that a page shows; lines that are none (a run was killed) are passed over."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        for line in file:
            if len(line) > _LONGEST_EVENT:
                continue
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if (
                isinstance(event, dict)
                and event.get("kind") in SHOWN_KINDS
                and isinstance(event.get("data"), dict)
            ):
                yield event


def tail(path: Path) -> str:
    """The last lines of a text file; empty if there is none."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _TAIL_BYTES))
        text = file.read().decode("utf-8", "replace")
    lines = text.splitlines()
    # The first one may have no begin.
    lines = lines[1:] if size > _TAIL_BYTES else lines
    return _CONTROL.sub("", "\n".join(lines[-_TAIL_LINES:]))


def _ended(folder: Path) -> str:
    text = tail(folder / INCOMPLETE_MARKER)
    return " ".join(text.split()) or "there is no result"


def _map(folder: Path) -> str:
    path = folder / "map.svg"
    if not path.is_file() or path.stat().st_size > _LARGEST_MAP:
        return ""
    return "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode("ascii")


def _pages(result: Result | None) -> list[StackPart]:
    if result is None or not result.pages.total:
        return []
    pages = result.pages
    parts = [("equal", pages.equal, "equal"), ("skipped", pages.skipped, "skipped")]
    parts += [(name, count, "explained") for name, count in pages.explained.items()]
    parts += [("wrong", pages.wrong, "bad")]
    return [
        StackPart(name, f"{count:,}", round(100 * count / pages.total, 3), style)
        for name, count, style in parts
        if count or name == "wrong"
    ]


def _bytes(result: Result | None) -> list[StackPart]:
    """What was sent and why; each of the guest's memory."""
    if result is None or result.bytes is None:
        return []
    found, whole = result.bytes, max(result.memory_bytes, result.bytes.sent)
    parts: Sequence[tuple[str, int | None, str]] = (
        ("sent", found.sent, "status"),
        ("floor: had to be sent", found.floor, "good"),
        ("free pages before the first answer", found.head, "warn"),
        ("sent again", found.again, "pause"),
        ("free, and never reported", found.unreported, "hold"),
        ("the rest", found.rest, "step1"),
    )
    return [
        StackPart(name, human_size(size), max(0.0, round(100 * size / whole, 3)), style)
        for name, size, style in parts
        if size is not None
    ]


def _facts(result: Result | None, run: FinishedRun | None) -> list[tuple[str, str]]:
    facts: list[tuple[str, str]] = []
    if run is not None and run.dimensions:
        facts.append(("chosen", ", ".join(f"{key}: {value}" for key, value in run.dimensions.items())))
    if result is None:
        return facts
    facts += [
        ("arm", result.arm),
        ("accelerator", f"{result.accelerator}: {result.accelerator_reason}"),
        ("memory", human_size(result.memory_bytes) + (" of each guest" if result.guests is not None else "")),
        ("seed", str(result.seed)),
        ("strict", "yes" if result.strict else "no: that nothing changed rests on the device's dirty log"),
    ]
    for one in result.guests.each if result.guests is not None else ():
        facts.append((f"guest {one.guest}", f"{one.verdict}: {one.reason} ({one.folder}/, seed {one.seed})"))
    if result.guests is not None:
        together = ", ".join(f"{common} ms" for common in result.guests.together_ms)
        facts.append(("together", f"the migrations of all guests were under way at one time for {together}"))
    if result.machine is not None:
        facts.append(("machine", f"{result.machine.type}, CPU {result.machine.cpu or 'as QEMU chooses'}"))
    if result.time is not None:
        time = result.time
        facts.append(
            (
                "time",
                f"{time.total_ms} ms in {result.rounds} rounds, of which {time.held_ms} ms held; down for "
                f"{time.downtime_ms} ms",
            )
        )
    if result.bytes is not None and result.bytes.sent_over_floor is not None:
        facts.append(("sent over floor", f"{result.bytes.sent_over_floor:.3f}"))
    told = result.protocol
    if result.arm == "info":
        words = (
            f"{told.requests} requests, {told.responses} answers, {told.stale} stale, {told.invalid} invalid"
        )
        facts.append(("protocol", f"not asked: {told.refused}" if told.refused else words))
    guest = result.guest
    if guest.verify_bad is not None:
        facts.append(("guest's own check", f"{guest.verify_bad} of {guest.verify_pages} pages wrong"))
    return facts


def _versions(result: Result | None) -> list[tuple[str, str, str]]:
    if result is None:
        return []
    rows = []
    for name, found in result.versions.items():
        if isinstance(found, dict):
            parts: dict[str, Any] = found
            words = ", ".join(str(parts[key]) for key in ("version", "release", "flavour") if parts.get(key))
            rows.append((name.replace("_", " "), words, str(parts.get("sha256") or "")))
        else:
            rows.append((name.replace("_", " "), str(found), ""))
    return rows
