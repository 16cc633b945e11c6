# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs the body of a test in a lab: namespaces of its own, which take everything with them when it ends.

pytest stays outside.  The body runs in a process that is forked for it
(:func:`harness.hosts.enter.enter`); its report, made there by pytest's own hooks with
traceback and all, comes back through an unlinked file, and is the test's.

Output by file descriptor reaches pytest's capture by itself, since the child has
inherited it; output that pytest only catches in Python (``--capture=sys``) comes back
with the report.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

import pytest

from harness.errors import MachineryError
from harness.hosts.enter import enter
from harness.testing.reports import Elsewhere


def call_in_lab(item: pytest.Function, finish: Callable[[], None], keep: Sequence[Path]) -> None:
    """Run the body of a test in a lab; then, still in there, ``finish``.

    ``keep`` names what must stay visible although it is in memory.  Raises
    :class:`Elsewhere` unless the test passes, KeyboardInterrupt if the user interrupts
    it, and :class:`MachineryError` if the process is killed.
    """
    __tracebackhide__ = True
    with tempfile.TemporaryFile("w+", encoding="utf-8") as answer:
        with _ended_with_us():
            status = enter(lambda: _in_lab(item, finish, answer), keep=keep)
        if status == 130:
            raise KeyboardInterrupt
        answer.seek(0)
        text = answer.read()
    if not text:
        raise MachineryError(f"the test's process ended in its lab with status {status}, and said nothing")
    data = json.loads(text)
    sys.stdout.write(data["stdout"])
    sys.stderr.write(data["stderr"])
    report = item.config.hook.pytest_report_from_serializable(config=item.config, data=data["report"])
    if isinstance(report.longrepr, list):
        report.longrepr = tuple(report.longrepr)  # where a test is skipped; JSON knows no tuples
    if not report.passed:
        raise Elsewhere(report)


def _in_lab(item: pytest.Function, finish: Callable[[], None], answer: IO[str]) -> int:
    def body() -> None:
        names = item._fixtureinfo.argnames
        try:
            item.obj(**{name: item.funcargs[name] for name in names})
        finally:
            finish()

    with _caught(item.config) as (out, err):
        call = pytest.CallInfo.from_call(body, "call", reraise=(KeyboardInterrupt,))
    report = item.ihook.pytest_runtest_makereport(item=item, call=call)
    data = item.config.hook.pytest_report_to_serializable(config=item.config, report=report)
    said = {"report": data, "stdout": out.getvalue(), "stderr": err.getvalue()}
    json.dump(said, answer, default=str)
    answer.flush()
    return 0


@contextlib.contextmanager
def _caught(config: pytest.Config) -> Iterator[tuple[io.StringIO, io.StringIO]]:
    """What is written in Python, where pytest catches it there and nowhere else."""
    out, err = io.StringIO(), io.StringIO()
    if config.getoption("capture") not in ("sys", "tee-sys"):
        yield out, err
        return
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield out, err


@contextlib.contextmanager
def _ended_with_us() -> Iterator[None]:
    """A test that is given up (a timeout, say) takes its lab, and all that is in there, with it."""
    import psutil

    me = psutil.Process()
    before = {process.pid for process in me.children()}
    try:
        yield
    except BaseException:
        for process in me.children():
            if process.pid not in before:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
                    process.wait()
        raise
