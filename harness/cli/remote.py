# SPDX-License-Identifier: GPL-2.0-or-later
"""Options for machines of the user's own, and what they make of a scenario."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from harness.scenario.load import Override

SourceOption = Annotated[
    str | None,
    typer.Option(metavar="URI", help="The source is a machine of yours: qemu+ssh://USER@HOST[:PORT]/system."),
]
Destination = Annotated[str | None, typer.Option(metavar="URI", help="The same for the destination.")]
SshConfig = Annotated[
    Path | None, typer.Option("--ssh-config", metavar="PATH", help="Another configuration for ssh (ssh -F).")
]


def named_machines(source: str | None, destination: str | None) -> dict[str, str]:
    """The URIs that are given, by side.  Raises :class:`InputError` for what is none."""
    from harness.errors import InputError
    from harness.scenario.remote_uri import RemoteUri

    given = {"source": source, "destination": destination}
    for name, uri in given.items():
        try:
            if uri is not None:
                RemoteUri.parse(uri)
        except ValueError as error:
            raise InputError(f"--{name} {uri}: {error}") from None
    return {name: uri for name, uri in given.items() if uri is not None}


def remote_overrides(
    source: str | None, destination: str | None, ssh_config: Path | None
) -> list[str | Override]:
    """Two machines in place of the lab, as changes of the scenario."""
    from harness.scenario.load import Override

    config = None if ssh_config is None else str(ssh_config.absolute())
    given = (
        ("remote.source.uri", "--source", source),
        ("remote.destination.uri", "--destination", destination),
        ("remote.ssh_config", "--ssh-config", config),
    )
    return [
        Override.parse(f"{key}={value}", f"{option} {value}")
        for key, option, value in given
        if value is not None
    ]
