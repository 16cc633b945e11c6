# SPDX-License-Identifier: GPL-2.0-or-later
"""Files that a user names for reports: whether they can be written is said before anything runs."""

from __future__ import annotations

import os
from pathlib import Path

from harness.errors import InputError


def demand_writable(path: Path, option: str) -> None:
    """Raise :class:`InputError` if no file can be written there; ``option`` names it on the command line."""
    folder = path.absolute().parent
    if path.is_dir():
        raise InputError(f"{option} {path}: this is a folder, and a file is to be written")
    if not folder.is_dir():
        raise InputError(f"{option} {path}: there is no folder {folder}", hint=f"mkdir -p {folder}")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise InputError(f"{option} {path}: this cannot be written")
