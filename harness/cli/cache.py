# SPDX-License-Identifier: GPL-2.0-or-later
"""``freepage cache``: what is built and fetched, whether it is whole, what may go; taking it elsewhere."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import Json, app, print_json
from harness.errors import ExitCode, InputError

cache_commands = typer.Typer(
    no_args_is_help=True, help="What is built and fetched: list it, check it, prune it, take it elsewhere."
)
app.add_typer(cache_commands, name="cache")

CacheKinds = Annotated[
    list[str] | None, typer.Argument(metavar="[KIND]...", help="Only these kinds, such as qemu or kernel.")
]


@cache_commands.command("list")
def cache_list(kinds: CacheKinds = None, json: Json = False) -> None:
    """List what is in the cache, and where it is."""
    from harness.events import EventStream
    from harness.toolchain.cache import Cache
    from harness.toolchain.care import entries
    from harness.units import DAY, human_size

    cache = Cache(None, EventStream())
    found = [entry for entry in entries(cache) if not kinds or entry.kind in kinds]
    if json:
        print_json(
            [
                {
                    "kind": entry.kind,
                    "key": entry.key,
                    "path": str(entry.path),
                    "bytes": entry.size,
                    "used": round(entry.used),
                    "detail": entry.detail,
                    "own": entry.own,
                }
                for entry in found
            ]
        )
        return
    now = time.time()
    for entry in found:
        days = (now - entry.used) / DAY
        typer.echo(
            f"{entry.kind:12}  {entry.key:32}  {human_size(entry.size):>10}  "
            f"used {days:5.1f} days ago  {entry.detail}".rstrip()
        )
    total = human_size(sum(entry.size for entry in found))
    places = ", ".join(str(layer) for layer in cache.layers)
    typer.echo(f"{len(found)} entries, {total}, in {places}")


@cache_commands.command("verify")
def cache_verify(
    kinds: CacheKinds = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Take damaged entries away: the next run makes them anew.")
    ] = False,
    json: Json = False,
) -> None:
    """Read every byte, and hold it against what was made.

    Exit status: 0 all is whole; 3 something is damaged, and was not taken away.
    """
    from harness.events import EventStream
    from harness.terminal import TerminalProgress
    from harness.toolchain.cache import Cache
    from harness.toolchain.care import entries, read_whole

    events = EventStream()
    cache = Cache(None, events)
    with TerminalProgress(events), events.step("verify"):
        wanted = [entry for entry in entries(cache) if not kinds or entry.kind in kinds]
        checked = []
        for number, entry in enumerate(wanted):
            events.emit("progress", step="verify", done=number, total=len(wanted), unit="entries")
            checked.append(read_whole(entry))
    damaged = [one for one in checked if one.wrong is not None]
    left = len(damaged)
    for one in damaged:
        if repair and one.entry.own:
            cache.discard(one.entry.kind, one.entry.key)
            left -= 1
    new = sum(not one.known for one in checked)
    if json:
        print_json(
            {
                "entries": len(checked),
                "damaged": [{"path": str(one.entry.path), "wrong": one.wrong} for one in damaged],
                "unknown": new,
                "left": left,
            }
        )
    else:
        for one in damaged:
            done = "taken away" if repair and one.entry.own else "damaged"
            typer.echo(f"{done}: {one.entry.kind}/{one.entry.key}: {one.wrong}")
        unknown = f"; of {new} nobody had kept sums, which are kept from now on" if new else ""
        typer.echo(f"{len(checked) - len(damaged)} of {len(checked)} entries are whole{unknown}")
        if left and not repair:
            typer.echo("hint: freepage cache verify --repair takes what is damaged away", err=True)
    raise typer.Exit(ExitCode.ERROR if left else ExitCode.PASS)


@cache_commands.command("prune")
def cache_prune(
    kinds: CacheKinds = None,
    days: Annotated[
        float, typer.Option(metavar="DAYS", min=0.0, help="What no run has used for so long goes.")
    ] = 30.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    json: Json = False,
) -> None:
    """Take away what has not been used for long, and what killed runs have left."""
    from harness.events import EventStream
    from harness.toolchain.cache import Cache
    from harness.toolchain.care import prune
    from harness.units import DAY, human_size

    cache = Cache(None, EventStream())
    pruned = list(prune(cache, unused_for=days * DAY, kinds=kinds or (), dry_run=dry_run))
    if json:
        print_json([{"path": str(one.path), "bytes": one.size, "why": one.why} for one in pruned])
        return
    for one in pruned:
        typer.echo(f"{one.path.parent.name}/{one.path.name}  {human_size(one.size)}  {one.why}")
    total = human_size(sum(one.size for one in pruned))
    typer.echo(f"{len(pruned)} entries, {total}: {'these would go' if dry_run else 'gone'}")


@cache_commands.command("export")
def cache_export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A new tar file.")],
    kinds: CacheKinds = None,
) -> None:
    """Write the cache into one file, for a machine that is to build nothing."""
    from harness.events import EventStream
    from harness.terminal import TerminalProgress
    from harness.toolchain.cache import Cache
    from harness.toolchain.parcel import pack_parcel

    events = EventStream()
    number = 0
    with TerminalProgress(events), events.step("export"):
        for number, _ in enumerate(pack_parcel(Cache(None, events), file, kinds or ()), 1):
            events.emit("progress", step="export", done=number, unit="entries")
    typer.echo(f"{file}: {number} entries")


@cache_commands.command("import")
def cache_import(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What 'freepage cache export' has written.")],
) -> None:
    """Take in what another cache has exported; every byte is checked.

    Programs in it will be run: take it only from whom you would take programs.
    """
    from harness.events import EventStream
    from harness.terminal import TerminalProgress
    from harness.toolchain.cache import Cache
    from harness.toolchain.parcel import unpack_parcel

    if file.is_dir():
        raise InputError(f"{file} is a folder: an export is one file")
    events = EventStream()
    taken = there = 0
    with TerminalProgress(events), events.step("import"):
        for _, _, outcome in unpack_parcel(Cache(None, events), file):
            taken += outcome == "taken in"
            there += outcome != "taken in"
            events.emit("progress", step="import", done=taken + there, unit="entries")
    typer.echo(f"{taken} entries taken in, {there} were there already")
