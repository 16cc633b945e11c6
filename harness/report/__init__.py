# SPDX-License-Identifier: GPL-2.0-or-later
"""What a run leaves behind: its folder, its result, the versions of all it used, and how to replay it."""

from __future__ import annotations
