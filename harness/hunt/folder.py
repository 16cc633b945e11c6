# SPDX-License-Identifier: GPL-2.0-or-later
"""The folder of a hunt: what was run and what came of it, what was found, Hypothesis's database.

=================  ========================================================
``hunt.json``      of which version of the language all of it is
``runs.jsonl``     a line for each run, under the QEMU that it was made with
``examples/``      Hypothesis's database of failing examples
``found/``         a scenario file for each failure, and the run folder of it
=================  ========================================================

A hunt in the same folder goes on where the last one was: it draws nothing again that was run or refused, and
takes what was found for known.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from harness.errors import InputError, MachineryError
from harness.hunt import episodes, language
from harness.hunt.drawing import Drawn, DrawSpace, hypothesis_version
from harness.hunt.ending import RunEnding

#: Changes when the same choices draw another scenario, and nothing in the language says so.
FORMAT: Final = 2
_VERSION: Final = "hunt.json"
_RUNS: Final = "runs.jsonl"


@dataclass(frozen=True, slots=True)
class HuntRow:
    """One run of a hunt."""

    qemu: str
    """The identity of the QEMUs that it was made with."""
    scenario: str
    """What was run, in one line: see harness.hunt.drawing.one_line."""
    seed: int
    word: str
    signature: str
    text: str
    seconds: float
    kept: str = ""
    """The scenario file that was kept of it."""

    @property
    def ending(self) -> RunEnding:
        """How it ended."""
        return RunEnding(self.word, self.signature, self.text)  # type: ignore[arg-type]

    @property
    def tree(self) -> dict[str, Any]:
        """The scenario."""
        tree: dict[str, Any] = json.loads(self.scenario)
        return tree


def language_digest() -> str:
    """A digest of all that can be drawn, and of the Hypothesis that draws it."""
    drawn = [
        language.setting_keys(),
        language.workloads(),
        language.devices(),
        sorted(language.drawn_actions().items()),
        episodes.BEGUN_AND_ENDED,
        sorted(episodes.NOT_DRAWN_ALONE),
        episodes.MOMENT_ORDER,
        hypothesis_version(),
    ]
    return hashlib.sha256(repr(drawn).encode()).hexdigest()[:16]


class HuntFolder:
    """A hunt's folder; it is made if it is not there.

    Raises :class:`InputError` for a folder that is another's, or of another version of the language.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        version = {"format": FORMAT, "language": language_digest(), "hypothesis": hypothesis_version()}
        place = self.path / _VERSION
        try:
            if place.exists():
                _demand_version(place, version)
            elif self.path.exists() and any(self.path.iterdir()):
                raise InputError(f"{self.path} is no hunt's folder", hint="give --out a folder of its own")
            else:
                self.path.mkdir(parents=True, exist_ok=True)
                place.write_text(json.dumps(version, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise InputError(f"--out {path}: {error.strerror}", hint="give --out another folder") from error

    def examples(self, space: DrawSpace) -> Path:
        """Hypothesis's database for what is drawn now; other choices would mean something else there."""
        digest = hashlib.sha256(repr(space).encode()).hexdigest()[:12]
        return self.path / "examples" / digest

    def rows(self) -> Iterator[HuntRow]:
        """The runs so far, in order."""
        path = self.path / _RUNS
        if not path.exists():
            return
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            try:
                yield HuntRow(**json.loads(line))
            except (ValueError, TypeError) as error:
                raise MachineryError(
                    f"{path}:{number}: not a run of a hunt", hint="remove the line, or the folder"
                ) from error

    def append(self, row: HuntRow) -> None:
        """Note a run."""
        with (self.path / _RUNS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(row), ensure_ascii=False) + "\n")

    def new_run(self) -> Path:
        """A folder for the next run, which nobody else has: several runs may begin at once."""
        for number in itertools.count(1):
            place = self.path / "running" / f"{number}"
            try:
                place.mkdir(parents=True)
            except FileExistsError:
                continue
            return place
        raise AssertionError("there is always another number")

    def keep(self, drawn: Drawn, seed: int, ending: RunEnding, words: Mapping[str, str], run: Path) -> Path:
        """Keep a failure: a scenario file that replays, and its run folder beside it."""
        found = self.path / "found"
        found.mkdir(exist_ok=True)
        rule = ending.signature.partition("/")[0]
        stem = "".join(letter if letter.isalnum() else "-" for letter in rule.lower())[:30].strip("-")
        number = 1
        while (place := found / f"{stem}-{number}.yaml").exists():
            number += 1
        place.write_text(replayable(place.stem, drawn, seed, ending, words), encoding="utf-8")
        if run.exists():
            run.rename(found / place.stem)
        return place


def replayable(name: str, drawn: Drawn, seed: int, ending: RunEnding, words: Mapping[str, str]) -> str:
    """The text of a scenario that replays; ``words`` are facts for its head, by what they are."""
    first = ending.text.strip().splitlines()[0] if ending.text.strip() else ""
    head = {"found by": "freepage hunt", "failure": ending.signature, "words": first, **words}
    comment = "".join(f"# {key}: {value}\n" for key, value in head.items() if value)
    tree = {"name": name, "summary": f"found by freepage hunt: {ending.signature}"[:200]}
    return comment + yaml.safe_dump(
        {**tree, **drawn.tree, "seed": seed}, sort_keys=False, allow_unicode=True, width=110
    )


def _demand_version(place: Path, wanted: Mapping[str, object]) -> None:
    try:
        there = json.loads(place.read_text("utf-8"))
    except ValueError:
        there = None
    if there != wanted:
        raise InputError(
            f"{place.parent}: its examples and runs are of another version of the scenario language, or of "
            "Hypothesis: what they say means something else by now",
            hint="give --out another folder; the scenarios in its found/ can still be run",
        )
