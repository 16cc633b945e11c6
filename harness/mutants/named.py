# SPDX-License-Identifier: GPL-2.0-or-later
"""The functions that are mutated, and mutants that are known to change nothing: two files, read."""

from __future__ import annotations

from importlib import resources
from typing import Annotated, Any, Final, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from harness.errors import MachineryError
from harness.mutants.draw import Mutant

_Text = Annotated[str, Field(min_length=1)]
_Read = TypeVar("_Read")
_NAMED: Final = TypeAdapter(dict[str, tuple[_Text, ...]])


class EquivalentMutant(BaseModel):
    """A mutant that nothing can tell from QEMU as it is, and why."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: _Text
    function: _Text
    before: _Text
    after: _Text
    why: Annotated[str, Field(min_length=20)]

    def means(self, mutant: Mutant) -> bool:
        """Whether it is this one.  Lines are compared, not their numbers."""
        mine = (self.file, self.function, self.before, self.after)
        return mine == (mutant.file, mutant.function, mutant.before, mutant.after)


_EQUIVALENT: Final = TypeAdapter(tuple[EquivalentMutant, ...])


def named_functions() -> dict[str, tuple[str, ...]]:
    """Names and patterns of functions, by the file that they are in."""
    return _read("named.yaml", _NAMED)


def equivalent_mutants() -> tuple[EquivalentMutant, ...]:
    """All that are known."""
    return _read("equivalent.yaml", _EQUIVALENT)


def _read(name: str, form: TypeAdapter[_Read]) -> _Read:
    text = (resources.files("harness") / "mutants" / name).read_text("utf-8")
    try:
        data: Any = yaml.safe_load(text)
        return form.validate_python(tuple(data) if isinstance(data, list) else data)
    except (ValidationError, yaml.YAMLError) as error:
        raise MachineryError(f"harness/mutants/{name}: {error}") from error
