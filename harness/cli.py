# SPDX-License-Identifier: GPL-2.0-or-later
"""The command ``freepage``: parse, call, print.  No logic.

What a machine reads goes to stdout, what a person reads while waiting to stderr.
With ``--json`` stdout carries one JSON document and nothing else.

Exit status: 0 pass, 1 fail, 2 bad input, 3 an error that is no verdict,
4 inconclusive, 130 interrupted.

Heavy modules are imported by the command that needs them: ``freepage run`` is
measured from here.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from harness.errors import FreepageError, InputError

if TYPE_CHECKING:
    from harness.scenario import Override
    from harness.session.plan import Tools

INTERRUPTED = 130

app = typer.Typer(
    name="freepage",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Proves that live migration may leave a guest's free pages behind, and measures what that saves.",
)
scenarios = typer.Typer(
    no_args_is_help=True, help="The scenarios: what there is, what they say, whether they are right."
)
app.add_typer(scenarios, name="scenario")

# Options that several commands share.
Arm = Annotated[
    str | None, typer.Option(metavar="off|hint|info", help="Which of the three a migration uses.")
]
Accel = Annotated[str | None, typer.Option(metavar="auto|kvm|tcg", help="How the guest's CPU is run.")]
Memory = Annotated[str | None, typer.Option(metavar="SIZE", help="The guest's memory, such as 2GiB.")]
Seed = Annotated[int | None, typer.Option(metavar="N", help="What all random choices start from.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change any key of the scenario; repeatable."),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, and nothing else there.")]
Qemu = Annotated[
    Path | None, typer.Option(metavar="PATH", help="A QEMU binary for both sides, instead of the built one.")
]
SourceQemu = Annotated[Path | None, typer.Option(metavar="PATH", help="A QEMU binary for the source.")]
DestinationQemu = Annotated[
    Path | None, typer.Option(metavar="PATH", help="A QEMU binary for the destination.")
]
KernelPath = Annotated[Path | None, typer.Option("--kernel", metavar="PATH", help="Another guest kernel.")]
QemuSource = Annotated[
    Path | None,
    typer.Option(metavar="PATH", help="A QEMU source tree or tarball to build, instead of Debian's."),
]
Strict = Annotated[
    bool | None,
    typer.Option(
        "--strict/--no-strict",
        help="Hold the guest at each request, to prove that skipped pages did not change.",
    ),
]


def overrides(
    arm: str | None = None,
    accel: str | None = None,
    memory: str | None = None,
    seed: int | None = None,
    strict: bool | None = None,
    settings: list[str] | None = None,
) -> list[str | Override]:
    """The options as changes of the scenario; ``--set`` comes last and wins."""
    from harness.scenario import Override

    given = (
        ("arm", "--arm", arm),
        ("accelerator", "--accel", accel),
        ("guest.memory", "--memory", memory),
        ("seed", "--seed", seed),
    )
    # As the user wrote it, so that an error can quote it.
    changes: list[str | Override] = [
        Override.parse(f"{key}={value}", f"{option} {value}")
        for key, option, value in given
        if value is not None
    ]
    if strict is not None:
        changes.append(
            Override.parse(f"strict={str(strict).lower()}", "--strict" if strict else "--no-strict")
        )
    return [*changes, *(settings or ())]


def _tools(
    qemu: Path | None, source: Path | None, destination: Path | None, kernel: Path | None, tree: Path | None
) -> Tools:
    from harness.session.plan import Tools

    if qemu is not None and source is not None and destination is not None:
        raise InputError("--qemu has nothing left to name beside --source-qemu and --destination-qemu")
    return Tools(
        source_qemu=source or qemu, destination_qemu=destination or qemu, kernel=kernel, qemu_source=tree
    )


@app.command()
def run(
    scenario: Annotated[
        str, typer.Argument(metavar="SCENARIO", help="A name (see 'scenario list') or a file.")
    ],
    arm: Arm = None,
    accel: Accel = None,
    memory: Memory = None,
    seed: Seed = None,
    settings: Settings = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The run folder; must not exist yet.")
    ] = None,
    json: Json = False,
    qemu: Qemu = None,
    source_qemu: SourceQemu = None,
    destination_qemu: DestinationQemu = None,
    kernel: KernelPath = None,
    qemu_source: QemuSource = None,
    strict: Strict = None,
) -> None:
    """Migrate a guest between two hosts, and prove or disprove that its memory is right."""
    from harness.session.run import run_scenario

    changes = overrides(arm, accel, memory, seed, strict, settings)
    tools = _tools(qemu, source_qemu, destination_qemu, kernel, qemu_source)
    raise typer.Exit(run_scenario(scenario, changes, tools, out=out, as_json=json))


@app.command()
def shell(
    scenario: Annotated[
        str, typer.Argument(metavar="SCENARIO", help="A name (see 'scenario list') or a file.")
    ],
    arm: Arm = None,
    accel: Accel = None,
    memory: Memory = None,
    seed: Seed = None,
    settings: Settings = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The run folder; must not exist yet.")
    ] = None,
    qemu: Qemu = None,
    kernel: KernelPath = None,
    qemu_source: QemuSource = None,
) -> None:
    """Boot the scenario's guest on the source, with everything in place, and give a shell in it.

    On a terminal the shell is interactive; otherwise it reads commands from stdin.
    """
    from harness.session.run import open_shell

    changes = overrides(arm, accel, memory, seed, None, settings)
    raise typer.Exit(open_shell(scenario, changes, _tools(qemu, None, None, kernel, qemu_source), out=out))


@app.command()
def doctor(json: Json = False) -> None:
    """Say what this machine has, what it lacks for a run, and what to do about it."""
    from harness.doctor import examine, possible
    from harness.doctor.show import as_document, print_findings
    from harness.events import EventStream
    from harness.terminal import TerminalProgress

    events = EventStream()
    with TerminalProgress(events):
        findings = examine(events)
    if json:
        _print_json(as_document(findings))
    else:
        print_findings(findings)
    raise typer.Exit(0 if possible(findings) else 3)


@app.command()
def build(
    what: Annotated[
        list[str] | None,
        typer.Argument(metavar="[WHAT]...", help="qemu, kernel, module, image; default: all of them."),
    ] = None,
    kernel: KernelPath = None,
    qemu_source: QemuSource = None,
    update: Annotated[
        bool, typer.Option("--update", help="Look for newer packages in Debian's archive first.")
    ] = False,
) -> None:
    """Build what a run needs, or find it in the cache, and say where it is."""
    from harness.events import EventStream
    from harness.terminal import TerminalProgress
    from harness.toolchain import PARTS, Toolchain, build_all

    events = EventStream()
    with TerminalProgress(events):
        toolchain = Toolchain(events=events, qemu_source=qemu_source)
        if update:
            toolchain.update()
        parts = PARTS if not what or what == ["all"] else what
        built = build_all(toolchain, parts, kernel=kernel or "default")
    for part in built:
        typer.echo(f"{part.part:16} {part.detail:24} {part.path}")


@scenarios.command("list")
def scenario_list(json: Json = False) -> None:
    """List the scenarios that ship."""
    from dataclasses import asdict

    from harness.scenario import list_scenarios

    found = list_scenarios()
    if json:
        _print_json([asdict(entry) for entry in found])
        return
    width = max((len(entry.name) for entry in found), default=0)
    for entry in found:
        typer.echo(f"{entry.name:{width}}  {entry.summary}")


@scenarios.command("show")
def scenario_show(name: str, settings: Settings = None) -> None:
    """Print a scenario with every default filled in."""
    from harness.scenario import load_scenario

    typer.echo(load_scenario(name, settings or ()).to_yaml(), nl=False)


@scenarios.command("check")
def scenario_check(files: Annotated[list[str], typer.Argument(metavar="FILE...")]) -> None:
    """Say whether scenario files are right, and where they are not."""
    from harness.scenario import load_scenario

    wrong = 0
    for file in files:
        try:
            loaded = load_scenario(file)
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
    from harness.scenario import scenario_schema

    _print_json(scenario_schema())


def _print_json(value: object) -> None:
    import json

    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def main() -> NoReturn:
    """The entry point: every error of ours becomes its message and its exit status."""
    try:
        app()
    except FreepageError as error:
        typer.echo(f"freepage: {error.render()}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        typer.echo("freepage: interrupted", err=True)
        sys.exit(INTERRUPTED)
    raise AssertionError("typer always exits")


if __name__ == "__main__":
    main()
