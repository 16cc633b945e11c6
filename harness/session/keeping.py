# SPDX-License-Identifier: GPL-2.0-or-later
"""What a run keeps of every page, for ``freepage explain``: categories, walks, changes; and the map."""

from __future__ import annotations

from collections.abc import Iterator

from harness.events import EventStream
from harness.explain import picture
from harness.explain.sendings import Sendings
from harness.explain.store import END, FILE, Instant, Kept
from harness.explain.trace import sendings_of
from harness.migration.outside import Look
from harness.report.folder import RunFolder
from harness.session.judging import Evidence
from harness.verdict import Judgement


def keep(
    evidence: Evidence, judgement: Judgement, title: str, folder: RunFolder, events: EventStream
) -> None:
    """Write ``pages.npz`` and ``map.svg``; of a traced run, ``sendings.npz``."""
    with events.step("keep") as step:
        kept = Kept.of(judgement, _looks(evidence), evidence.changed, evidence.record_file.name)
        step.note(bytes=kept.save(folder.file(FILE)))
        folder.write_text(picture.FILE, picture.picture(kept, title))
        if evidence.traces is not None:
            step.note(sendings=Sendings.save(sendings_of(*evidence.traces), folder.path))
            for trace in evidence.traces:
                # A line a page: what matters of it has just been kept.
                trace.unlink()


def _looks(evidence: Evidence) -> Iterator[tuple[Instant, Look]]:
    """Every walk, in the order in which they were made."""
    yield from evidence.looks.items()
    if evidence.at_end is not None:
        yield END, evidence.at_end
