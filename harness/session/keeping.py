# SPDX-License-Identifier: GPL-2.0-or-later
"""What a run keeps of every page, for ``freepage explain``: categories, walks, changes; and the map."""

from __future__ import annotations

from collections.abc import Iterator

from harness.events import EventStream
from harness.explain import picture
from harness.explain.store import END, FILE, Instant, Kept
from harness.migration.outside import Look
from harness.report.folder import RunFolder
from harness.session.judging import Evidence
from harness.verdict import Judgement


def keep(
    evidence: Evidence, judgement: Judgement, title: str, folder: RunFolder, events: EventStream
) -> None:
    """Write ``pages.npz`` and ``map.svg``."""
    with events.step("keep") as step:
        kept = Kept.of(judgement, _looks(evidence), evidence.changed)
        step.note(bytes=kept.save(folder.file(FILE)))
        folder.write_text(picture.FILE, picture.picture(kept, title))


def _looks(evidence: Evidence) -> Iterator[tuple[Instant, Look]]:
    """Every walk, in the order in which they were made."""
    yield from evidence.looks.items()
    if evidence.at_end is not None:
        yield END, evidence.at_end
