# SPDX-License-Identifier: GPL-2.0-or-later
"""``freepage bisect``: the commit from which on a scenario fails."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import (
    Accel,
    ArmOption,
    Json,
    KernelName,
    MemoryOption,
    Seed,
    Settings,
    Strict,
    app,
    overrides,
    tools_of,
)


@app.command()
def bisect(
    scenario: Annotated[
        str, typer.Argument(metavar="SCENARIO", help="A name (see 'scenario list') or a file.")
    ],
    qemu_tree: Annotated[
        Path, typer.Option(metavar="TREE", help="Your git tree of QEMU; it is read, and nothing else.")
    ],
    good: Annotated[str, typer.Option(metavar="A", help="A revision at which the scenario passes.")],
    bad: Annotated[str, typer.Option(metavar="B", help="A later one at which it fails.")],
    repeat: Annotated[
        int, typer.Option(min=1, max=1000, metavar="N", help="Good is what passes N runs.")
    ] = 3,
    arm: ArmOption = None,
    accel: Accel = None,
    memory: MemoryOption = None,
    seed: Seed = None,
    settings: Settings = None,
    kernel: KernelName = None,
    strict: Strict = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The folder of all run folders; must not exist yet.")
    ] = None,
    json: Json = False,
) -> None:
    """Find the commit of a QEMU tree from which on a scenario fails, by git bisect in a clone of the tree."""
    from harness.bisect.command import BisectOptions, find_change
    from harness.bisect.span import look_at_span

    changes = overrides(arm, accel, memory, seed, strict, settings)
    tools = tools_of(None, None, None, kernel, None)
    span = look_at_span(qemu_tree, "qemu", good, bad)
    options = BisectOptions(scenario, changes, tools, repeat)
    raise typer.Exit(find_change(span, options, out=out, as_json=json))
