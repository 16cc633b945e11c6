# SPDX-License-Identifier: GPL-2.0-or-later
"""The documentation: what it points at is there, and what it tells people to type is understood.

Links, anchors, paths of files, names of modules and tests, and every ``freepage ...`` command.  No command
is run: its options are parsed by the command's own parser.
"""

from __future__ import annotations

import importlib
import itertools
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import typer

from harness import cli

ROOT: Final = Path(__file__).parents[2]
DOCS: Final = tuple(sorted([*ROOT.glob("*.md"), *ROOT.glob("*/*.md"), *ROOT.glob("docs/**/*.md")]))
DOCUMENTS: Final = tuple(dict.fromkeys(path for path in DOCS if ".venv" not in path.parts))

_LINK: Final = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING: Final = re.compile(r"^#{1,6} +(.*?) *#*$")
_CODE: Final = re.compile(r"`([^`]+)`")
#: Files and folders of the checkout, as text names them.
_PATH: Final = re.compile(
    r"(?<![\w./-])(?:harness|tests|docs|ci|guest-module|qemu-patches|vm-images)/[\w./*-]*[\w*/]"
)
_MODULE: Final = re.compile(r"harness(?:\.[a-z_0-9]+)+")
_TEST: Final = re.compile(r"(test_\w+\.py)::(test_\w+)")

#: QEMU's own tests, which a QEMU's tree has and this one has not.
_OF_QEMU: Final = ("tests/qtest/", "tests/migration-stress")
#: Stands for one of several words: ``list|run``.
_CHOICE: Final = re.compile(r"^[\w.-]+(?:\|[\w.-]+)+$")
#: What stands in the documentation where a user writes a value of a type.
_VALUES: Final = {"N": "1", "SECONDS": "1"}


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def fenced(lines: list[str]) -> Iterator[tuple[int, str, bool]]:
    """Each line with its number, and whether it is in a block of code."""
    fence = False
    for number, line in enumerate(lines, 1):
        if line.startswith("```"):
            fence = not fence
            continue
        yield number, line, fence or line.startswith("    ")


def anchors(path: Path) -> set[str]:
    """The anchors that a code host makes of a document's headings."""
    found: set[str] = set()
    for _, line, code in fenced(path.read_text(encoding="utf-8").splitlines()):
        heading = None if code else _HEADING.match(line)
        if heading is None:
            continue
        text = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading[1]).lower()
        slug = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        numbered = (slug if not count else f"{slug}-{count}" for count in itertools.count())
        found.add(next(name for name in numbered if name not in found))
    return found


def broken_links(path: Path) -> list[str]:
    found = []
    for number, line, code in fenced(path.read_text(encoding="utf-8").splitlines()):
        if code:
            continue
        for target in _LINK.findall(line):
            if re.match(r"[a-z]+:", target):
                continue
            name, _, anchor = target.partition("#")
            there = (path.parent / name).resolve() if name else path
            if not there.exists():
                found.append(f"{relative(path)}:{number}: {target}: there is no such file")
            elif anchor and anchor not in anchors(there):
                found.append(f"{relative(path)}:{number}: {target}: there is no such heading")
    return found


def code_of(path: Path) -> Iterator[tuple[int, str, bool]]:
    """Everything that is code: lines of blocks (True), and what is in backticks (False)."""
    for number, line, block in fenced(path.read_text(encoding="utf-8").splitlines()):
        if block:
            yield number, line, True
        else:
            yield from ((number, text, False) for text in _CODE.findall(line))


@pytest.mark.parametrize("path", DOCUMENTS, ids=relative)
def test_every_link_leads_somewhere(path: Path) -> None:
    assert broken_links(path) == []


def test_a_broken_link_is_seen(tmp_path: Path) -> None:
    there = tmp_path / "there.md"
    there.write_text("# One `thing`, and more\n\n## Twice\n\n## Twice\n\n```\n# no heading\n```\n")
    assert anchors(there) == {"one-thing-and-more", "twice", "twice-1"}


def test_every_file_that_is_named_is_there() -> None:
    missing = [
        f"{relative(path)}:{number}: {name}"
        for path in DOCUMENTS
        for number, text, block in code_of(path)
        for name in (_PATH.findall(text) if not block else ())
        if not name.startswith(_OF_QEMU) and not list(ROOT.glob(name.rstrip("/")))
    ]
    assert missing == []


def test_every_module_that_is_named_is_there() -> None:
    missing = [
        f"{relative(path)}:{number}: {name}"
        for path in DOCUMENTS
        for number, text, _ in code_of(path)
        for name in _MODULE.findall(text)
        if not resolves(name)
    ]
    assert missing == []


