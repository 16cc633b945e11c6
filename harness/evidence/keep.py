# SPDX-License-Identifier: GPL-2.0-or-later
"""What a run keeps of every page, for ``freepage explain``: categories, walks, changes; and the map."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from harness.events import EventStream
from harness.evidence.gather import Evidence
from harness.evidence.switch_over import SwitchOver
from harness.evidence.wire_witness import forget_stream
from harness.explain import picture
from harness.explain.sendings import Sendings
from harness.explain.store import LOOK_AT_END, PAGES_FILE, Kept, LookKey
from harness.explain.trace import sendings_of
from harness.migration.outside import Look
from harness.report.folder import RunFolder
from harness.verdict.judge import HINTED, HINTED_AFTER_SENT, Judgement


def keep(
    evidence: Evidence, judgement: Judgement, title: str, folder: RunFolder, events: EventStream
) -> None:
    """Write ``pages.npz`` and ``map.svg``; of a traced run, ``sendings.npz``."""
    with events.step("keep") as step:
        kept = Kept.of(judgement, _looks(evidence), evidence.changed, evidence.record_file.name)
        step.note(bytes=kept.save(folder.file(PAGES_FILE)))
        folder.write_text(picture.PICTURE_FILE, picture.picture(kept, title))
        if evidence.traces is not None:
            step.note(sendings=Sendings.save(sendings_of(*evidence.traces), folder.path))
            for trace in evidence.traces:
                # A line a page: what matters of it has just been kept.
                trace.unlink()
        elif evidence.sendings:
            step.note(sendings=Sendings.save(evidence.sendings, folder.path))
        if evidence.stream is not None and judgement.verdict != "fail":
            forget_stream(evidence.stream)


def _looks(evidence: Evidence) -> Iterator[tuple[LookKey, Look]]:
    """Every walk, in the order in which they were made."""
    yield from evidence.looks.items()
    if evidence.at_end is not None:
        yield LOOK_AT_END, evidence.at_end


#: Of so many wrong pages the contents are kept.
KEPT_PAGES: Final = 32


def keep_pages(judgement: Judgement, switch_over: SwitchOver, folder: RunFolder) -> None:
    """What both sides held in the first wrong and explained pages, as files: nobody can ask for it later."""
    wrong = [(page.block, page.page) for page in judgement.wrong_pages(KEPT_PAGES)]
    _keep(wrong, switch_over, folder.file("wrong"))
    named = [
        (judged.state.block.name, page)
        for judged in judgement.blocks
        for name, pages in judged.explained.items()
        if name not in (HINTED, HINTED_AFTER_SENT)
        for page in pages.tolist()
    ]
    _keep(named[:KEPT_PAGES], switch_over, folder.file("explained"))


def _keep(pages: Sequence[tuple[str, int]], switch_over: SwitchOver, place: Path) -> None:
    there = [(block, page) for block, page in pages if block in switch_over.source.images]
    if there:
        place.mkdir()
    for block, page in there:
        for side, images in (
            ("source", switch_over.source.images),
            ("destination", switch_over.destination.images),
        ):
            name = f"{block.replace('/', '-')}-{page:#x}.{side}"
            (place / name).write_bytes(images[block].page(page))
