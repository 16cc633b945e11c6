# SPDX-License-Identifier: GPL-2.0-or-later
"""A run folder, opened for explaining: result, what was kept of its pages, the device's record, the trace."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.errors import InputError
from harness.explain.sendings import Sendings
from harness.explain.store import PAGES_FILE, Kept, KeptBlock
from harness.memory.record import Accept, MigrationRecord, read_record
from harness.reading import read_text
from harness.report.folder import LARGEST_RESULT, RUN_RESULT, demand_run_folder
from harness.report.result import Result

#: What both sides held in some pages: folders of ``BLOCK-PAGE.source`` and ``.destination``.
CONTENTS = ("wrong", "explained")


def read_result(folder: Path) -> Result:
    """The result of a run folder; :class:`InputError` if it is none, or its run reached no verdict."""
    if not folder.is_dir():
        there = "is not a folder" if folder.exists() else "does not exist"
        raise InputError(f"{folder} {there}, so it is no run folder", hint=None)
    demand_run_folder(folder)
    if not (folder / RUN_RESULT).exists():
        raise InputError(
            f"{folder} has no {RUN_RESULT}: its run reached no verdict",
            hint="what there is of the run is in events.jsonl, console.log and INCOMPLETE",
        )
    text = read_text(folder / RUN_RESULT, LARGEST_RESULT, "a result")
    result = Result.from_json(text, str(folder / RUN_RESULT))
    if result.guests is not None:
        first = next((one for one in result.guests.each if one.verdict != "pass"), result.guests.each[0])
        raise InputError(
            f"{folder} is of a run with {len(result.guests.each)} guests, each with pages of its own",
            hint=f"name the guest's folder, such as {folder / first.folder}, or say --guest {first.guest}",
        )
    return result


@dataclass(frozen=True, eq=False)
class Case:
    """What the folder of a finished run holds, read into memory."""

    folder: Path
    result: Result
    kept: Kept
    record: MigrationRecord | None
    sendings: Mapping[str, Sendings]
    """By block: which page was sent in which round; empty without a tap and ``--trace pages``."""

    @classmethod
    def open(cls, folder: Path) -> Case:
        """Read a run folder; :class:`InputError` if it is none, or its run reached no verdict."""
        result = read_result(folder)
        kept = Kept.load(folder / PAGES_FILE)
        record = folder / kept.record
        migrations = read_record(record) if record.exists() else []
        return cls(
            folder,
            result,
            kept,
            migrations[-1] if migrations else None,
            Sendings.load(folder),
        )

    def find(self, frame: int) -> tuple[KeptBlock, int]:
        """The block and page behind a guest frame; :class:`InputError` if there is none."""
        for kept in self.kept.blocks.values():
            page = kept.block.page(frame)
            if page is not None:
                return kept, page
        raise InputError(f"guest frame {frame:#x} is no memory of a block that was compared")

    def answers(self, block: str, page: int) -> list[tuple[Accept, bool]]:
        """Every applied chunk that reported a page, in order, and whether it cleared its dirty bit."""
        found = []
        for entry in self.record.accepts if self.record is not None else ():
            at = page - entry.first
            if entry.block == block and 0 <= at < entry.reported.pages and entry.reported.has(at):
                found.append((entry, entry.cleared.has(at)))
        return found

    def contents(self, block: str, page: int) -> tuple[bytes, bytes] | None:
        """What both sides held, where it was kept."""
        # Of several migrations the last is the one that was judged.
        folders = (self.folder, *sorted(self.folder.glob("move-*"), reverse=True))
        for place in (folder / name for name in CONTENTS for folder in folders):
            stem = place / f"{block.replace('/', '-')}-{page:#x}"
            try:
                return (
                    stem.with_name(f"{stem.name}.source").read_bytes(),
                    stem.with_name(f"{stem.name}.destination").read_bytes(),
                )
            except OSError:
                continue
        return None
