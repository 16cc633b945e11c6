# SPDX-License-Identifier: GPL-2.0-or-later
"""What a run's commands brought, in its result: commands in the guest, and those of QMP."""

from __future__ import annotations

from typing import Any

from harness.report.part import Part


class GuestCommand(Part):
    """A command that the guest ran."""

    when: str
    """before, after, or "move N" for one of that move's script."""
    words: list[str]
    """Program and arguments."""
    status: int | None
    """Its exit status; null: a signal ended it."""
    signal: int | None
    """The signal that ended it."""
    late: bool
    """It was killed because its time was over."""
    output: str
    """What it wrote to standard output and standard error; at most 1 MiB."""
    bytes: int
    """How much it wrote."""


class QmpCommand(Part):
    """A QMP command of the script's."""

    move: int
    """During which of the moves."""
    side: str
    """source or destination."""
    command: str
    """Its name."""
    answer: Any
    """What QEMU answered; null if it refused."""
    error: str | None
    """Why QEMU refused; null if it did not."""
