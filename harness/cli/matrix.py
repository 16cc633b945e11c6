# SPDX-License-Identifier: GPL-2.0-or-later
"""``freepage run --qemu-matrix``: what the command line has to do with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import kernel_named, overrides
from harness.errors import InputError

QemuMatrix = Annotated[
    str | None,
    typer.Option(
        "--qemu-matrix",
        metavar="NAME,NAME...",
        help="Migrate between each two of these QEMUs, both ways, in arm off where --arm is not given.",
    ),
]


def run_matrix_command(
    scenarios: Sequence[str],
    names: str,
    options: Mapping[str, str | int | Path | None],
    strict: bool | None,
    settings: Sequence[str] | None,
    *,
    out: Path | None,
    as_json: bool,
) -> int:
    """Run the matrix and print it; returns the exit status.

    ``options``: of ``freepage run``, by name; None: not given.  Raises :class:`InputError` for what is
    wrong with all ways, before the first.
    """
    from harness.events import EventStream
    from harness.run.matrix import document, gravest_status, run_matrix, table
    from harness.scenario.load import load_scenario
    from harness.terminal import TerminalProgress
    from harness.toolchain.qemu_names import canonical
    from harness.verdict.expected_rule import demand_known_rule

    if len(scenarios) != 1:
        raise InputError("--qemu-matrix takes one scenario")
    given = {"arm": "off", **{name: str(value) for name, value in options.items() if value is not None}}
    if "kernel" in given:
        given["kernel"] = kernel_named(given["kernel"])
    # What is wrong with the scenario, or with a name, is said before a guest boots.
    changes = overrides(
        given["arm"], given.get("accel"), given.get("memory"), None, strict, [*(settings or ())]
    )
    scenario = load_scenario(scenarios[0], changes)
    demand_known_rule(scenario)
    if scenario.remote is not None:
        raise InputError("--qemu-matrix is for the lab: two other machines have QEMUs of their own")
    qemus = [canonical(name.strip()) for name in names.split(",") if name.strip()]
    words = [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", value)]
    if strict is not None:
        words.append("--strict" if strict else "--no-strict")
    words += [word for setting in settings or () for word in ("--set", setting)]
    events = EventStream()
    with TerminalProgress(events):
        ends = run_matrix(scenarios[0], qemus, words, out=out, events=events)
    if as_json:
        typer.echo(document(scenarios[0], ends), nl=False)
    else:
        for line in table(ends):
            typer.echo(line)
    return gravest_status(ends)
