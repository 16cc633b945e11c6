# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the tests of a session keep what they leave: a folder for each test, which survives it."""

from __future__ import annotations

import hashlib
import os
import re
import time
from itertools import count
from pathlib import Path
from typing import Any, Final

import pytest

RESULTS_FOLDER: Final = "freepage-results"
#: Of a folder's name; file systems allow 255, and people read less.
_LONGEST: Final = 120

_SESSION: Final = pytest.StashKey[Path]()


def session_folder(config: pytest.Config) -> Path:
    """The folder of this session; workers of pytest-xdist share it.  It is made when a test needs it."""
    if _SESSION not in config.stash:
        given = worker_input(config).get("freepage_session")
        if given is None:
            option = config.getoption("freepage_out")
            parent = Path(option).absolute() if option else config.rootpath / RESULTS_FOLDER
            given = parent / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
        config.stash[_SESSION] = Path(given)
    return config.stash[_SESSION]


def worker_input(config: pytest.Config) -> dict[str, Any]:
    """What the controller of pytest-xdist tells a worker; empty elsewhere."""
    told: dict[str, Any] = getattr(config, "workerinput", {})
    return told


def new_folder(session: Path, nodeid: str) -> Path:
    """Make the folder of a test: below one of its module's name."""
    path, _, name = nodeid.partition("::")
    stem = re.sub(r"[^A-Za-z0-9_.=-]+", "-", name).strip("-")
    if len(stem) > _LONGEST:
        digest = hashlib.sha256(stem.encode()).hexdigest()[:8]
        stem = f"{stem[:_LONGEST]}-{digest}"
    parent = session / Path(path).stem
    parent.mkdir(parents=True, exist_ok=True)
    for number in count(1):
        folder = parent / (stem if number == 1 else f"{stem}-{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            continue  # a test that is repeated keeps what its first attempt left
        return folder
    raise AssertionError
