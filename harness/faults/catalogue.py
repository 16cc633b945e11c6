# SPDX-License-Identifier: GPL-2.0-or-later
"""The catalogue of deliberate faults: pure data, read from ``catalogue.yaml`` and checked.

    fault = catalogue().find("sent-skipped")
    fault.scenario, fault.verdict, fault.rules

What a fault does is in the builds that have it (``qemu-patches/faults``, and the
guest module's misbehaviours); here is what is wrong, which historic bug it
stands for, and who has to notice.
"""

from __future__ import annotations

import difflib
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from harness.errors import InputError, MachineryError

Where: TypeAlias = Literal["qemu", "module"]
#: What a run with the fault has to end with.  ``lost``: the fault kills a QEMU, or the guest.
_FaultEnd: TypeAlias = Literal["fail", "inconclusive", "lost"]
#: Whose code is wrong, or what becomes wrong by it.
_FaultKind: TypeAlias = Literal[
    "dirty-log",
    "bitmap",
    "zero-page",
    "load",
    "dma",
    "protocol",
    "translation",
    "lifecycle",
    "walk",
    "device",
    "vcpu",
    "interrupt",
    "clock",
    "disk",
    "outcome",
    "file",
    "harmless",
]
_Words: TypeAlias = Annotated[str, Field(min_length=1)]

#: Where the campaign's own scenarios are; the others ship with the testbed.
SCENARIOS = Path(str(resources.files("harness") / "faults" / "scenarios"))


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Fault(_Frozen):
    """One deliberate fault."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]
    what: _Words
    """What is wrong, in one line."""
    stands_for: str = ""
    """The historic bug: a commit, a version of a series."""
    where: Where
    kind: _FaultKind
    ours: bool = True
    """In the code of this project; otherwise in upstream's."""
    accelerator: Literal["any", "tcg", "kvm"] = "any"
    """Under which it shows."""
    scenario: _Words
    """The scenario that must catch it: one of the campaign's own, or one that ships."""
    verdict: _FaultEnd = "fail"
    rules: tuple[_Words, ...] = ()
    """The rules one of which has to be among the findings."""
    says: str = ""
    """``lost``: words that the error has to have in it."""
    sample: bool = False
    """In the sample that ci/test runs."""
    known_missed: str = ""
    """Why nothing notices it today; empty if something must."""

    @model_validator(mode="after")
    def _complete(self) -> Fault:
        if self.verdict == "fail" and not self.rules:
            raise ValueError("a fault that has to fail names the rules by which")
        if (self.verdict == "lost") != bool(self.says):
            raise ValueError("'says' and the verdict 'lost' belong together")
        return self

    @property
    def scenario_file(self) -> str:
        """What to give to ``freepage run``."""
        own = SCENARIOS / f"{self.scenario}.yaml"
        return str(own) if own.exists() else self.scenario


class Catalogue(_Frozen):
    """All faults, in the order of the file."""

    faults: tuple[Fault, ...]

    @model_validator(mode="after")
    def _unique(self) -> Catalogue:
        ids = [fault.id for fault in self.faults]
        double = {name for name in ids if ids.count(name) > 1}
        if double:
            raise ValueError(f"listed twice: {', '.join(sorted(double))}")
        return self

    def find(self, name: str) -> Fault:
        """The fault with that id; raises :class:`InputError` if there is none."""
        for fault in self.faults:
            if fault.id == name:
                return fault
        close = difflib.get_close_matches(name, [fault.id for fault in self.faults], n=1)
        advice = f"did you mean {close[0]!r}? " if close else ""
        raise InputError(f"there is no fault {name!r}", hint=f"{advice}'freepage faults list' has them all")

    @property
    def scenarios(self) -> tuple[str, ...]:
        """Every scenario that some fault needs, in order."""
        return tuple(dict.fromkeys(fault.scenario for fault in self.faults))


@cache
def catalogue() -> Catalogue:
    """The catalogue that ships with the testbed."""
    text = (resources.files("harness") / "faults" / "catalogue.yaml").read_text("utf-8")
    try:
        return Catalogue(faults=yaml.safe_load(text))
    except (ValidationError, yaml.YAMLError) as error:
        raise MachineryError(f"harness/faults/catalogue.yaml: {error}") from error
