# SPDX-License-Identifier: GPL-2.0-or-later
"""``freepage explain``: why each page of a run is right or wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.complete import run_names
from harness.cli.options import Json, app, print_json
from harness.errors import InputError


@app.command()
def explain(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="A run folder, its name below runs, or how that begins; or last.",
            autocompletion=run_names,
        ),
    ],
    pfn: Annotated[
        str | None, typer.Option(metavar="N", help="One guest frame number, decimal or 0x hexadecimal.")
    ] = None,
    wrong: Annotated[bool, typer.Option("--wrong", help="Every wrong page that the result lists.")] = False,
    summary: Annotated[
        bool, typer.Option("--summary", help="The whole run, as an argument (what is printed by default).")
    ] = False,
    devices: Annotated[
        bool, typer.Option("--devices", help="The state of devices and vCPUs, and every field that differs.")
    ] = False,
    wire: Annotated[
        bool, typer.Option("--wire", help="The stream as a tap has heard it: what came, and what is wrong.")
    ] = False,
    guest: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Of a run with several guests: which of them.")
    ] = None,
    json: Json = False,
) -> None:
    """Say why the pages of a run are right or wrong: what is known of one, of the wrong ones, or of all."""
    if (pfn is not None) + wrong + summary + devices + wire > 1:
        raise InputError("--pfn, --wrong, --summary, --devices and --wire exclude each other")
    frame = None if pfn is None else _frame(pfn)
    place = _folder(run) if guest is None else _folder(run) / f"guest-{guest}"
    if devices:
        _explain_devices(place, json=json)
        return
    if wire:
        _explain_wire(place, json=json)
        return
    from harness.explain.argument import argument
    from harness.explain.case import Case
    from harness.explain.page import explain_page
    from harness.explain.show import page_lines, step_lines, wrong_frames, wrong_lines

    case = Case.open(place)
    frames = [frame] if frame is not None else wrong_frames(case) if wrong else []
    if json and (frame is not None or wrong):
        print_json([{"frame": one, "known": explain_page(case, one)} for one in frames])
        return
    steps = argument(case)
    if json:
        print_json([{"claim": step.claim, "grounds": step.grounds} for step in steps])
        return
    result = case.result
    title = f"{result.verdict.upper()}  {result.scenario}, arm {result.arm}, {result.accelerator}: {place}"
    if frame is not None:
        lines = page_lines(explain_page(case, frame))
    else:
        lines = wrong_lines(case) if wrong else step_lines(title, steps)
    for line in lines:
        typer.echo(line)


def _folder(run: str) -> Path:
    """What is there by that path, else what is meant by that name."""
    from harness.report.runs import find_run

    if not run.strip():
        raise InputError("no run is named: its name is empty")
    return Path(run) if "/" in run or Path(run).exists() else find_run(run)


def _explain_devices(run: Path, *, json: bool) -> None:
    from harness.explain.case import read_result
    from harness.explain.devices import device_lines

    result = read_result(run)
    if json:
        print_json(result.devices.model_dump(mode="json") if result.devices is not None else None)
        return
    for line in device_lines(result):
        typer.echo(line)


def _explain_wire(run: Path, *, json: bool) -> None:
    from harness.explain.case import read_result
    from harness.explain.wire import wire_lines

    result = read_result(run)
    if json:
        print_json(result.wire.model_dump(mode="json") if result.wire is not None else None)
        return
    for line in wire_lines(result):
        typer.echo(line)


def _frame(text: str) -> int:
    try:
        frame = int(text, 0)
    except ValueError as error:
        raise InputError(f"--pfn {text}: expected a frame number such as 0x1a2b or 6699") from error
    if frame < 0:
        raise InputError(f"--pfn {text}: a frame number is not negative")
    return frame
