# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests of another architecture than the machine's, emulated: the whole oracle, by the same commands."""

from __future__ import annotations

import pytest

from harness.arch import AARCH64, HOST, X86_64
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


@pytest.mark.parametrize("scenario", ["freed", "churn"])
def test_pages_of_16_kib(freepage: Freepage, scenario: str) -> None:
    """Debian's kernel with such pages: bits of 4 KiB, page tables of fewer levels, the whole oracle."""
    # (Of 512 MiB the kernel's own share, and the 128 MiB of flash that are compared as well, are too much.)
    run = freepage.run(scenario, "--arch", "aarch64", memory="1GiB", kernel="16k", timeout=900)
    assert run.verdict == "pass", run
    witnesses = run.result.witnesses
    assert witnesses is not None
    if scenario == "freed":
        assert run.result.pages.skipped > 0.6 * run.result.pages.total
        assert witnesses.agreement is not None
        assert set(witnesses.agreement) == {"both"}
    else:
        assert run.result.pages.skipped > 0


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


@pytest.mark.skipif(HOST is not X86_64, reason="other machines may have such pages")
def test_pages_that_x86_does_not_have_are_refused(freepage: Freepage) -> None:
    ended = freepage.start("idle", kernel="16k").end()
    assert ended.exit_code == 2
    assert "there is no kernel 16k for x86_64" in ended.stderr
