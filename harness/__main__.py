# SPDX-License-Identifier: GPL-2.0-or-later
"""``python -m harness`` is the ``freepage`` command, and this is where both begin."""

from __future__ import annotations

import sys
from typing import NoReturn


def start_command() -> NoReturn:
    """The command.  Ctrl-C while it is still being loaded is no traceback either."""
    try:
        from harness.cli import main
    except KeyboardInterrupt:
        sys.exit(130)
    main()


if __name__ == "__main__":
    start_command()
