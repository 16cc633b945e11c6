# SPDX-License-Identifier: GPL-2.0-or-later
"""One word for one thing: a public name stands at the top of one module only.

What is in the list stands in several, each with the reason.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

HARNESS = Path(str(resources.files("harness")))

SEVERAL = {
    "Accelerator": "the same two words, in the domain and in the scenario",
    "Arm": "the same three words, in the balloon's device and in the scenario",
    "Comparison": "of memory, and of devices' states: each in a package that does not know the other",
    "Ending": "of a migration in a test's hands, and of the one that is judged",
    "Frames": "the same array of frame numbers",
    "GIB": "the same number",
    "Guest": "a run's, and the scenario's section about it, by whose name its schema is written",
    "INTERRUPTED": "the same exit status; the command must not load a run to know it",
    "MIB": "the same number",
    "PAGE": "the same number; the deputy is sent to other machines and imports nothing of ours",
    "PORT": "of the guest's partner, and of the nested machine's agent",
    "Place": "in a device's state, and in a scenario's text",
    "Range": "an interval of a bench's document, by whose name its schema is written; of guest addresses",
    "Sample": "of a bench, and of a migration's progress",
    "Section": "of a migration stream, and of a scenario",
    "Words": "the same array of 64 bit words",
    "account_of": "of how a QEMU ended, and of what had to be sent",
    "fetch": "the two ends of one operation: the deputy's, which is sent alone, and ours",
    "main": "where a program begins",
    "memory_available": "the deputy is sent to other machines and imports nothing of ours",
    "read_result": "of a run in a bench, and of one that is explained",
    "review": "what each workload's report is held against",
    "save": "of devices' states, and of capabilities",
    "scenario_schema": "the command is named as what it prints",
}


def names(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            stored = (part for target in node.targets for part in ast.walk(target))
            yield from (part.id for part in stored if isinstance(part, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id


def doubled(folder: Path) -> dict[str, list[str]]:
    """Public names of several modules below a folder, and of which."""
    where: dict[str, set[str]] = defaultdict(set)
    for file in folder.rglob("*.py"):
        for name in names(ast.parse(file.read_text("utf-8"))):
            if not name.startswith("_"):
                where[name].add(file.relative_to(folder).as_posix())
    return {name: sorted(files) for name, files in sorted(where.items()) if len(files) > 1}


def test_a_public_name_is_of_one_module() -> None:
    assert {name: files for name, files in doubled(HARNESS).items() if name not in SEVERAL} == {}


def test_the_list_holds_nothing_that_is_over() -> None:
    assert set(SEVERAL) <= set(doubled(HARNESS))


def test_a_name_of_two_modules_is_found(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("class Both: ...\n_T = 1\nA, B = 1, 2\n")
    (tmp_path / "two.py").write_text("def Both(): ...\n_T = 1\nB: int = 2\n")
    assert doubled(tmp_path) == {"B": ["one.py", "two.py"], "Both": ["one.py", "two.py"]}
