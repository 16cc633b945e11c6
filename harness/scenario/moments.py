# SPDX-License-Identifier: GPL-2.0-or-later
"""The moments of a migration for which an entry of a script can wait."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

Moment: TypeAlias = Literal[
    "start",
    "destination-ready",
    "listening",
    "setup",
    "wait-unplug",
    "active",
    "request",
    "before-walk",
    "mid-walk",
    "after-walk",
    "answer",
    "applied",
    "pass",
    "pre-switchover",
    "device",
    "postcopy-active",
    "postcopy-paused",
    "postcopy-recover-setup",
    "postcopy-recover",
    "completed",
    "cancelled",
    "failed",
    "resumed",
]

_WALK: Final = (
    "The guest's module holds its walk {}, as `module-hold` told it. The rest of the guest and the migration "
    "go on."
)

#: Those before the source is told to migrate, when the destination's QEMU is there.  libvirt starts that
#: QEMU and begins at once, so a migration with one of them goes past it.
BEFORE_IT_LEAVES: Final[frozenset[Moment]] = frozenset({"destination-ready", "listening"})

#: Those at which the guest may run on the destination: in postcopy before all of it has come.
GUEST_MAY_BE_THERE: Final[frozenset[Moment]] = frozenset(
    {"resumed", "postcopy-active", "postcopy-paused", "postcopy-recover-setup", "postcopy-recover"}
)

#: Those that come only where the guest is asked: in arm info.
OF_A_REQUEST: Final[frozenset[Moment]] = frozenset(
    {"request", "before-walk", "mid-walk", "after-walk", "answer", "applied"}
)

#: What each of them is; docs/scenario.md has these words.
MOMENTS: Final[Mapping[Moment, str]] = {
    "start": "The migration has not begun yet.",
    "destination-ready": "The destination's QEMU is there. Both have been told their capabilities and "
    "parameters; nobody has told it to listen. The migration goes past libvirt.",
    "listening": "The destination's QEMU listens, and the source has not been told to migrate. The migration "
    "goes past libvirt.",
    "setup": "QEMU's status on the source is `setup`.",
    "wait-unplug": "QEMU's status on the source is `wait-unplug`: the guest has to let go of a device "
    "first, the primary NIC of a failover pair.",
    "active": "QEMU's status on the source is `active`.",
    "request": "The dirty log is armed and the request is about to leave. The device holds guest and "
    "migration.",
    "before-walk": _WALK.format("before it begins"),
    "mid-walk": _WALK.format("after some entries of the free lists"),
    "after-walk": _WALK.format("at its end"),
    "answer": "The answer has arrived and is not applied yet. The device holds guest and migration.",
    "applied": "The answer has been applied. The device holds the migration; the guest runs on.",
    "pass": "A pass over memory begins.",
    "pre-switchover": "QEMU's status on the source is `pre-switchover`.",
    "device": "QEMU's status on the source is `device`: the state of the devices leaves.",
    "postcopy-active": "QEMU's status on the source is `postcopy-active`: the guest has left, pages follow.",
    "postcopy-paused": "QEMU's status on the source is `postcopy-paused`: the connection broke in postcopy.",
    "postcopy-recover-setup": "QEMU's status on the source is `postcopy-recover-setup`: it connects anew "
    "(QEMU 9.1 and newer).",
    "postcopy-recover": "QEMU's status on the source is `postcopy-recover`: both sides are connected anew.",
    "completed": "QEMU's status on the source is `completed`.",
    "cancelled": "QEMU's status on the source is `cancelled`.",
    "failed": "QEMU's status on the source is `failed`.",
    "resumed": "The guest runs on its new host.",
}
