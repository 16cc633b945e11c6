# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever goes wrong, in words: the one place that turns any exception into an error of ours.

    except Exception as error:
        problem = in_words(error, folder)
        print_error(f"freepage: {problem.render()}")
        return problem.exit_code

What nobody has foreseen is a fault of the testbed itself: its traceback is for those who mend it,
and goes into a file that is named.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from pathlib import Path
from typing import Final

from platformdirs import user_state_path

from harness.errors import FreepageError, MachineryError
from harness.terminal import Verbosity, verbosity

#: In a run folder: the traceback of what ended the run.
FAULT_TRACE: Final = "fault.txt"


class OwnFault(MachineryError):  # noqa: N818 - the name says what happened
    """The testbed itself is wrong; carries what is needed to say so to those who mend it."""


def in_words(error: BaseException, folder: Path | None = None) -> FreepageError:
    """The error to be told, for any exception.

    ``folder``: where the traceback of a fault of ours goes, such as a run folder; without one, to the
    user's folder for states.
    """
    if isinstance(error, FreepageError):
        return error
    if isinstance(error, OSError):
        where = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        return MachineryError(f"{where}{error.strerror or error}")
    if isinstance(error, MemoryError):
        return MachineryError("there is not enough memory", hint="smaller guests need less: --memory 512MiB")
    if isinstance(error, EOFError):
        return MachineryError("stdin has ended")
    return _fault(error, folder)


def _fault(error: BaseException, folder: Path | None) -> OwnFault:
    lines = "".join(traceback.format_exception(error))
    kept = _keep(lines, folder)
    if kept is None or verbosity() is Verbosity.VERBOSE:
        # Nowhere else: then it must not be lost.
        print(lines, file=sys.stderr, end="")  # noqa: T201 - for those who mend it
    text = f"a fault of the testbed itself: {type(error).__name__.lstrip('_')}: {error}".rstrip(": ")
    hint = None if kept is None else f"please report it with its traceback, which is in {kept}"
    return OwnFault(text, hint=hint)


def _keep(lines: str, folder: Path | None) -> Path | None:
    try:
        if folder is None:
            folder = user_state_path("freepage-testbed") / "faults"
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
        else:
            path = folder / FAULT_TRACE
        path.write_text(f"command: {sys.argv!r}\n\n{lines}", encoding="utf-8", errors="backslashreplace")
    except (OSError, RuntimeError):  # RuntimeError: nobody knows where this user is at home
        return None
    return path
