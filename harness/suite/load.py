# SPDX-License-Identifier: GPL-2.0-or-later
"""The suites that ship, and files of the user's own."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from pydantic import ValidationError

from harness.errors import InputError
from harness.reading import read_text
from harness.scenario import located
from harness.scenario.located import LocatedError, LocatedTree
from harness.suite.model import Suite


@dataclass(frozen=True, slots=True)
class LoadedSuite:
    """A suite, where each of its keys was written, and the folder from which its files are named."""

    suite: Suite
    tree: LocatedTree
    folder: Path
    text: str


def _shipped_suites() -> dict[str, str]:
    folder = resources.files("harness") / "suites"
    files = (entry for entry in folder.iterdir() if entry.name.endswith(".yaml"))
    return {entry.name.removesuffix(".yaml"): entry.read_text("utf-8") for entry in files}


def list_suites() -> list[LoadedSuite]:
    """The suites that ship, by name."""
    return [load_suite(name) for name in sorted(_shipped_suites())]


def load_suite(name_or_path: str) -> LoadedSuite:
    """Read and validate.  Raises :class:`InputError` with all that is wrong in the file, and where."""
    shipped = _shipped_suites()
    if name_or_path in shipped:
        return _parse(shipped[name_or_path], f"{name_or_path}.yaml", Path.cwd())
    path = Path(name_or_path)
    if "/" not in name_or_path and not name_or_path.endswith((".yaml", ".yml")) and not path.exists():
        from harness.scenario.problems import did_you_mean

        raise InputError(
            f"no such suite: {name_or_path!r}",
            hint=f"{did_you_mean(name_or_path, shipped)}there are {', '.join(sorted(shipped))}; "
            "a file of your own is given by its path",
        )
    return _parse(read_text(path, located.LARGEST_FILE, "a suite"), name_or_path, path.absolute().parent)


def _parse(text: str, source: str, folder: Path) -> LoadedSuite:
    try:
        tree = located.parse_yaml(text, source)
    except LocatedError as error:
        raise InputError(str(error)) from error
    try:
        return LoadedSuite(Suite.model_validate(tree.data), tree, folder, text)
    except ValidationError as error:
        # Only here: it brings all of a scenario's model, which takes longer than to read a suite.
        from harness.scenario.problems import problem_of

        problems = [problem_of(detail, tree, Suite) for detail in error.errors(include_url=False)]
        problems.sort(key=lambda problem: (problem.place.line or 0, problem.place.column or 0))
        raise InputError("\n".join(str(problem) for problem in problems)) from error


def suite_schema() -> dict[str, object]:
    """The JSON Schema of a suite's file."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Suite.model_json_schema()}
