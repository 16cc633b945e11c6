# SPDX-License-Identifier: GPL-2.0-or-later
"""Which page was sent in which round: ``sendings.npz``, of QEMU's trace or of the stream itself."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from harness.errors import InputError

SENDINGS_FILE: Final = "sendings.npz"

ZERO: Final = 0
FULL: Final = 1
DELTA: Final = 2
_PARTS: Final = ("page", "round", "how")
#: How a page travelled, in words.
HOW: Final = {ZERO: "as zeros", FULL: "whole", DELTA: "as a difference (XBZRLE)"}


@dataclass(frozen=True, eq=False)
class Sendings:
    """The sendings of one block's pages, in the order in which the pages arrived."""

    page: npt.NDArray[np.uint32]
    round: npt.NDArray[np.uint16]
    how: npt.NDArray[np.uint8]
    #: XXH3 of what the page then held, where the stream was read; None: QEMU's trace says nothing of it.
    digest: npt.NDArray[np.uint64] | None = None

    def of(self, page: int) -> list[tuple[int, str]]:
        """(round, how) of each sending of a page; rounds count from 1."""
        at = np.flatnonzero(self.page == page)
        return [(int(self.round[n]), self._how(n)) for n in at.tolist()]

    def _how(self, number: int) -> str:
        how = HOW[int(self.how[number])]
        return how if self.digest is None else f"{how} ({int(self.digest[number]):016x})"

    @staticmethod
    def save(blocks: Mapping[str, Sendings], folder: Path) -> int:
        """Write a new file; its size in bytes."""
        path = folder / SENDINGS_FILE
        arrays = {
            f"{name}:{part}": getattr(one, part)
            for name, one in blocks.items()
            for part in (*_PARTS, "digest")
            if getattr(one, part) is not None
        }
        with path.open("xb") as file:
            np.savez_compressed(file, **arrays)
        return path.stat().st_size

    @staticmethod
    def load(folder: Path) -> dict[str, Sendings]:
        """Read the sendings by block name; empty where a run did not ask for the trace."""
        path = folder / SENDINGS_FILE
        if not path.exists():
            return {}
        try:
            with np.load(path, allow_pickle=False) as arrays:
                names = sorted({key.rsplit(":", 1)[0] for key in arrays})
                return {
                    name: Sendings(
                        arrays[f"{name}:page"],
                        arrays[f"{name}:round"],
                        arrays[f"{name}:how"],
                        arrays.get(f"{name}:digest"),
                    )
                    for name in names
                }
        except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
            raise InputError(f"{path} cannot be read: {error}") from error
