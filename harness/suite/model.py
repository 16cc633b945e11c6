# SPDX-License-Identifier: GPL-2.0-or-later
"""What the file of a suite may say; docs/suite.md describes it for users."""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

from pydantic import BeforeValidator, Field

from harness.scenario.values import Section, Text, as_tuple

#: A scenario may take so long, in seconds, on a slow machine under emulation; one that takes longer hangs.
LONGEST_RUN: Final = 900.0
#: The same of one in a nested machine.
LONGEST_NESTED: Final = 3600.0

#: What can be chosen for a run by a short word, and the scenario's key that it stands for; the others are
#: options of the command.  All other dimensions are keys of the scenario.
SHORT_DIMENSIONS: Final = {
    "arm": "arm",
    "accelerator": "accelerator",
    "memory": "guest.memory",
    "machine": "guest.machine",
    "kernel": "guest.kernel",
    "source": "remote.source.uri",
    "destination": "remote.destination.uri",
}
TOOL_DIMENSIONS: Final = ("qemu", "source_qemu", "destination_qemu", "nested")

_Names: TypeAlias = Annotated[tuple[Text, ...], BeforeValidator(as_tuple)]
_Values: TypeAlias = Annotated[tuple[object, ...], BeforeValidator(as_tuple), Field(min_length=1)]


def _mappings(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


class SuiteEntry(Section):
    """Scenarios, each in every combination of what the matrix lists."""

    scenarios: Annotated[_Names, Field(min_length=1)]
    """Names of scenarios that ship, paths of files (from the suite's own folder on), or `all`: all that
    ship."""
    leave_out: _Names = ()
    """Of `all`: those that are not meant."""
    label: Annotated[Text, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")] | None = None
    """A word for the names of these runs, where another entry has the same scenarios."""
    matrix: dict[str, _Values] = Field(default={})
    """Values by dimension: `arm`, `qemu`, `source_qemu`, `destination_qemu`, `machine`, `kernel`, `memory`,
    `accelerator`, `nested`, `source`, `destination`, or any dotted key of a scenario."""
    exclude: Annotated[tuple[dict[str, object], ...], BeforeValidator(_mappings)] = ()
    """Combinations that are not to be run: values by dimension, and by `scenario`."""
    set: dict[str, object] = Field(default={})
    """Keys of the scenario that are the same for all of these runs."""
    repeat: Annotated[int, Field(ge=1, le=10000)] | None = None
    """How often each is run; null: as the suite says."""
    timeout: Annotated[int, Field(ge=1)] | None = None
    """Seconds after which a run is ended; null: as the suite says."""
    optional: bool = False
    """Whether a run that this machine cannot make is skipped. false: it is an error, before the first run."""


class Suite(Section):
    """A suite. ``name`` and ``runs`` must be given."""

    name: Annotated[Text, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]
    """Small letters, digits and dashes, at most 40; names the suite's folder."""
    summary: Text = ""
    """One line for lists."""
    repeat: Annotated[int, Field(ge=1, le=10000)] = 1
    """How often each run is made."""
    timeout: Annotated[int, Field(ge=1)] | None = None
    """Seconds after which a run is ended; null: 900, and 3600 in a nested machine."""
    warm: bool = True
    """Whether guests go on from a file where a scenario allows it, instead of being booted for each run. See
    docs/warm.md."""
    runs: Annotated[tuple[SuiteEntry, ...], BeforeValidator(_mappings), Field(min_length=1)]
    """What is run, in this order as far as there is room."""
