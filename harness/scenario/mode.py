# SPDX-License-Identifier: GPL-2.0-or-later
"""How a key of a scenario's section ``migration`` is switched on: one row for each, on the key itself.

::

    class Migration(Section):
        multifd: Annotated[int, Mode("multifd", flag="PARALLEL", parameter="PARALLEL_CONNECTIONS")] = 0
        #: Parallel channels; 0: one stream.

To add a capability or a parameter of QEMU's is to add such a field.  :mod:`harness.migration.modes` makes
of the rows what libvirt and QEMU are told; what a key does not go together with is refused from its row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Final

from pydantic import BaseModel
from pydantic_core import PydanticCustomError


@dataclass(frozen=True, slots=True)
class Exclusion:
    """A key of the scenario, with its section, that another one does not go together with."""

    key: str
    #: What the user is told; ``{name}`` is the other key.
    words: str = "does not go together with {name}"


#: libvirt knows nothing of memory that stays where it is and is passed by, with all that it would set up.
NO_SHARED: Final = Exclusion("guest.shared")


@dataclass(frozen=True, slots=True)
class Mode:
    """How a key is switched on.  It is off where its value is false, 0 or null.

    The row has to be in the outermost ``Annotated`` of its field: ``Annotated[int | None, Mode(...)]``.
    """

    #: QEMU's capability, by its name in ``query-migrate-capabilities``.
    capability: str | None = None
    #: libvirt's flag, without ``VIR_MIGRATE_``.  A capability without one is libvirt's to refuse, or
    #: unknown to it: then libvirt is passed by, and QEMU is told itself.
    flag: str | None = None
    #: libvirt's typed parameter, without ``VIR_MIGRATE_PARAM_``; it gets ``value``, or the key's.
    parameter: str | None = None
    value: str | None = None
    #: QEMU's parameter, for ``migrate-set-parameters`` on the source; libvirt leaves alone what it does
    #: not know.  It gets the key's value.
    qemu_parameter: str | None = None
    excludes: tuple[Exclusion, ...] = ()


@dataclass(frozen=True, slots=True)
class ModeSetting:
    """A mode that is switched on, and the value that its key has."""

    mode: Mode
    value: object = True


def modes_of(section: type[BaseModel]) -> dict[str, Mode]:
    """The rows of a section, by key."""
    return {
        key: row
        for key, field in section.model_fields.items()
        for row in field.metadata
        if isinstance(row, Mode)
    }


def settings_of(section: BaseModel) -> Iterator[tuple[str, ModeSetting]]:
    """What a section switches on, by key."""
    for key, mode in modes_of(type(section)).items():
        value = getattr(section, key)
        if value:
            yield key, ModeSetting(mode, value)


def refuse_excluded(scenario: BaseModel, section: str) -> None:
    """Raise pydantic's error, at its place, for the first key that a key of ``section`` excludes."""
    for key, setting in settings_of(getattr(scenario, section)):
        for exclusion in setting.mode.excludes:
            path = tuple(exclusion.key.split("."))
            if reduce(getattr, path, scenario):
                raise PydanticCustomError("at", exclusion.words, {"path": path, "name": f"{section}.{key}"})
