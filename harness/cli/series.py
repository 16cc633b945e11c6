# SPDX-License-Identifier: GPL-2.0-or-later
"""``freepage series``: the patches on another QEMU, before it is built."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import Json, app, print_json

if TYPE_CHECKING:
    from harness.toolchain.series import PatchFit
    from harness.toolchain.series_parts import SeriesPart

series = typer.Typer(no_args_is_help=True, help="QEMU's patches, and whether they fit another QEMU.")
app.add_typer(series, name="series")

Tree = Annotated[Path, typer.Argument(metavar="TREE", help="A QEMU source tree without the patches.")]
Name = Annotated[
    str | None,
    typer.Option(
        "--series", metavar="VERSION", help="The series; default: the tree's own, or the last before it."
    ),
]


@series.command("check")
def series_check(tree: Tree, name: Name = None, json: Json = False) -> None:
    """Say of each patch whether it fits the tree, and what is in the way if not.

    Exit status: 0 all fit; 1 one does not.
    """
    from harness.toolchain.series_parts import check_parts

    chosen = _parts(tree, name)
    _show(chosen, tree, check_parts(chosen, tree), json)


@series.command("refresh")
def series_refresh(
    tree: Tree,
    name: Name = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Default: the folders of the tree's version in qemu-patches/."),
    ] = None,
    json: Json = False,
) -> None:
    """Write the series as they fit the tree exactly, if all of them fit.

    Exit status: 0 written; 1 a patch does not fit, and nothing was written.
    """
    from harness.toolchain.series_parts import refresh_parts
    from harness.toolchain.sources import sources

    chosen = _parts(tree, name)
    _show(chosen, tree, refresh_parts(chosen, tree, out, sources() / "qemu-patches"), json)


def _parts(tree: Path, name: str | None) -> tuple[SeriesPart, ...]:
    from harness.toolchain.series import tree_version
    from harness.toolchain.series_parts import parts_for
    from harness.toolchain.sources import sources

    tree_version(tree)
    return parts_for(sources() / "qemu-patches", tree, name)


def _show(chosen: Sequence[SeriesPart], tree: Path, fits: Sequence[PatchFit], json: bool) -> None:
    from harness.toolchain.series import HowItFits, tree_version

    if json:
        print_json(
            {
                "series": chosen[0].series,
                "version": tree_version(tree),
                "patches": [{"patch": fit.patch, "fits": str(fit.fit), "why": fit.why} for fit in fits],
            }
        )
    else:
        for fit in fits:
            typer.echo(f"{fit.fit:8} {fit.patch}{f': {fit.why}' if fit.why else ''}")
    raise typer.Exit(1 if any(fit.fit is HowItFits.NOT for fit in fits) else 0)
