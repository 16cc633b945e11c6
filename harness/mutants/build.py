# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds mutants: one object and one link each, in a tree of the cache that nothing else is built in."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from harness.events import EventStream
from harness.mutants.draw import Mutant
from harness.toolchain.cache import Cache, file_digest
from harness.toolchain.patches import Patch
from harness.toolchain.qemu import PATCHED, STOCK, TARGET, QemuBuilder
from harness.toolchain.run import ProgramFailed
from harness.toolchain.source import find_source
from harness.toolchain.sources import sources
from harness.toolchain.toolchain import SOURCE_VARIABLE
from harness.toolchain.variant import PLAIN_BUILD

_TREE: Final = "mutants"


class DoesNotCompile(Exception):  # noqa: N818 - the name says what happened
    """Of this mutant no program comes; ``str()`` of it is the compiler's first complaint."""


class SameProgram(Exception):  # noqa: N818
    """The compiler makes of this mutant what it makes of QEMU as it is: nothing can tell them apart."""


class MutantBuilder:
    """``events``: for progress.  The source is Debian's, or what FREEPAGE_QEMU_SOURCE names."""

    def __init__(self, cache: Cache, events: EventStream) -> None:
        named = os.environ.get(SOURCE_VARIABLE)
        source = find_source(cache, Path(named) if named else None)
        self._events = events
        self._builder = QemuBuilder(
            cache, dataclasses.replace(source, tree=f"{_TREE}-{source.tree}"), sources() / "qemu-patches"
        )
        flavour = PATCHED if source.has_feature or self._builder.has_series else STOCK
        self._patches = self._builder.patches(flavour, ())
        self._digest = ""

    @property
    def key(self) -> str:
        """Of the QEMU that is mutated."""
        return self._builder.key(self._patches)

    def original(self, place: Path, files: Iterable[str]) -> dict[str, str]:
        """Build QEMU as it is, to ``place``; the texts of these files, as far as it has them."""
        with self._builder.built(self._patches, PLAIN_BUILD, (TARGET,), lambda **_: None) as build:
            _copy(build / TARGET, place)
            source = build.parent / "source"
            found = {name: source / name for name in files}
            texts = {name: path.read_text("utf-8") for name, path in found.items() if path.is_file()}
        self._digest = file_digest(place)
        return texts

    def build(self, mutant: Mutant, text: str, place: Path) -> None:
        """Put the program with this mutant at ``place``; ``text``: of its file.

        Raises :class:`DoesNotCompile` or :class:`SameProgram`.
        """
        content = mutant.patch(text).encode()
        patch = Patch(Path(f"{mutant.id}.patch"), hashlib.sha256(content).hexdigest(), content)
        patches = (*self._patches, patch)
        try:
            with self._builder.built(patches, PLAIN_BUILD, (TARGET,), lambda **_: None) as build:
                _copy(build / TARGET, place)
        except ProgramFailed as error:
            if error.status < 0:
                raise  # somebody has ended the compiler: that says nothing of the mutant
            wrong = [line.strip() for line in error.lines if "error:" in line]
            raise DoesNotCompile(wrong[0] if wrong else error.message.splitlines()[0]) from error
        if file_digest(place) == self._digest:
            raise SameProgram


def _copy(program: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(program, place)
    place.chmod(0o755)
