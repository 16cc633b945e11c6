# SPDX-License-Identifier: GPL-2.0-or-later
"""What the word behind ``--qemu`` names: a program, or a QEMU that the toolchain gets.

========================  =====================================================
``patched``, ``stock``    ours, built from one source with the series and without
``instrumented``          ours, with what tests need in any QEMU, and without the series
``debian:SUITE``          the binary of a suite of Debian (harness/toolchain/debian_qemu.py)
a path, with a ``/``      that program
any other word            a program that PATH leads to
========================  =====================================================
"""

from __future__ import annotations

import difflib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from harness.arch import GUEST
from harness.errors import InputError
from harness.toolchain.debian_qemu import SUITES
from harness.toolchain.qemu import FLAVOURS
from harness.toolchain.run import search_path

DEBIAN: Final = "debian:"
#: Names that the toolchain knows.
KNOWN: Final = (*FLAVOURS, *(f"{DEBIAN}{suite}" for suite in SUITES))
_PROGRAMS: Final = "qemu-system-*"


def canonical(text: str) -> str:
    """The same QEMU by a name that means the same everywhere: one of ours, or an absolute path.

    Raises :class:`InputError` if nothing has that name, with the near ones.  Whether a path leads to a
    QEMU is not looked at.
    """
    if text in KNOWN:
        return text
    if "/" in text:
        return str(Path(text).absolute())
    found = shutil.which(text, path=search_path())
    if found is not None:
        return str(Path(found).absolute())
    raise InputError(f"no such QEMU: {text!r}", hint=_advice(text))


def file_of(name: str) -> Path | None:
    """The program that a canonical name is; None: the toolchain gets it."""
    return None if name in KNOWN else Path(name)


def _advice(text: str) -> str:
    if Path(text).exists():
        return f"a program in this folder is ./{text}"
    programs = _installed()
    near = difflib.get_close_matches(text, [*KNOWN, *programs], n=3)
    start = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    return f"{start}there are {', '.join(KNOWN)}; a program in PATH ({_few(programs)}); a path with a '/'"


def _installed() -> list[str]:
    places = (Path(folder) for folder in search_path().split(os.pathsep) if folder)
    return sorted({path.name for place in places for path in place.glob(_PROGRAMS)})


def _few(programs: Iterable[str]) -> str:
    names = list(programs)
    ours = [name for name in names if name == GUEST.qemu_binary]
    return ours[0] if ours else f"there is no {GUEST.qemu_binary}"
