# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests with each of Debian's kernels that has a name: the module in them, and the walk from outside."""

from __future__ import annotations

import pytest

from harness.scenario.values import KERNELS
from harness.testing import Freepage
from harness.toolchain import Toolchain

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.mark.parametrize("name", KERNELS[1:])
def test_what_is_free_is_left_behind(freepage: Freepage, toolchain: Toolchain, name: str) -> None:
    if name not in toolchain.kernel_names():
        pytest.skip("another test's: it is built, or of another architecture")
    # (The largest of these kernels leave too little of 512 MiB.)
    run = freepage.run("freed", memory="1GiB", kernel=name, timeout=900)
    assert run.verdict == "pass", run
    assert run.result.pages.skipped > 0.6 * run.result.pages.total
    witnesses = run.result.witnesses
    assert witnesses is not None and witnesses.agreement is not None
    assert set(witnesses.agreement) == {"both"}
    assert ("-rt-" in (witnesses.kernel or "")) == (name == "rt")
