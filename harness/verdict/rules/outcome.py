# SPDX-License-Identifier: GPL-2.0-or-later
"""How each of the run's migrations ended: names of what :mod:`harness.verdict.outcome` finds.

The findings come with the course of the run, because a run has several migrations.
"""

from __future__ import annotations

from harness.verdict.outcome import KIND
from harness.verdict.registry import announce

announce(
    KIND,
    {
        "two-run": "both QEMUs ran the guest at once, or the source went on with a guest that had moved",
        "none-runs": "no QEMU runs the guest in the end",
        "qemu-crashed": "a QEMU ended by a signal of its own making, before the migration or later, or a "
        "sanitizer reports a fault of it",
        "qemu-ended": "a QEMU ended during a migration, and nobody had asked it to",
        "destination-refused": "the destination's QEMU did not take a part of the stream",
        "locks-disagree": "a disk's image is locked for writing by a QEMU that does not run the guest, or is "
        "not by the one that does",
        "status-disagrees": "the two QEMUs, or QEMU and libvirt, say different things of the migration's end",
        "file-accepted": "a QEMU restored a guest from a file that was cut off, or is another's",
        "file-broken": "a file that a QEMU has written is no whole stream, whoever takes it",
        "postcopy-broke": "in postcopy a QEMU paused the migration, though nobody had broken the connection",
        "bitmaps-differ": "a dirty bitmap of a disk is not on the destination as the source had it",
        "machine-differs": "a property of a device or vCPU is another on the destination, whose QEMU is not "
        "the source's, though the machine type is the same",
        "not-announced": "the destination's QEMU has not announced the guest to its network, "
        "whose switches send what is for the guest to its old host",
        "stuck": "for `migration.stuck_s` nothing of the migration moved, or QEMU did not answer",
    },
)
announce(
    "guest",
    {
        "guest-died": "a guest whose memory is right panics, ends or falls silent after its migration",
    },
)
