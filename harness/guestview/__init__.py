# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest would notice of a migration beside its memory: pure judges of what a workload tells.

Each module has what one workload's report means, and what else the host knows about
it: an image of a disk, the spans in which the guest stood still.  What comes out are
facts for the verdict: see :meth:`harness.scenario.workloads.base.Workload.facts`.

Not pure is :mod:`harness.guestview.partner`: somebody on the host to whom a workload talks.
"""
