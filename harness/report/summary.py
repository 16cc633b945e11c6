# SPDX-License-Identifier: GPL-2.0-or-later
"""A result for people: what a terminal shows at the end of a run."""

from __future__ import annotations

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from harness.report.devices import Devices
from harness.report.guests import GuestEnd
from harness.report.migration import FileReport, Postcopy
from harness.report.result import Result
from harness.terminal import OutputConsole
from harness.units import human_size

_STYLE = {"pass": "bold green", "fail": "bold red", "inconclusive": "bold yellow"}
#: More wrong pages than this are for the file.
_SHOWN = 10


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def _rows(result: Result) -> list[tuple[str, str]]:
    pages = result.pages
    of_pages = [f"{pages.equal} equal", f"{pages.skipped} skipped ({_share(pages.skipped, pages.total)})"]
    of_pages += [f"{count} {name}" for name, count in pages.explained.items()]
    of_pages.append(f"{pages.wrong} wrong")
    rows = [("pages", f"{pages.total}: " + ", ".join(of_pages))]
    if result.arm == "info":
        told = result.protocol
        asked = (
            f"{told.requests} requests, {told.responses} answers, {told.stale} stale, {told.invalid} invalid"
        )
        rows.append(("protocol", f"not asked: {told.refused}" if told.refused else asked))
    if result.machine is not None and result.machine.cpu is not None:
        lacks = ", ".join(result.machine.cpu_lacks)
        without = f", without {lacks}, which {result.accelerator} lacks" if lacks else ""
        rows.append(("machine", f"{result.machine.type}, CPU {result.machine.cpu}{without}"))
    if (words := _witnesses(result)) is not None:
        rows.append(("witnesses", words))
    rows += _costs(result)
    if result.file is not None:
        rows.append(("file", _file(result.file)))
    if result.postcopy is not None:
        rows.append(("postcopy", _postcopy(result.postcopy)))
    if result.guests is not None:
        rows += [(f"guest {one.guest}", _one_guest(one)) for one in result.guests.each]
        together = ", ".join(f"{common} ms" for common in result.guests.together_ms)
        rows.append(("together", f"all of them were under way for {together}"))
    if len(result.moves) > 1:
        ends = (f"{end.ended}, {end.skipped} skipped" if end.verdict else end.ended for end in result.moves)
        rows.append(("moves", "; ".join(ends)))
    slowed = [end.throttle.words for end in result.moves if end.throttle is not None]
    if slowed:
        rows.append(("slowed down", "; ".join(slowed)))
    if result.devices is not None:
        rows.append(("devices", _devices(result.devices)))
    rows.append(("guest", _guest(result)))
    if result.not_compared:
        named = ", ".join(f"{block.name} ({block.reason})" for block in result.not_compared)
        rows.append(("not compared", named))
    if result.remote is not None:
        remote = result.remote
        places = " to ".join(
            f"{host.uri} ({host.node}, libvirt {host.libvirt})" for host in remote.hosts.values()
        )
        rows.append(("hosts", f"{places}, stream {remote.stream}"))
        rows.append(
            (
                "network",
                f"{human_size(remote.oracle_bytes)} for the oracle ({remote.oracle_percent:.2f} % of the "
                f"guest's memory), {human_size(remote.file_bytes)} of files copied",
            )
        )
    phases = ", ".join(f"{name} {seconds:.1f}" for name, seconds in result.phases.items())
    rows.append(("seconds", phases))
    if result.checks:
        parts = ", ".join(f"{name} {seconds:.2f}" for name, seconds in result.checks.items())
        total = sum(result.checks.values())
        rows.append(("checks", f"beside memory, of these seconds: {total:.2f} ({parts})"))
    rows.append(("replay", result.replay))
    if result.folder:
        rows.append(("run folder", result.folder))
    return rows


def _costs(result: Result) -> list[tuple[str, str]]:
    """What was sent, and the time that it took."""
    if result.bytes is None or result.time is None:
        return []
    sent, time = result.bytes, result.time
    witness = {"none": "nobody says what is free", "module": "free by the guest's own answer"}
    by = witness.get(sent.floor_by, "free by the walk from outside")
    head = f", of which {human_size(sent.head)} free pages before the first answer" if sent.head else ""
    rows = [("sent", f"{human_size(sent.sent)}{head}")]
    what = "sent less those" if sent.head else "sent"
    times = "" if sent.sent_over_floor is None else f"; {what} is {sent.sent_over_floor:.2f} times the floor"
    rows.append(("floor", f"{human_size(sent.floor)} ({by}){times}"))
    held = f", of which {time.held_ms} ms held for digests" if time.held_ms else ""
    rows.append(
        ("time", f"{time.total_ms} ms in {result.rounds} rounds{held}; down for {time.downtime_ms} ms")
    )
    return rows


def _one_guest(guest: GuestEnd) -> str:
    """Its own verdict, and where to look further."""
    parts = [f"{guest.verdict}: {guest.reason}"]
    if guest.sent is not None and guest.total_ms is not None:
        took = f"{human_size(guest.sent)} sent in {guest.total_ms} ms"
        parts.append(f"{took}, down for {guest.downtime_ms} ms")
    return "; ".join([*parts, f"seed {guest.seed}", f"in {guest.folder}/"])


