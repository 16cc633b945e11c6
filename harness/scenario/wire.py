# SPDX-License-Identifier: GPL-2.0-or-later
"""The network between the hosts, as a scenario wants it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from harness.scenario.values import Rate, Section


class WireConditions(Section):
    """How bad the network between the two hosts is, both ways alike."""

    delay_ms: Annotated[float, Field(ge=0, le=10_000)] = 0
    """Each frame takes so many milliseconds longer."""
    loss_percent: Annotated[float, Field(ge=0, lt=100)] = 0
    """So many of the frames are lost; which, follows from the run's seed."""
    reorder_percent: Annotated[float, Field(ge=0, le=100)] = 0
    """So many of the frames are overtaken by those after them."""
    bandwidth: Rate | None = None
    """What passes at most, in each direction; null: as much as the testbed's relay carries."""
