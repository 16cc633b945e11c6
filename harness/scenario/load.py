# SPDX-License-Identifier: GPL-2.0-or-later
"""The scenario language: what to migrate, how, and what must come out.

    scenario = load_scenario("freed", ["guest.memory=2GiB", "arm=off"])
    resolved = resolve(scenario, MachineFacts(memory_available=16 * 2**30))
    resolved.load_words()       # what the guest is told
    resolved.scenario.to_yaml() # replays this very run, seed included

A scenario is one YAML file; the key by key description is docs/scenario.md, its
JSON Schema :func:`scenario_schema`.  Everything is frozen, unknown keys are
errors, and every error says where, which key, and what was expected.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ValidationError
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import SchemaSerializer, core_schema

from harness.errors import InputError
from harness.reading import read_text
from harness.scenario import located
from harness.scenario.expectations import Expect, VerdictWord
from harness.scenario.guest import Guest
from harness.scenario.located import LocatedError, Override
from harness.scenario.migration import Migration
from harness.scenario.model import Accelerator, Arm, Measure, Scenario, noise_bytes
from harness.scenario.problems import did_you_mean, problem_of
from harness.scenario.shipped import shipped_names, shipped_texts
from harness.scenario.workloads.at_rest import Fragmented, Freed, Idle
from harness.scenario.workloads.base import Workload
from harness.scenario.workloads.churn import Churn
from harness.scenario.written import Written

__all__ = [
    "Accelerator",
    "Arm",
    "Churn",
    "Expect",
    "Fragmented",
    "Freed",
    "Guest",
    "Idle",
    "Measure",
    "Migration",
    "Override",
    "Scenario",
    "ScenarioInfo",
    "VerdictWord",
    "Workload",
    "list_scenarios",
    "load_scenario",
    "noise_bytes",
    "scenario_schema",
    "scenario_text",
    "shipped_names",
]


@dataclass(frozen=True, slots=True)
class ScenarioInfo:
    """A line of ``freepage scenario list``."""

    name: str
    summary: str
    arm: Arm
    workload: str
    memory: int


def list_scenarios() -> list[ScenarioInfo]:
    """The scenarios that ship with the testbed, by name."""
    scenarios = [load_scenario(name) for name in shipped_names()]
    return [ScenarioInfo(s.name, s.summary, s.arm, s.workload.kind, s.guest.memory) for s in scenarios]


def scenario_text(name_or_path: str) -> tuple[str, str]:
    """The file's text, comments and all, and what to call it in messages."""
    shipped = shipped_texts()
    if name_or_path in shipped:
        return shipped[name_or_path], f"{name_or_path}.yaml"
    if not name_or_path.strip():
        raise InputError("no scenario is named: its name is empty", hint="freepage scenario list names all")
    path = Path(name_or_path)
    if "/" not in name_or_path and not name_or_path.endswith((".yaml", ".yml")) and not _there(path):
        raise InputError(
            f"no such scenario: {name_or_path!r}",
            hint=f"{did_you_mean(name_or_path, shipped)}there are {', '.join(sorted(shipped))}; "
            "a file of your own is given by its path",
        )
    return read_text(path, located.LARGEST_FILE, "a scenario"), name_or_path


def _there(path: Path) -> bool:
    """Whether there is a file of that name; what no file can be called is not there."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def load_scenario(name_or_path: str, overrides: Sequence[str | Override] = ()) -> Scenario:
    """Read, override and validate.  All that is wrong is reported at once, in one :class:`InputError`.

    An override is ``"guest.memory=2GiB"``, or an :class:`Override` where the
    user wrote something else, so that the error can quote it:
    ``Override.parse("guest.memory=2GB", shown="--memory 2GB")``.
    """
    text, source = scenario_text(name_or_path)
    try:
        tree = located.parse_yaml(text, source)
        parsed = [o if isinstance(o, Override) else Override.parse(o) for o in overrides]
        tree = tree.with_overrides(parsed)
    except LocatedError as error:
        raise InputError(str(error)) from error
    try:
        return Scenario.model_validate(tree.data).written_in(Written(tree))
    except ValidationError as error:
        problems = [problem_of(detail, tree) for detail in error.errors(include_url=False)]
        problems.sort(key=lambda problem: (problem.place.line or 0, problem.place.column or 0))
        raise InputError("\n".join(str(problem) for problem in problems)) from error


class _AsWritten(GenerateJsonSchema):
    """Shows a default as a file has it ("1GiB"), not as pydantic holds it (bytes)."""

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        shown = super().default_schema(schema)
        default = schema.get("default")
        # What is empty, or a model, is shown alike; and a schema that is used in several places cannot
        # be taken out of its definitions.
        if "default" in shown and default and not isinstance(default, BaseModel):
            shown["default"] = SchemaSerializer(schema["schema"]).to_python(default, mode="json")
        return shown


def scenario_schema() -> dict[str, object]:
    """The JSON Schema of a scenario file; editors complete and check with it."""
    schema = Scenario.model_json_schema(schema_generator=_AsWritten)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
