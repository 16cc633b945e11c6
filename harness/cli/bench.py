# SPDX-License-Identifier: GPL-2.0-or-later
"""``freepage bench``: the arms side by side; ``freepage bench compare``: two benches."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperGroup

from harness.cli.cluster import ClusterTls, Workers, worker_options
from harness.cli.options import (
    Accel,
    DestinationQemu,
    HistoryName,
    Json,
    KernelName,
    QemuOption,
    QemuSourceOption,
    Settings,
    SourceQemu,
    app,
    print_json,
    tools_of,
)
from harness.errors import InputError

if TYPE_CHECKING:
    from harness.bench.document import BenchDocument

_ARMS = ("off", "hint", "info")
_DEFAULT = ("idle", "freed", "fragmented")


class _Bench(TyperGroup):
    """A group whose first word may also be a scenario: then ``run`` is meant."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Put ``run`` in front of what is no command of the group."""
        if not args or (args[0] not in self.commands and args[0] != "--help"):
            args = ["run", *args]
        return super().parse_args(ctx, args)


bench = typer.Typer(
    cls=_Bench,
    help="Measure the arms side by side, and compare two such measurements.",
    epilog="freepage bench SCENARIO... is short for freepage bench run SCENARIO...",
)
app.add_typer(bench, name="bench")


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _arms(text: str) -> tuple[str, ...]:
    arms = tuple(dict.fromkeys(_words(text)))
    wrong = [arm for arm in arms if arm not in _ARMS]
    if wrong or not arms:
        raise InputError(f"--arms {text}: expected some of {', '.join(_ARMS)}, separated by commas")
    return arms


def _memories(text: str | None) -> tuple[int | None, ...]:
    from harness.units import parse_size

    if text is None:
        return (None,)
    try:
        return tuple(dict.fromkeys(parse_size(word) for word in _words(text))) or (None,)
    except ValueError as error:
        raise InputError(f"--memory {text}: {error}") from error


@bench.command("run")
def bench_run(
    scenarios: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SCENARIO]...", help="Names or files; default: idle freed fragmented."),
    ] = None,
    arms: Annotated[str, typer.Option(metavar="ARM,...", help="Which arms.")] = "off,hint,info",
    memory: Annotated[
        str | None, typer.Option(metavar="SIZE,...", help="The guest's memory; default: the scenario's.")
    ] = None,
    repeat: Annotated[int, typer.Option(metavar="N", min=1, help="Runs of each point.")] = 5,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Of the order, and of the workloads.")] = 1,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The bench's folder; one that was interrupted goes on."),
    ] = None,
    json: Json = False,
    window: Annotated[
        float,
        typer.Option(metavar="SECONDS", min=0.0, help="How long guests are watched before and after."),
    ] = 2.0,
    overhead: Annotated[
        int,
        typer.Option(metavar="N", min=0, help="Also N pairs of a whole run and a bare migration."),
    ] = 0,
    nested: Annotated[
        bool, typer.Option("--nested", help="In a machine around it that has KVM, emulated if need be.")
    ] = False,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict/--no-strict",
            help="Hold guests at each request, to prove that skipped pages did not change.",
        ),
    ] = False,
    accel: Accel = None,
    settings: Settings = None,
    qemu: QemuOption = None,
    source_qemu: SourceQemu = None,
    destination_qemu: DestinationQemu = None,
    kernel: KernelName = None,
    qemu_source: QemuSourceOption = None,
    history: HistoryName = None,
    workers: Workers = None,
    tls: ClusterTls = None,
) -> None:
    """Migrate in every arm, several times, interleaved; judge each run, and say what it saves and costs.

    A run that is not a pass is listed and enters no number.
    """
    from harness.bench.command import BenchOrder, exit_code, run_bench
    from harness.bench.runner import BenchRequest
    from harness.events import EventStream
    from harness.history.read_folders import bench_batch
    from harness.history.record import keep_batch
    from harness.history.store import open_for_writing
    from harness.terminal import TerminalProgress

    tools = tools_of(qemu, source_qemu, destination_qemu, kernel, qemu_source)
    options = tools.options()
    options += ["--accel", accel] if accel is not None else []
    options += [word for setting in settings or () for word in ("--set", setting)]
    if workers is not None and (overhead or nested):
        raise InputError("--workers goes together with neither --overhead nor --nested")
    options += worker_options(workers, tls)
    wanted = BenchOrder(
        scenarios=tuple(dict.fromkeys(scenarios or _DEFAULT)),
        arms=_arms(arms),
        memories=_memories(memory),
        repeat=repeat,
        seed=seed,
        request=BenchRequest(tuple(options), strict, window),
        overhead=overhead,
    )
    if nested:
        from harness.nested.bench import bench_nested

        raise typer.Exit(bench_nested(wanted, tools, out, as_json=json))
    events = EventStream()
    with open_for_writing(history) as store:
        with TerminalProgress(events):
            folder, document = run_bench(wanted, out, events)
        if store is not None:
            found = bench_batch(document, folder.path)
            keep_batch(store, found.batch, found.runs)
    if json:
        typer.echo(document.to_json(), nl=False)
    else:
        typer.echo((folder.path / "table.md").read_text(encoding="utf-8"), nl=False)
        typer.echo(f"report: {folder.path / 'report.html'}")
    raise typer.Exit(exit_code(document))


@bench.command("compare")
def bench_compare(
    before: Annotated[Path, typer.Argument(metavar="A.json")],
    after: Annotated[Path, typer.Argument(metavar="B.json")],
    alpha: Annotated[
        float, typer.Option(metavar="P", min=0.0, max=1.0, help="Chance must explain it at most this often.")
    ] = 0.01,
    threshold: Annotated[
        float, typer.Option(metavar="SHARE", min=0.0, help="Smaller changes of a median do not matter.")
    ] = 0.05,
    json: Json = False,
) -> None:
    """Say which measures moved beyond noise from A to B.

    Exit status 1: one that matters got worse, or fewer runs pass; 4: one may have, with too few runs to tell.
    """
    from harness.bench.compare import compare_benches
    from harness.bench.compared import comparison_document, comparison_lines

    comparison = compare_benches(_read(before), _read(after), alpha=alpha, threshold=threshold)
    if json:
        print_json(comparison_document(comparison))
    else:
        for line in comparison_lines(comparison):
            typer.echo(line)
    raise typer.Exit(comparison.exit_code)


def _read(path: Path) -> BenchDocument:
    from harness.bench.document import LARGEST, BenchDocument
    from harness.reading import read_text

    return BenchDocument.from_json(read_text(path, LARGEST, "a bench"), str(path))
