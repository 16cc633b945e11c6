# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's own tests on the patched build, and those that ship in the series.

They need no guest: qtest drives the device by itself.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.toolchain import Toolchain
from harness.toolchain.qtests import BALLOON_TEST, MIGRATION_TEST, OUR_TEST, QemuTests

INFO = "/x86_64/virtio-balloon/info"


@pytest.fixture(scope="module")
def qtests() -> QemuTests:
    """The test programs (``freepage build`` has made them)."""
    return Toolchain().qtests()


def test_the_series_own_qtest(qtests: QemuTests, folder: Path) -> None:
    """A good driver, a hostile one, and migrations with each window forced."""
    done = qtests.run(OUR_TEST, folder, seconds=900)
    assert done.ok, done
    assert not done.skipped
    for name in ("malformed", "bad-rings", "flood", "stalled", "windows", "late", "reset/machine", "random"):
        assert f"{INFO}/{name}" in done.passed


def test_qemus_balloon_qtest(qtests: QemuTests, folder: Path) -> None:
    """What QEMU tests of its balloon holds with the series as well."""
    done = qtests.run(BALLOON_TEST, folder, seconds=300)
    assert done.ok, done
    assert not done.skipped


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_qemus_migration_qtest(qtests: QemuTests, folder: Path) -> None:
    """QEMU's own migration tests; what they skip they skip on a stock QEMU as well (no KVM, no RDMA)."""
    done = qtests.run(MIGRATION_TEST, folder, seconds=3500)
    print(done)
    assert done.ok, done
    assert "/x86_64/migration/precopy/unix/plain" in done.passed
