# SPDX-License-Identifier: GPL-2.0-or-later
"""``freepage bisect``: the commit from which on a scenario fails.

``git bisect`` chooses, in a clone of ours; a commit is built, run several times, and called good or bad,
or is skipped.
"""

from __future__ import annotations
