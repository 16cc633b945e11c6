# SPDX-License-Identifier: GPL-2.0-or-later
"""``freepage run --qemu-matrix``: one scenario between each two of several QEMUs, both ways.

Each way is a ``freepage run`` of its own, in a process of its own; a QEMU with itself is a
way, too, which tells what is wrong with it alone.
"""

from __future__ import annotations

import itertools
import json
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

from harness.errors import ExitCode, InputError, MachineryError
from harness.events import EventStream
from harness.invoke import invoke
from harness.report.devices import DeviceDifference
from harness.report.folder import RunFolder, demand_new
from harness.report.gravity import INTERRUPTED, worst
from harness.report.result import Result

CellOutcome: TypeAlias = Literal["right", "refused", "wrong", "inconclusive", "error"]

#: So many lines of what a run says are kept where it has no result.
_LAST_LINES: Final = 8
_DOCUMENT: Final = "matrix.json"


@dataclass(frozen=True, slots=True)
class MatrixWay:
    """From one QEMU to another, by their names."""

    source: str
    destination: str

    def __str__(self) -> str:
        return f"{self.source} -> {self.destination}"


@dataclass(frozen=True, slots=True)
class MatrixCell:
    """What came of one way.

    ``refused``: it was not to be, by us before a guest booted, or by QEMU; ``words`` says why.
    ``explained``: state of devices that differs for a reason, such as a field that one version lacks.
    """

    source: str
    destination: str
    outcome: CellOutcome
    words: str
    exit_status: int
    folder: str
    versions: tuple[str, str] | None = None
    machine: str | None = None
    explained: tuple[str, ...] = ()
    replay: str = ""


def matrix_ways(names: Sequence[str]) -> list[MatrixWay]:
    """Each way between these QEMUs; a row of the table after the other."""
    return [MatrixWay(source, destination) for source, destination in itertools.product(names, repeat=2)]


def run_matrix(
    scenario: str, names: Sequence[str], words: Sequence[str], *, out: Path | None, events: EventStream
) -> list[MatrixCell]:
    """Run every way.  ``words``: further options of ``freepage run``, the same for all.

    Raises :class:`InputError` for fewer than two QEMUs; what is wrong with one way ends that way alone.
    """
    if len(dict.fromkeys(names)) != len(names) or len(names) < 2:
        raise InputError(
            "--qemu-matrix takes two or more QEMUs, each once", hint="--qemu-matrix stock,patched"
        )
    folder = _folder(scenario, out)
    # One seed for all: what differs between the ways is then the QEMUs.
    words = words if "--seed" in words else [*words, "--seed", str(secrets.randbits(63))]
    ends: list[MatrixCell] = []
    everything = matrix_ways(names)
    for number, way in enumerate(everything, 1):
        with events.step("way", number=f"{number}/{len(everything)}", way=str(way)) as step:
            ends.append(_run(scenario, way, words, folder / f"{number:02d}-{_plain(way)}"))
            step.note(outcome=ends[-1].outcome)
    (folder / _DOCUMENT).write_text(document(scenario, ends), encoding="utf-8")
    return ends


def _folder(scenario: str, out: Path | None) -> Path:
    demand_new(out)
    folder = (out or Path("runs", RunFolder.stem(Path(scenario).stem, "matrix"))).absolute()
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise InputError(
            f"cannot make the folder {folder}: {error.strerror}", hint="give --out DIR"
        ) from error
    return folder


def _plain(way: MatrixWay) -> str:
    parts = (name.replace("debian:", "").rpartition("/")[2] for name in (way.source, way.destination))
    return "-to-".join(parts)


def _run(scenario: str, way: MatrixWay, words: Sequence[str], out: Path) -> MatrixCell:
    sides = ("--source-qemu", way.source, "--destination-qemu", way.destination)
    done = invoke(["run", scenario, *sides, *words, "--json", "--out", out])
    if done.exit_code == INTERRUPTED:
        raise KeyboardInterrupt
    if done.exit_code < 0:
        raise MachineryError(f"the run {way} was killed by signal {-done.exit_code}")
    path = out / "result.json"
    result = Result.from_json(path.read_text("utf-8"), str(path)) if path.exists() else None
    return judged(way, done.exit_code, result, said_last(done.stderr), out)


def judged(way: MatrixWay, exit_status: int, result: Result | None, said: str, folder: Path) -> MatrixCell:
    """What a run's end means for its way."""
    if result is None:
        outcome: CellOutcome = "refused" if exit_status == ExitCode.INPUT else "error"
        return MatrixCell(way.source, way.destination, outcome, said, exit_status, str(folder))
    versions = tuple(str(result.versions[f"{side}_qemu"]["version"]) for side in ("source", "destination"))
    differences = result.devices.differences if result.devices is not None else []
    return MatrixCell(
        way.source,
        way.destination,
        _outcome(result, exit_status),
        result.reason,
        exit_status,
        str(folder),
        (versions[0], versions[1]),
        result.machine.type if result.machine is not None else None,
        tuple(
            f"{one.device}: {one.field} {one.source} -> {one.destination}"
            for one in differences
            if one.reason
        ),
        result.replay,
    )


def _difference(one: DeviceDifference) -> str:
    return f"{one.device}: {one.field} {one.source} -> {one.destination}: {one.reason}"


def _outcome(result: Result, exit_status: int) -> CellOutcome:
    if exit_status == ExitCode.PASS:
        return "right"
    if exit_status == ExitCode.INCONCLUSIVE:
        return "inconclusive"
    # A migration that a QEMU gave up, and nothing else: the guest is where it was, and whole.
    if result.moves and result.moves[-1].ended == "failed" and not result.pages.wrong:
        return "refused"
    return "wrong"


def said_last(text: str) -> str:
    """What a run without a result says in the end."""
    lines = text.strip().splitlines()
    begins = [at for at, line in enumerate(lines) if line.startswith("freepage: ")]
    start = begins[-1] if begins else max(0, len(lines) - _LAST_LINES)
    return "\n".join(lines[start:][:_LAST_LINES]).removeprefix("freepage: ")


def gravest_status(ends: Iterable[MatrixCell]) -> int:
    """The gravest of the ways' exit statuses."""
    return worst(end.exit_status for end in ends)


def document(scenario: str, ends: Sequence[MatrixCell]) -> str:
    """The matrix as JSON."""
    found = {
        "version": 1,
        "scenario": scenario,
        "exit_status": gravest_status(ends),
        "ways": [*map(asdict, ends)],
    }
    return json.dumps(found, indent=2, ensure_ascii=False) + "\n"


def table(ends: Sequence[MatrixCell]) -> list[str]:
    """The matrix for people: a row for each source, and below it what is not right, in words."""
    names = list(dict.fromkeys(end.source for end in ends))
    versions = {end.source: end.versions[0] for end in ends if end.versions is not None}
    titles = [f"{name} ({versions[name]})" if name in versions else name for name in names]
    rows = [["from \\ to", *titles]]
    for name, title in zip(names, titles, strict=True):
        rows.append([title, *(end.outcome for end in ends if end.source == name)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    for end in ends:
        if end.outcome != "right":
            lines += ["", f"{end.source} -> {end.destination}: {end.outcome}: {end.words}", f"  {end.folder}"]
    return lines
