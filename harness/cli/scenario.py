# SPDX-License-Identifier: GPL-2.0-or-later
"""``freepage scenario``: what scenarios there are, what they say, whether they are right."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli.complete import scenario_names
from harness.cli.options import Json, Settings, app, print_json
from harness.errors import InputError

scenarios = typer.Typer(
    no_args_is_help=True, help="The scenarios: what there is, what they say, whether they are right."
)
app.add_typer(scenarios, name="scenario")


@scenarios.command("list")
def scenario_list(json: Json = False) -> None:
    """List the scenarios that ship."""
    from dataclasses import asdict

    from harness.scenario.load import list_scenarios

    found = list_scenarios()
    if json:
        print_json([asdict(entry) for entry in found])
        return
    width = max((len(entry.name) for entry in found), default=0)
    for entry in found:
        typer.echo(f"{entry.name:{width}}  {entry.summary}")


@scenarios.command("show")
def scenario_show(
    name: Annotated[str, typer.Argument(metavar="NAME", autocompletion=scenario_names)],
    settings: Settings = None,
) -> None:
    """Print a scenario with every default filled in."""
    from harness.scenario.load import load_scenario
    from harness.verdict.expected_rule import demand_known_rule

    scenario = load_scenario(name, settings or ())
    demand_known_rule(scenario)
    typer.echo(scenario.to_yaml(), nl=False)


@scenarios.command("check")
def scenario_check(files: Annotated[list[str], typer.Argument(metavar="FILE...")]) -> None:
    """Say whether scenario files are right, and where they are not."""
    from harness.scenario.load import load_scenario
    from harness.verdict.expected_rule import demand_known_rule

    wrong = 0
    for file in files:
        try:
            loaded = load_scenario(file)
            demand_known_rule(loaded)
        except InputError as error:
            wrong += 1
            typer.echo(error.render(), err=True)
        else:
            typer.echo(f"{file}: ok ({loaded.name})")
    if wrong:
        raise typer.Exit(2)


@scenarios.command("schema")
def scenario_schema() -> None:
    """Print the JSON Schema of scenarios."""
    from harness.scenario.load import scenario_schema

    print_json(scenario_schema())
