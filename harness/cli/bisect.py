# SPDX-License-Identifier: GPL-2.0-or-later
"""``freepage bisect``: the commit from which on a scenario fails."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import (
    Accel,
    ArmOption,
    Json,
    KernelConfig,
    KernelName,
    MemoryOption,
    Seed,
    Settings,
    Strict,
    app,
    overrides,
    tools_of,
)
from harness.errors import InputError

if TYPE_CHECKING:
    from harness.bisect.span import CommitSpan


@app.command()
def bisect(
    scenario: Annotated[
        str, typer.Argument(metavar="SCENARIO", help="A name (see 'scenario list') or a file.")
    ],
    good: Annotated[str, typer.Option(metavar="A", help="A revision at which the scenario passes.")],
    bad: Annotated[str, typer.Option(metavar="B", help="A later one at which it fails.")],
    qemu_tree: Annotated[
        Path | None, typer.Option(metavar="TREE", help="Your git tree of QEMU; it is read, and nothing else.")
    ] = None,
    kernel_tree: Annotated[
        Path | None,
        typer.Option(metavar="TREE", help="Instead: your git tree of Linux, for the guest's kernel."),
    ] = None,
    repeat: Annotated[
        int, typer.Option(min=1, max=1000, metavar="N", help="Good is what passes N runs.")
    ] = 3,
    arm: ArmOption = None,
    accel: Accel = None,
    memory: MemoryOption = None,
    seed: Seed = None,
    settings: Settings = None,
    kernel: KernelName = None,
    kernel_config: KernelConfig = None,
    strict: Strict = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The folder of all run folders; must not exist yet.")
    ] = None,
    json: Json = False,
) -> None:
    """Find the commit of a tree from which on a scenario fails, by git bisect in a clone of the tree."""
    from harness.bisect.command import BisectOptions, find_change

    changes = overrides(arm, accel, memory, seed, strict, settings, None, kernel_config)
    tools = tools_of(None, None, None, kernel, None)
    span = _span(qemu_tree, kernel_tree, kernel, good, bad)
    options = BisectOptions(scenario, changes, tools, repeat)
    raise typer.Exit(find_change(span, options, out=out, as_json=json))


def _span(
    qemu_tree: Path | None, kernel_tree: Path | None, kernel: str | None, good: str, bad: str
) -> CommitSpan:
    from harness.bisect.span import look_at_span

    if qemu_tree is not None and kernel_tree is not None:
        raise InputError(
            "--qemu-tree and --kernel-tree both name a tree to search", hint="one after the other"
        )
    if qemu_tree is not None:
        return look_at_span(qemu_tree, "qemu", good, bad)
    if kernel_tree is None:
        raise InputError("there is no tree to search", hint="give --qemu-tree TREE or --kernel-tree TREE")
    if kernel is not None:
        raise InputError("--kernel has nothing left to name beside --kernel-tree")
    return look_at_span(kernel_tree, "kernel", good, bad)
