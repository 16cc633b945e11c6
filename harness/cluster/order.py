# SPDX-License-Identifier: GPL-2.0-or-later
"""What a worker is asked for, and what it answers: plain values, which both sides know by one version."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from harness.plan.plan import Tools


@dataclass(frozen=True, slots=True)
class RunOrder:
    """One run that a worker is to make.

    ``scenario``: the text of its file.  ``timeout``: seconds.  ``most``: bytes of files that come back.
    """

    name: str
    scenario: str
    tools: Tools
    nested: bool
    timeout: float
    most: int


@dataclass(frozen=True, slots=True)
class RunAnswer:
    """What came of it.

    ``status``: the exit status of the run's command.  ``told``: why it was told to end; empty: it ended by
    itself.  ``refused``: why the worker could not begin it.  ``said``: what the command said.  ``files``:
    its run folder (:mod:`harness.cluster.artefacts`); empty: there was none.
    """

    worker: str
    status: int
    told: str
    refused: str
    began: datetime
    seconds: float
    said: bytes
    files: bytes


@dataclass(frozen=True, slots=True)
class WorkerFacts:
    """What a worker says of itself.

    ``code``: a hash of the package.  ``cache``: equal for workers that share a cache.
    """

    name: str
    version: str
    code: str
    python: str
    cache: str
