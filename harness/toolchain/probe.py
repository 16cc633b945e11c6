# SPDX-License-Identifier: GPL-2.0-or-later
"""Asks a QEMU binary what it is, each question bounded: it may be anything."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable
from pathlib import Path

from harness.arch import GUEST
from harness.errors import InputError, MachineryError
from harness.events import patience
from harness.toolchain.run import run_program

BALLOON_DEVICE = "virtio-balloon-pci"
#: What the oracle needs: of any QEMU, a property of the migration; of a device with free page info.
RECORD = "x-record"
HOLD = "x-free-page-info-hold"
_MIGRATION = "migration"
_SECONDS = 20.0


@dataclasses.dataclass(frozen=True)
class QemuProbe:
    """What a QEMU binary says of itself."""

    version: str
    has_free_page_info: bool
    has_free_page_hint: bool
    data_dirs: tuple[Path, ...]
    has_record: bool = False
    """Whether it can record what it sends."""
    has_hold: bool = False
    """Whether it can hold a migration at free page info's own moments."""


def probe_binary(path: Path) -> QemuProbe:
    """Run the binary's own help; raises :class:`InputError` for what is not a QEMU for PCs."""
    require_program(path)
    return read_probe(lambda *words: _ask(path, *words), str(path))


def require_program(path: Path) -> None:
    """Raise :class:`InputError` unless there is a file that may be executed."""
    if not path.exists():
        raise InputError(f"there is no QEMU at {path}")
    if not path.is_file():
        raise InputError(f"{path} is not a file, so no QEMU")
    if not os.access(path, os.X_OK):
        raise InputError(f"{path} is not executable, so no QEMU")


def read_probe(ask: Callable[..., str], what: str) -> QemuProbe:
    """Put the questions to a binary, wherever it is; ``ask`` gives what it prints for some arguments."""
    version = re.search(r"^QEMU emulator version (\S+)", ask("-version"), re.MULTILINE)
    if version is None:
        raise InputError(f"{what} is not a QEMU system emulator: `-version` does not say so")
    board = GUEST.board
    if not re.search(rf"^{re.escape(board.types[0])}\s", ask("-machine", "help"), re.MULTILINE):
        raise InputError(f"{what} does not emulate {board.noun}", hint=f"it has to be a {GUEST.qemu_binary}")
    properties = properties_of(ask("-device", f"{BALLOON_DEVICE},help"))
    if not properties:
        raise InputError(f"{what} ({version[1]}) has no device {BALLOON_DEVICE}")
    return QemuProbe(
        version=version[1],
        has_free_page_info="free-page-info" in properties,
        has_free_page_hint="free-page-hint" in properties,
        data_dirs=tuple(Path(line) for line in ask("-L", "help").splitlines() if line.startswith("/")),
        has_record=RECORD in properties_of(ask("-device", f"{_MIGRATION},help")),
        has_hold=HOLD in properties,
    )


def properties_of(text: str) -> frozenset[str]:
    """The property names in what ``-device NAME,help`` prints."""
    return frozenset(re.findall(r"^\s+([\w.-]+)=<", text, re.MULTILINE))


def devices_of(path: Path) -> frozenset[str]:
    """The names of all devices that a binary has: what ``-device help`` lists."""
    return frozenset(re.findall(r'^name "([^"]+)"', _ask(path, "-device", "help"), re.MULTILINE))


def _ask(path: Path, *words: str) -> str:
    try:
        return run_program([path, *words], what=f"ask {path} for {words[-1]}", seconds=patience(_SECONDS))
    except MachineryError as error:
        raise InputError(f"{path} is not a QEMU that runs here: {error.message}", hint=error.hint) from error
    except OSError as error:  # no program at all: wrong format, wrong architecture
        raise InputError(f"{path} cannot be run: {error.strerror}") from error
