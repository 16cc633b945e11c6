# SPDX-License-Identifier: GPL-2.0-or-later
"""The rule of modes: see :mod:`harness.verdict.modes`."""

from __future__ import annotations

from harness.verdict.registry import announce

announce(
    "outcome",
    {"modes-differ": "a QEMU has taken a capability or parameter, and has another one on while it migrates"},
)
