# SPDX-License-Identifier: GPL-2.0-or-later
"""``hunt.html``: what came of a hunt, as one page without anything to load."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from pathlib import Path
from typing import Final

from harness.hunt.hunter import HuntReport
from harness.hunt.lines import CodeReport
from harness.report.templates_of import render

PAGE: Final = "hunt.html"


def write_hunt_page(report: HuntReport, folder: Path) -> None:
    """Write it; a full disk costs the page and not the hunt."""
    with contextlib.suppress(OSError):
        place = folder / f"{PAGE}.new"
        place.write_text(page(report), encoding="utf-8")
        place.rename(folder / PAGE)


def page(report: HuntReport) -> str:
    """The page."""
    code = report.code or CodeReport(0, 0, (), ())
    missed = defaultdict(list)
    for function in code.missed:
        missed[function.file].append(function)
    return render(
        "hunt.html.j2",
        report=report,
        parts=code.parts(),
        files=[one for one in code.files if one.reached],
        unseen=[one for one in code.files if not one.reached],
        missed=missed,
    )
