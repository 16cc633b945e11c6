# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests that talk to somebody over the network: stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from harness.scenario.values import MIB, Size
from harness.scenario.workloads.base import Workload

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.guestview.partner import Partner
    from harness.guestview.report import Aftermath
    from harness.memory.formula import Generations


class Stream(Workload):
    """A TCP connection carries data both ways, datagrams are sent back, and both ends check every byte."""

    work_unit = "reads"
    stands_still = False
    needs_network = True
    reports = True

    kind: Literal["stream"] = "stream"
    """Which workload."""
    rate: Annotated[Size, Field(ge=1024, le=64 * MIB)] = 1 * MIB
    """Bytes a second that each end sends at most."""
    patience: Annotated[int, Field(ge=1, le=600)] = 30
    """Seconds after the guest has moved, within which data has to come and the connection to end."""
    keep: Size = 8 * MIB
    """Memory with known content that it owns and verifies afterwards."""

    def generations(self, seed: int, noise: int, steps: int) -> Generations:
        """What it keeps."""
        from harness.memory import formula

        return formula.unchanged(self.keep)

    def partner(self, seed: int, address: str) -> Partner:
        """The other end."""
        from harness.guestview.stream_partner import StreamPartner

        return StreamPartner(address, seed, self.rate)

    @property
    def partner_seconds(self) -> float:
        """Its ``patience``."""
        return float(self.patience)

    def facts(self, aftermath: Aftermath) -> Sequence[object]:
        """What both ends tell, held against each other."""
        from harness.guestview.stream import StreamAccount, review

        account = aftermath.partner
        assert isinstance(account, StreamAccount)
        return (review(aftermath.after, account),)
