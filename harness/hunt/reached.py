# SPDX-License-Identifier: GPL-2.0-or-later
"""Which lines of QEMU a hunt has reached: the counters of each run, read by gcov and added up.

The compiler's notes say which lines there are; what was reached is kept in the hunt's folder, for each QEMU,
so that the next night adds to it.
"""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from harness.errors import DeadlineExceeded, InputError, MachineryError
from harness.hunt.lines import CodeReport, SourceLines
from harness.toolchain import QemuBinary
from harness.toolchain.counted import NOTES, OPTION, object_name, objects
from harness.toolchain.run import ProgramFailed, build_environment, find_program, run_program

#: For some hundreds of objects, on a busy machine.
_SECONDS: Final = 300.0


def notes_of(qemu: QemuBinary) -> Path:
    """The folder with the notes of a QEMU: beside it in the cache, or the folder in which it was built.

    Raises :class:`InputError` for one that does not count its lines, or whose notes are not there.
    """
    if not qemu.counts_lines:
        raise InputError(
            f"--coverage: the QEMU {qemu.path} does not count its lines",
            hint=f"leave --qemu out, name patched, instrumented or stock, or configure yours with {OPTION}",
        )
    for folder in (qemu.path.parent / NOTES, qemu.path.parent):
        if next(objects(folder, ".gcno"), None) is not None:
            return folder
    raise InputError(
        f"--coverage: the notes (.gcno) of the QEMU {qemu.path} are not beside it",
        hint="name it in the folder in which it was built",
    )


class ReachedLines:
    """Adds up what runs have reached.  Any thread may use it.

    ``notes``: see :func:`notes_of`; ``kept``: the file that it is kept in.
    """

    def __init__(self, notes: Path, kept: Path) -> None:
        self._notes = {object_name(path): path.absolute() for path in objects(notes, ".gcno")}
        self._kept = kept
        self._lock = threading.Lock()
        self._gcov = find_program("gcov")
        self._lines, self._runs, self._without = SourceLines(), 0, 0
        self._trouble = ""
        if kept.exists():
            self._read()
        elif not self._learn(dict.fromkeys(self._notes)):
            raise MachineryError(f"--coverage: gcov reads nothing of QEMU's notes: {self._trouble}")

    def take(self, counters: Path) -> None:
        """Add what a run's QEMUs have left; a folder that is not there: nothing."""
        found = {object_name(path): path for path in objects(counters, ".gcda")}
        with self._lock:
            if self._learn({name: path for name, path in found.items() if name in self._notes}):
                self._runs += 1
            else:
                self._without += 1
            self._write()

    def report(self) -> CodeReport:
        """What was reached so far."""
        with self._lock:
            return replace(self._lines.report(self._runs, self._without), trouble=self._trouble)

    def _learn(self, counters: Mapping[Path, Path | None]) -> bool:
        """Ask gcov of these objects; without counters: of lines that nobody has reached.  Whether it knew."""
        with tempfile.TemporaryDirectory(prefix="freepage-gcov-") as folder:
            asked = []
            for name, path in counters.items():
                place = Path(folder, name)
                place.parent.mkdir(exist_ok=True)
                notes = place.with_name(f"{place.name}.gcno")
                notes.symlink_to(self._notes[name])
                asked.append(notes)
                if path is not None:
                    asked[-1] = place.with_name(f"{place.name}.gcda")
                    asked[-1].symlink_to(path.absolute())
            found = list(self._ask(asked, Path(folder)))
        for document in found:
            self._lines.learn(document)
        return bool(found)

    def _ask(self, files: Sequence[Path], folder: Path) -> Iterator[Mapping[str, Any]]:
        if not files:
            return
        names = [path.relative_to(folder) for path in files]
        try:
            said = run_program(
                [self._gcov, "--json-format", "--stdout", *names],
                what="read QEMU's counters",
                cwd=folder,
                env=build_environment(),
                stdin="",
                seconds=_SECONDS,
            )
        except ProgramFailed as error:
            # Torn by whoever killed QEMU meanwhile, or another compiler's: such a run tells nothing.
            self._trouble = self._trouble or (error.lines[-1] if error.lines else error.message)
            return
        except DeadlineExceeded as error:
            self._trouble = self._trouble or error.message
            return
        for line in said.splitlines():
            if line.startswith("{"):
                try:
                    yield json.loads(line)
                except ValueError as error:
                    self._trouble = self._trouble or f"gcov's answer is no JSON: {error}"

    def _read(self) -> None:
        try:
            document = json.loads(self._kept.read_text("utf-8"))
            self._lines = SourceLines.of(document["files"])
            self._runs, self._without = int(document["runs"]), int(document["without"])
        except (ValueError, KeyError, TypeError) as error:
            raise MachineryError(
                f"{self._kept} does not say which lines were reached", hint="remove the file"
            ) from error

    def _write(self) -> None:
        document = {"runs": self._runs, "without": self._without, "files": self._lines.document()}
        place = self._kept.with_suffix(".new")
        try:
            place.write_text(json.dumps(document), encoding="utf-8")
            place.rename(self._kept)
        except OSError as error:
            self._trouble = self._trouble or f"cannot write {self._kept}: {error.strerror}"
