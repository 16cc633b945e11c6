# SPDX-License-Identifier: GPL-2.0-or-later
"""The keys of a scenario that say what must come out: ``expect``."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import (
    BeforeValidator,
    Field,
)

from harness.scenario.values import (
    Section,
    Share,
    Size,
    Text,
    as_tuple,
)

VerdictWord: TypeAlias = Literal["pass", "fail", "inconclusive"]

_Words: TypeAlias = Annotated[
    tuple[Annotated[Text, Field(min_length=1)], ...], BeforeValidator(as_tuple), Field(max_length=16)
]


class Expect(Section):
    """What must come out. An expectation that is not met is a failure."""

    verdict: VerdictWord = "pass"
    """The verdict that this scenario is written to show. It changes nothing in the verdict; the result says
    both. A run that ends with it is as expected, and the command ends with 0."""
    rule: Annotated[Text, Field(pattern=r"^[a-z0-9-]{1,60}$")] | None = None
    """verdict: fail: the rule by which it must fail, of those in docs/oracle.md; null: any."""
    skipping: bool | None = None
    """Whether pages must have been skipped at all. true: in the arms info and hint, and it is a failure if
    none was. null: in those arms, and it is inconclusive if none was."""
    skipped_percent_min: Annotated[float, Field(ge=0, le=100)] | None = None
    """Arm info: at least so many of all compared pages must have been skipped, in percent."""
    skipped_percent_max: Annotated[float, Field(ge=0, le=100)] | None = None
    """Arm info: at most so many, in percent."""
    sent_over_floor_max: Annotated[float, Field(gt=0)] | None = None
    """Arm info: (bytes sent - head) / floor may be at most this; see docs/result.md."""
    refused: Annotated[Text, Field(min_length=1)] | None = None
    """Arm info: words that must be in the device's reason for asking the guest nothing."""
    requests_min: Annotated[int, Field(ge=0)] | None = None
    """Arm info: the guest must have been asked at least so often."""
    requests_max: Annotated[int, Field(ge=0)] | None = None
    """Arm info: at most so often."""
    invalid_max: Annotated[int, Field(ge=0)] | None = None
    """Arm info: the device may have found at most so many buffers of the driver's to break the protocol."""
    rounds_min: Annotated[int, Field(ge=1)] | None = None
    """The last migration must have made so many passes over memory; with fewer, what was to be tested did not
    happen, and the verdict is inconclusive."""
    rounds_max: Annotated[int, Field(ge=1)] | None = None
    """The last migration may have made at most so many passes over memory."""
    syncs_max: Annotated[int, Field(ge=1)] | None = None
    """QEMU may have synchronised the dirty bitmap at most so often in the last migration."""
    total_ms_max: Annotated[int, Field(ge=1)] | None = None
    """The last migration may have taken at most so many milliseconds, without the holds."""
    downtime_ms_max: Annotated[int, Field(ge=0)] | None = None
    """The guest may have been down for at most so many milliseconds at the last switch-over, by QEMU."""
    converged: Literal[True] | None = None
    """true: the last migration must come to its switch-over within migration.timeout_s. One that does not is
    then a failure, and no error: it is cancelled, and the guest is asked for its checks where it is."""
    throttled: bool | None = None
    """Whether QEMU must have slowed the guest down in each move that completes, or limited what it may write:
    a run in which it did not is inconclusive. null: where auto-converge or dirty-limit is on; false: it need
    not."""
    throttle_percent_min: Annotated[int, Field(ge=1, le=99)] | None = None
    """auto-converge must have had the guest's vCPUs sleep for so much of the time in the last migration, in
    percent, at its most."""
    status: Literal["completed", "cancelled", "failed"] | None = None
    """The last word of the source's QEMU on the last migration."""
    statuses: Annotated[tuple[Text, ...], BeforeValidator(as_tuple), Field(max_length=16)] = ()
    """Statuses of QEMU's that the source must have had in the last migration, in this order; others may come
    between them: `[wait-unplug, active]`."""
    qemu_says: _Words = ()
    """Each must be in a line that one of the QEMUs of the last migration has written to its log."""
    qemu_says_not: _Words = ()
    """None of them may be in one."""
    runs_on: Literal["source", "destination"] | None = None
    """Where the guest runs in the end, of the last migration's two sides."""
    qemu_growth_max: Size | None = None
    """The source's QEMU may have so much more memory of its own after each migration that was given up, from
    the third on. With less than six of them the verdict is inconclusive."""
    qemu_files_growth_max: Annotated[int, Field(ge=0)] | None = None
    """The source's QEMU may have so many more files and sockets open after each of those."""
    guest_free_min: Share | None = None
    """So much free memory the guest must have in the end: a size, or a share of what was free before the
    first migration."""

    @property
    def of_a_switch_over(self) -> str | None:
        """A key that says something of a migration that has arrived; None: no such key is given."""
        given = (key for key in _OF_A_SWITCH_OVER if getattr(self, key) is not None)
        return "skipping" if self.skipping else next(given, None)


#: Keys of ``expect`` about the memory, the numbers or the record of a migration that has arrived.
_OF_A_SWITCH_OVER = (
    *("skipped_percent_min", "skipped_percent_max", "sent_over_floor_max", "refused"),
    *("requests_min", "requests_max", "invalid_max", "rounds_min", "rounds_max", "syncs_max"),
    *("total_ms_max", "downtime_ms_max", "converged"),
)
