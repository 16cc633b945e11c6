# SPDX-License-Identifier: GPL-2.0-or-later
"""Several guests of one kind in one lab, all moved at the same time (``guests: N``).

Each is a run of its own, in a thread, with its own events, folder, seed and view of the lab: what one guest
answers cannot come to be judged for another.  What they share is the lab, and the line from which all
migrations start.
"""

from __future__ import annotations
