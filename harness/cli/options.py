# SPDX-License-Identifier: GPL-2.0-or-later
"""Options that several commands share, what they make of a scenario, and the application itself."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from harness.cli.complete import fault_names
from harness.errors import InputError, Interrupted

if TYPE_CHECKING:
    from harness.plan.plan import Tools
    from harness.scenario.load import Override


class _Commands(TyperGroup):
    """Typer ends with 1 when the reader of its output is gone, or stdin ends, which would be a verdict."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        _give_common_options(self)

    def make_context(self, *args: Any, **more: Any) -> Any:
        """Where the words are parsed, and help is printed."""
        with _no_verdict():
            return super().make_context(*args, **more)

    def invoke(self, ctx: typer.Context) -> object:  # type: ignore[override]
        """Where the command is carried out."""
        with _no_verdict():
            return super().invoke(ctx)


@contextlib.contextmanager
def _no_verdict() -> Iterator[None]:
    """What Typer would end with 1 is an error of the machine's."""
    try:
        yield
    except (OSError, EOFError) as error:
        from harness.last_resort import in_words

        raise in_words(error) from error
    except KeyboardInterrupt as error:
        # Typer would say nothing.
        raise Interrupted from error


def _chatty(value: bool) -> None:
    from harness.terminal import Verbosity, set_verbosity

    if value:
        set_verbosity(Verbosity.VERBOSE)


def _silent(value: bool) -> None:
    from harness.terminal import Verbosity, set_verbosity

    if value:
        set_verbosity(Verbosity.QUIET)


def _guest_architecture(name: str | None) -> str | None:
    """Refuse what is not known; the command has started anew with guests of that architecture (cli.main)."""
    from harness import arch

    if name is not None:
        arch.named(name)
    arch.demand_guest()
    return name


def _behind_any_command(
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose",
            "-v",
            callback=_chatty,
            expose_value=False,
            help="Say all that happens, and show the traceback of a fault.",
        ),
    ] = False,
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet",
            "-q",
            callback=_silent,
            expose_value=False,
            help="Say nothing but the result, warnings and errors.",
        ),
    ] = False,
    arch: Annotated[
        str | None,
        typer.Option(
            "--arch",
            metavar="NAME",
            callback=_guest_architecture,
            is_eager=True,
            expose_value=False,
            help="Guests of that architecture, emulated where it is not this machine's: aarch64, x86_64.",
        ),
    ] = None,
) -> None:
    """Options that stand behind any command, as people write them."""


def _give_common_options(command: Any) -> None:
    members = getattr(command, "commands", None)
    if members is None:
        command.params += _common_options()
    for option in command.params:
        # FREEPAGE_RUN_MEMORY and its like are for all, and said once: in the manual.
        option.show_envvar = False
        option.allow_from_autoenv = not option.is_eager
    if members is None:
        return
    for member in members.values():
        _give_common_options(member)


@functools.cache
def _common_options() -> list[Any]:
    # Typer makes options of a function's arguments only: so these have a command of their own.
    alone = typer.Typer(add_completion=False)
    alone.command()(_behind_any_command)
    return [option for option in get_command(alone).params if option.name in ("verbose", "quiet", "arch")]


app = typer.Typer(
    name="freepage",
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # Plain text: it fits any width, and a flag has no "<bool>" beside it.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _say_version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        typer.echo(f"freepage {version('freepage-testbed')}")
        raise typer.Exit


@app.callback()
def front(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_say_version, is_eager=True, help="Say the version, and end."),
    ] = False,
) -> None:
    """Proves that live migration may leave a guest's free pages behind, and measures what that saves."""


ArmOption = Annotated[
    str | None, typer.Option(metavar="off|hint|info", help="Which of the three a migration uses.")
]
Accel = Annotated[str | None, typer.Option(metavar="auto|kvm|tcg", help="How the guest's CPU is run.")]
MemoryOption = Annotated[str | None, typer.Option(metavar="SIZE", help="The guest's memory, such as 2GiB.")]
Seed = Annotated[int | None, typer.Option(metavar="N", help="What all random choices start from.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change any key of the scenario; repeatable."),
]
HistoryName = Annotated[
    str | None,
    typer.Option(
        "--history",
        metavar="PATH|URL",
        help="A SQLite file, or postgresql://...; default: FREEPAGE_HISTORY, else your own; off: none.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, and nothing else there.")]
QemuOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|PATH",
        help="A QEMU for both sides, instead of the patched one: stock, debian:SUITE, a program.",
    ),
]
SourceQemu = Annotated[
    str | None, typer.Option(metavar="NAME|PATH", help="A QEMU for the source, named as for --qemu.")
]
DestinationQemu = Annotated[
    str | None, typer.Option(metavar="NAME|PATH", help="A QEMU for the destination, named as for --qemu.")
]

KernelName = Annotated[
    str | None,
    typer.Option(
        "--kernel",
        metavar="NAME|PATH",
        help="Another guest kernel: trixie, newest, generic, rt, 16k, debug, path.",
    ),
]
KernelConfig = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|PATH",
        help="What --kernel TREE is built with: defconfig, tinyconfig, a .config file.",
    ),
]
QemuSourceOption = Annotated[
    Path | None,
    typer.Option(metavar="PATH", help="A QEMU source tree or tarball to build, instead of Debian's."),
]
FaultOption = Annotated[
    str | None,
    typer.Option(
        "--fault",
        autocompletion=fault_names,
        metavar="ID",
        help="Be wrong on purpose, to see it caught; see 'freepage faults list'.",
    ),
]
Trace = Annotated[
    str | None,
    typer.Option(metavar="pages", help="Keep which page was sent in which round, for 'freepage explain'."),
]
Warm = Annotated[
    bool,
    typer.Option(
        "--warm/--cold",
        help="Go on from a guest that was booted before, where the scenario allows it; or boot each.",
    ),
]
WarmUnlessTold = Annotated[
    bool | None,
    typer.Option(
        "--warm/--cold",
        help="Go on from guests that were booted before, where a scenario allows it; or boot each.",
    ),
]
Strict = Annotated[
    bool | None,
    typer.Option(
        "--strict/--no-strict",
        help="Hold the guest at each request, to prove that skipped pages did not change.",
    ),
]

Nested = Annotated[
    bool,
    typer.Option(
        "--nested", help="In a machine that has KVM, emulated where this host has none: see docs/nested.md."
    ),
]


def overrides(
    arm: str | None = None,
    accel: str | None = None,
    memory: str | None = None,
    seed: int | None = None,
    strict: bool | None = None,
    settings: list[str] | None = None,
    trace: str | None = None,
    kernel_config: str | None = None,
) -> list[str | Override]:
    """The options as changes of the scenario; ``--set`` comes last and wins."""
    from harness.scenario.load import Override

    given = (
        ("arm", "--arm", arm),
        ("accelerator", "--accel", accel),
        ("guest.memory", "--memory", memory),
        ("seed", "--seed", seed),
        ("trace", "--trace", trace),
        ("guest.kernel_config", "--kernel-config", kernel_config and configuration_named(kernel_config)),
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


def tools_of(
    qemu: str | None,
    source: str | None,
    destination: str | None,
    kernel: str | None,
    tree: Path | None,
    fault: str | None = None,
) -> Tools:
    """What the user names instead of what would be built.

    Raises :class:`InputError` if one option leaves another nothing to name.
    """
    from harness.plan.plan import Tools
    from harness.toolchain.qemu_names import canonical

    if qemu is not None and source is not None and destination is not None:
        raise InputError("--qemu has nothing left to name beside --source-qemu and --destination-qemu")
    named = [canonical(name) if name is not None else None for name in (source or qemu, destination or qemu)]
    return Tools(
        source_qemu=named[0],
        destination_qemu=named[1],
        kernel=kernel_named(kernel) if kernel is not None else None,
        qemu_source=tree,
        fault=fault,
    )


def kernel_named(text: str) -> str:
    """What ``--kernel`` means: a name that the toolchain knows, or an absolute path."""
    from harness.scenario.values import KERNELS

    if text in KERNELS:
        return text
    if "/" not in text and not Path(text).exists():
        raise InputError(
            f"no such kernel: {text!r}", hint=f"there are {', '.join(KERNELS)}; or name a file or build tree"
        )
    return str(Path(text).absolute())


def configuration_named(text: str) -> str:
    """What ``--kernel-config`` means: a name that kernel sources know, or an absolute path."""
    from harness.scenario.values import KERNEL_CONFIGURATIONS

    if text in KERNEL_CONFIGURATIONS:
        return text
    if not Path(text).is_file():
        raise InputError(
            f"no such kernel configuration: {text!r}",
            hint=f"there are {', '.join(KERNEL_CONFIGURATIONS)}; or name a .config file",
        )
    return str(Path(text).absolute())


def print_json(value: object) -> None:
    """One document on stdout."""
    import json

    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
