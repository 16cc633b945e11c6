# SPDX-License-Identifier: GPL-2.0-or-later
"""One run: resolve, prepare, lab, boot, load, migrate, hold, judge, resume, report.

The first two steps happen in the process that the user started, where there is
a network to fetch from and nothing to clean up.  Then it forks into the lab
(:mod:`harness.run.boot`), and all that can hang, leak or die is in there.
"""

from __future__ import annotations