def _postcopy(move: Postcopy) -> str:
    """The switch, and how the pages came."""
    guest = "stood still" if move.guest == "paused" else "ran on the destination"
    words = f"for {move.ms} ms, in which the guest {guest}"
    if move.pages is not None:
        words += (
            f"; {move.pages.precopy} pages sent before the switch, {move.pages.postcopy} after it, "
            f"{move.pages.requests} requests"
        )
    return words + (f"; broken and recovered {move.breaks} times" if move.breaks else "")


def _witnesses(result: Result) -> str | None:
    """What the outside walk says to the guest's answers."""
    heard = result.witnesses
    if heard is None or result.arm != "info":
        return None
    if not heard.judged:
        return f"no walk at any of {heard.answered} answered requests" if heard.answered else None
    parts = [f"{count} {name}" for name, count in heard.standing.items()]
    words = f"of the reported pages, by the walk from outside: {', '.join(parts)}"
    if heard.agreement:
        apart = sum(count for name, count in heard.agreement.items() if name != "both")
        words += f"; both agree on {heard.agreement.get('both', 0)} and differ in {apart}"
    return words + (f"; no walk at {len(heard.missing)} requests" if heard.missing else "")


def _devices(devices: Devices) -> str:
    if devices.not_compared and not devices.compared:
        return f"not compared: {devices.not_compared}"
    wrong = sum(one.reason is None for one in devices.differences)
    explained = len(devices.differences) - wrong
    words = f", {explained} explained" if explained else ""
    if devices.not_compared:
        return f"{devices.compared} vCPUs: {wrong} registers differ{words}; {devices.not_compared}"
    return f"{devices.compared}, {devices.bytes} bytes of state: {wrong} fields differ{words}"


def _file(file: FileReport) -> str:
    if file.bytes is None:
        return f"{file.way}: not written whole"
    words = f"{file.way}: {human_size(file.bytes)}, {human_size(file.allocated or 0)} allocated, "
    words += f"written in {file.write_ms} ms"
    words += ", not restored" if file.restore_ms is None else f", restored in {file.restore_ms} ms"
    if file.used_memory:
        words += " over used memory"
    if file.written_meanwhile is not None:
        words += f"; the guest wrote {file.written_meanwhile} pages meanwhile"
    return f"{words}; {file.spoilt}" if file.spoilt else words


def _guest(result: Result) -> str:
    guest = result.guest
    if guest.verify_bad is None:
        return "not asked"
    parts = [f"{guest.verify_bad} of its {guest.verify_pages} pages wrong"]
    if guest.exercise_bad is not None:
        parts.append(f"{guest.exercise_bad} of {guest.exercise_pages} exercised pages wrong")
    if guest.kernel_warnings is not None:
        parts.append(f"{len(guest.kernel_warnings)} kernel warnings")
    return ", ".join(parts)


def summary(result: Result) -> RenderableType:
    """The whole result on half a screen; every line stands alone in a log."""
    title = Text(result.verdict.upper(), _STYLE[result.verdict])
    title.append(f"  {result.scenario}, arm {result.arm}, {result.accelerator}", "bold")
    several = "" if result.guests is None else f"{len(result.guests.each)} guests of "
    title.append(f", {several}{human_size(result.memory_bytes)}, seed {result.seed}", "bold")
    parts: list[RenderableType] = [title, Text(result.reason)]
    parts += [Text(f"  {found.rule}: {found.text}", "red") for found in result.findings]
    for page in result.wrong_pages[:_SHOWN]:
        frame = "no frame" if page.frame is None else f"frame {page.frame:#x}"
        whose = "" if page.guest is None else f"guest {page.guest}: "
        text = f"    {whose}{page.block} page {page.page:#x} ({frame}): {page.rule}"
        parts.append(Text(text if page.request is None else f"{text}, request {page.request}", "red"))
    if result.pages.wrong > _SHOWN:
        parts.append(
            Text(f"    ... {result.pages.wrong - _SHOWN} more; result.json lists the first 100", "red")
        )
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, text in _rows(result):
        table.add_row(name, Text(text))
    parts.append(table)
    by = "" if result.expected_rule is None else f" by the rule {result.expected_rule!r}"
    if not result.as_expected:
        parts.append(Text(f"this scenario expects the verdict {result.expected!r}{by}", "yellow"))
    elif result.expected != "pass":
        parts.append(Text(f"as expected: {result.expected}{by}", "green"))
    return Group(*parts)


def print_summary(result: Result, console: Console | None = None) -> None:
    """Print :func:`summary`; on standard output unless told otherwise."""
    console = console or OutputConsole()
    if console.is_terminal:
        console.print(summary(result))
        return
    # A log has no width: do not fold lines at 80 columns for nobody, nor fill them with blanks.
    wide = Console(width=400, no_color=True, force_terminal=False)
    with wide.capture() as capture:
        wide.print(summary(result))
    console.file.writelines(f"{line.rstrip()}\n" for line in capture.get().splitlines())
    # A reader that is gone, or a full device, is noticed here and not when nobody can say so any more.
    console.file.flush()
