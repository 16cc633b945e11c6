# SPDX-License-Identifier: GPL-2.0-or-later
"""``freepage doctor`` and ``freepage build``: what this machine can do, and what is built on it."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli.options import (
    Json,
    KernelConfig,
    KernelName,
    QemuSourceOption,
    app,
    configuration_named,
    kernel_named,
    print_json,
)
from harness.cli.remote import Destination, SourceOption, SshConfig, named_machines
from harness.errors import InputError


@app.command()
def doctor(
    json: Json = False,
    probe: Annotated[
        bool,
        typer.Option(
            "--probe",
            help="Boot a guest in each way that there is here, once, to see how fast: a minute or more.",
        ),
    ] = False,
    source: SourceOption = None,
    destination: Destination = None,
    ssh_config: SshConfig = None,
    packages: Annotated[
        bool,
        typer.Option(
            "--packages", help="Only print the packages that are needed, as this distribution calls them."
        ),
    ] = False,
) -> None:
    """Say what this machine has, what it lacks for a run, and what to do about it."""
    if packages:
        from harness.toolchain.system_packages import names_for, system_packages, this_manager

        names = names_for((package.name for package in system_packages()), this_manager())
        typer.echo("\n".join(names))
        return
    from harness.doctor import examine, possible
    from harness.doctor.show import diagnosis_document, print_findings
    from harness.events import EventStream
    from harness.terminal import TerminalProgress

    uris = named_machines(source, destination)
    events = EventStream()
    with TerminalProgress(events):
        findings = examine(events, measure=probe, uris=uris, ssh_config=ssh_config)
    if json:
        print_json(diagnosis_document(findings))
    else:
        print_findings(findings)
    raise typer.Exit(0 if possible(findings) else 3)


@app.command("probe", hidden=True)
def probe_here() -> None:
    """Start a guest kernel under KVM, and print as JSON what came of it: the doctor asks that inside."""
    from dataclasses import asdict

    from harness import accel
    from harness.errors import MachineryError
    from harness.events import EventStream, patience
    from harness.toolchain.built import built_machine
    from harness.toolchain.cache import Cache

    machine = built_machine(Cache(None, EventStream()))
    if machine is None:
        raise MachineryError("there is nothing to try KVM with", hint="freepage build")
    print_json(asdict(accel.boots(machine, patience(accel.PROBE_SECONDS))))


@app.command()
def build(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[WHAT]...", help="qemu, kernel, module, image (default: all of them); faults."
        ),
    ] = None,
    kernel: KernelName = None,
    kernel_config: KernelConfig = None,
    flavour: Annotated[
        str | None, typer.Option(metavar="default|debug", help="The kernel's: debug is --kernel debug.")
    ] = None,
    qemu_source: QemuSourceOption = None,
    update: Annotated[
        bool, typer.Option("--update", help="Look for newer packages in Debian's archive first.")
    ] = False,
) -> None:
    """Build what a run needs, or find it in the cache, and say where it is.

    --kernel all: for all that have a name, and the earliest and latest of each series in Debian's suites.
    """
    from harness.events import EventStream
    from harness.terminal import TerminalProgress
    from harness.toolchain import PARTS, Toolchain, build_all

    chosen = _kernel_to_build(kernel, flavour)
    events = EventStream()
    with TerminalProgress(events):
        toolchain = Toolchain(events=events, qemu_source=qemu_source)
        if update:
            toolchain.update()
        parts = PARTS if not what or what == ["all"] else what
        configuration = configuration_named(kernel_config or "defconfig")
        built = build_all(toolchain, parts, kernel=chosen, configuration=configuration)
    for part in built:
        why = "" if part.failure is None else part.failure.message.splitlines()[0]
        typer.echo(f"{part.part:16} {part.detail:42} {part.path or f'FAILED: {why}'}")
    failed = [part.failure for part in built if part.failure is not None]
    if failed:
        typer.echo(f"{len(built) - len(failed)} built, {len(failed)} failed; the first of them:", err=True)
        raise failed[0]


def _kernel_to_build(kernel: str | None, flavour: str | None) -> str:
    if flavour not in (None, "default", "debug"):
        raise InputError(f"--flavour {flavour}: expected default or debug")
    if kernel is not None and flavour is not None:
        raise InputError("--flavour and --kernel both name a kernel", hint="one of them is enough")
    if kernel == "all":
        return kernel
    return kernel_named(kernel) if kernel is not None else flavour or "default"