def resolves(name: str) -> bool:
    """Whether a dotted name is a module of this checkout, or something in one."""
    words = name.split(".")
    length = len(words)
    while not (place := ROOT.joinpath(*words[:length])).is_dir() and not place.with_suffix(".py").exists():
        length -= 1
    found: Any = importlib.import_module(".".join(words[:length]))
    for word in words[length:]:
        if not hasattr(found, word):
            return False
        found = getattr(found, word)
    return True


def test_every_test_that_is_named_is_there() -> None:
    missing = []
    for path in DOCUMENTS:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            for file, test in _TEST.findall(line):
                places = [*ROOT.glob(f"tests/*/{file}"), *ROOT.glob(f"docs/examples/*/{file}")]
                texts = [place.read_text(encoding="utf-8") for place in places]
                if not any(f"def {test}(" in text for text in texts):
                    missing.append(f"{relative(path)}:{number}: {file}::{test}")
    assert missing == []


def alternatives(words: list[str]) -> Iterator[list[str]]:
    """``faults list|run`` stands for two commands."""
    choices = [word.split("|") if _CHOICE.match(word) else [word] for word in words]
    for chosen in itertools.product(*choices):
        yield list(chosen)


def typed(text: str) -> list[str] | None:
    """The words after ``freepage`` of a line that somebody is told to type; None: there are none."""
    text = text.split("#")[0] if " #" in text else text
    begin = re.search(r"(?:^\s*|[|$] |bin/)freepage (?=[a-z])", text)
    if begin is None:
        return None
    text = re.split(r"[|>]\s|\s[|>]", text[begin.end() :])[0]
    # What may be left out is written in brackets; it has to be right all the same.
    text = re.sub(r"\[options\]|\.\.\.", "", text).replace("[", "").replace("]", "")
    return [_VALUES.get(word, word) for word in shlex.split(text)]


def problem_with(words: list[str], *, whole: bool = True) -> str | None:
    """What the command's own parser says against a line; nothing is run.

    ``whole``: it can be typed as it stands; else it is only mentioned, and arguments may be missing.
    """
    command: Any = typer.main.get_command(cli.app)
    name = "freepage"
    while getattr(command, "commands", None):
        if words and words[0] in command.commands:
            name, *words = words
        elif name == "bench":
            name = "run"
        elif not words or name == "freepage":
            return None if not words else f"there is no command {words[0]!r}"
        else:
            return f"{name} has no command {words[0]!r}"
        command = command.commands[name]
    try:
        context = command.make_context(name, list(words))
    except Exception as error:
        missing = type(error).__name__ == "MissingParameter"
        return None if missing and not whole else f"{name}: {error}"
    context.close()
    return None


def command_problems(path: Path) -> list[str]:
    found = []
    for number, text, block in code_of(path):
        words = typed(text)
        for one in alternatives(words) if words is not None else ():
            problem = problem_with(one, whole=block)
            if problem is not None:
                found.append(f"{relative(path)}:{number}: freepage {' '.join(one)}: {problem}")
    return found


@pytest.mark.parametrize("path", DOCUMENTS, ids=relative)
def test_every_command_is_understood(path: Path) -> None:
    assert command_problems(path) == []


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("freepage run freed --memory 1GiB", None),
        ("freepage run freed --memroy 1GiB", "No such option"),
        ("freepage bench freed --repeat many", "valid integer"),
        ("freepage bench compare A.json", "Missing parameter"),
        ("freepage faults list|walk   # both", "no command 'walk'"),
        ("freepage scenario show freed > mine.yaml", None),
        ("freepage explain RUN [--pfn N]", None),
        ("echo ls | freepage shell idle", None),
        ("freepage walk", "no command 'walk'"),
        ("a freepage is not a command", None),
    ],
)
def test_a_command_that_is_wrong_is_seen(line: str, problem: str | None) -> None:
    words = typed(line)
    said = [text for one in alternatives(words or []) if (text := problem_with(one)) is not None]
    if problem is None:
        assert said == []
    else:
        assert any(problem in text for text in said), said


def test_the_index_names_every_document() -> None:
    index = ROOT / "docs" / "README.md"
    text = index.read_text(encoding="utf-8")
    names = {path.name for path in (ROOT / "docs").glob("*.md")} - {index.name}
    assert {name for name in names if f"]({name}" not in text} == set()


def rooms(line: str) -> frozenset[str]:
    """The modules of one layer; in the contract, parentheses are around those that may be missing."""
    return frozenset(re.sub(r"[()\s]", "", line).split("|"))


def test_the_picture_of_the_rooms_is_the_contract_of_imports() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    layers = next(contract["layers"] for contract in contracts["contracts"] if contract["type"] == "layers")
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    picture = next(block for block in page.split("```") if block.strip().startswith("__main__"))
    drawn = [re.split(r" {2,}", line)[0] for line in picture.strip().splitlines()]
    shown, wanted = [rooms(line) for line in drawn], [rooms(line) for line in layers]
    assert shown == wanted, "the picture in docs/architecture.md has to show the layers of pyproject.toml"
