# SPDX-License-Identifier: GPL-2.0-or-later
"""The parts of a version's patches, each a series in a folder of its own, carried to another version.

    parts = parts_for(sources() / "qemu-patches", tree)
    check_parts(parts, tree)
    refresh_parts(parts, tree, folder)

Free page info goes on the bare source, and so do the instruments; a build has both, and free page info's
own moments on top of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from harness.toolchain.patches import Patch, read_series
from harness.toolchain.qemu import INSTRUMENT_SERIES, MOMENT_SERIES
from harness.toolchain.series import (
    HowItFits,
    PatchFit,
    check_series,
    nearest_series,
    refresh_series,
    series_name,
)


@dataclasses.dataclass(frozen=True)
class SeriesPart:
    """One part: ``kind`` is the name of its folder, empty for free page info itself."""

    kind: str
    series: str
    """Of which version."""
    patches: tuple[Patch, ...]
    below: tuple[Patch, ...] = ()
    """What it goes on top of."""
    beside: tuple[Patch, ...] = ()
    """What it goes on top of in a build, though it does without."""


def parts_for(folder: Path, tree: Path, name: str | None = None) -> tuple[SeriesPart, ...]:
    """The parts in ``folder``, of the version ``name`` or of the one that is nearest to the tree."""
    read: dict[str, tuple[str, tuple[Patch, ...]]] = {}
    for kind in ("", INSTRUMENT_SERIES, MOMENT_SERIES):
        home = folder / kind
        series = nearest_series(home, tree) if name is None else home / name / "series"
        read[kind] = (series.parent.name, read_series(series))
    info, instruments = read[""][1], read[INSTRUMENT_SERIES][1]
    return (
        SeriesPart("", *read[""]),
        SeriesPart(INSTRUMENT_SERIES, *read[INSTRUMENT_SERIES], beside=info),
        SeriesPart(MOMENT_SERIES, *read[MOMENT_SERIES], below=(*info, *instruments)),
    )


def check_parts(parts: Sequence[SeriesPart], tree: Path) -> tuple[PatchFit, ...]:
    """How each patch of each part fits, named by its folder."""
    return tuple(fit for part in parts for fit in _named(part, _check(part, tree)))


def refresh_parts(
    parts: Sequence[SeriesPart], tree: Path, out: Path | None, folder: Path
) -> tuple[PatchFit, ...]:
    """Write all parts, made exact for the tree; nothing if a patch of any does not fit.

    Into the folders of the tree's version below ``folder``, or all of them below ``out``.
    """
    fits = check_parts(parts, tree)
    if any(fit.fit is HowItFits.NOT for fit in fits):
        return fits
    for part in parts:
        home = folder / part.kind / series_name(tree) if out is None else out / part.kind
        refresh_series(part.patches, tree, home, part.below)
    return fits


def _check(part: SeriesPart, tree: Path) -> tuple[PatchFit, ...]:
    alone = check_series(part.patches, tree, part.below)
    if not part.beside:
        return alone
    built = check_series(part.patches, tree, part.beside)
    return tuple(map(_worse, alone, built))


def _worse(alone: PatchFit, built: PatchFit) -> PatchFit:
    """Other lines are no news of what goes on top of another series; what does not fit there is."""
    if alone.fit is HowItFits.NOT or built.fit in (HowItFits.EXACT, HowItFits.MOVED):
        return alone
    return dataclasses.replace(built, why=f"on top of free page info: {built.why}")


def _named(part: SeriesPart, fits: Sequence[PatchFit]) -> Sequence[PatchFit]:
    return [dataclasses.replace(fit, patch=f"{part.kind}/{fit.patch}") if part.kind else fit for fit in fits]
