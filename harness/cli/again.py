# SPDX-License-Identifier: GPL-2.0-or-later
"""``freepage replay``, and what ``freepage run`` does in place of one run: many, or none."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.hand import KeepOption, PauseAt, wanted_by_hand
from harness.cli.options import Json, app
from harness.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.plan.plan import Tools
    from harness.scenario.load import Override

UntilFailure = Annotated[
    bool,
    typer.Option("--until-failure", help="Run again and again until a run fails; see --max."),
]
MostRuns = Annotated[
    int | None,
    typer.Option("--max", min=1, max=1_000_000, metavar="N", help="With --until-failure: N runs at most."),
]
PrintCommand = Annotated[
    bool,
    typer.Option("--print-command", help="Print the domains and QEMU's command lines; start no guest."),
]


def in_place_of_a_run(
    scenarios: Sequence[str],
    changes: Sequence[str | Override],
    tools: Tools,
    *,
    until_failure: bool,
    most: int | None,
    print_command: bool,
    nested: bool,
    jobs: int | None,
    beside: Sequence[str],
    out: Path | None,
    as_json: bool,
) -> int | None:
    """What was asked for instead of one run each; its exit status.  None: nothing was.

    ``beside``: options that were given and mean one run each.
    """
    if most is not None and not until_failure:
        raise InputError("--max has nothing to bound without --until-failure")
    if not until_failure and not print_command:
        return None
    option = "--until-failure" if until_failure else "--print-command"
    if until_failure and print_command:
        raise InputError("--until-failure and --print-command exclude each other")
    if len(scenarios) != 1:
        raise InputError(f"{option} takes one scenario, and not {len(scenarios)}")
    if beside:
        raise InputError(f"{beside[0]} has nothing to say beside {option}")
    if print_command:
        if nested or jobs is not None:
            raise InputError(f"{'--nested' if nested else '--jobs'} has nothing to say beside {option}")
        if out is not None:
            raise InputError("--print-command makes no run folder: --out has nothing to name")
        from harness.run.print_command import print_commands

        return print_commands(scenarios[0], changes, tools, as_json=as_json)
    if most is None:
        raise InputError("--until-failure needs a bound: --max N")
    from harness.suite.several import NamedRuns
    from harness.suite.until_failure import run_until_failure

    named = NamedRuns(scenarios, changes, tools, nested)
    return run_until_failure(named, most, jobs=jobs, out=out, as_json=as_json)


@app.command("replay")
def replay_command_line(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The new run folder; must not exist yet.")
    ] = None,
    json: Json = False,
    keep: KeepOption = None,
    pause_at: PauseAt = None,
) -> None:
    """Make a run again: with its scenario, seed, QEMUs and kernel; and compare the verdicts."""
    from harness.run.replay import load_recorded, replay_run

    recorded = load_recorded(run)
    hand = wanted_by_hand([str(recorded.scenario)], keep, pause_at or (), nested=recorded.nested)
    if recorded.nested:
        from harness.suite.several import NamedRuns, run_single

        again = NamedRuns([str(recorded.scenario)], [], recorded.tools, nested=True)
        raise typer.Exit(run_single(again, out=out, as_json=json))
    raise typer.Exit(replay_run(run, recorded, out=out, as_json=json, hand=hand))
