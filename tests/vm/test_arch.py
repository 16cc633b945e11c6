# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests of another architecture than the machine's, emulated: the whole oracle, by the same commands."""

from __future__ import annotations

import pytest

from harness.arch import AARCH64, HOST
from harness.testing import Freepage

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(HOST is AARCH64, reason="here it is no other architecture"),
]


def test_freed_pages_of_an_arm_guest_stay_behind(freepage: Freepage) -> None:
    run = freepage.run("freed", "--arch", "aarch64", memory="512MiB", timeout=900)
    assert run.verdict == "pass", run
    assert run.result.pages.skipped > 0.6 * run.result.pages.total
    witnesses = run.result.witnesses
    assert witnesses is not None and witnesses.agreement is not None
    assert set(witnesses.agreement) == {"both"}


def test_an_arm_guest_that_works(freepage: Freepage) -> None:
    run = freepage.run("churn", "--arch", "aarch64", memory="512MiB", timeout=900)
    assert run.verdict == "pass", run
    assert run.result.pages.skipped > 0


@pytest.mark.parametrize(
    ("scenario", "words"),
    [("compile", ("workload compile",)), ("database", ("guest.image debian",))],
)
def test_what_is_not_there_for_it_is_refused(
    freepage: Freepage, scenario: str, words: tuple[str, ...]
) -> None:
    ended = freepage.start(scenario, "--arch", "aarch64").end()
    assert ended.exit_code == 2
    assert all(word in ended.stderr for word in words), ended.stderr
