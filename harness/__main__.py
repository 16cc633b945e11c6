# SPDX-License-Identifier: GPL-2.0-or-later
"""``python -m harness`` is the ``freepage`` command."""

from __future__ import annotations

from harness.cli import main

if __name__ == "__main__":
    main()
