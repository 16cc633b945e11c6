# SPDX-License-Identifier: GPL-2.0-or-later
"""What QEMU's test programs print, and how they are run."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import MachineryError
from harness.toolchain.qtests import SANITIZED, QemuTests, TapResult
from harness.toolchain.variant import OPTIONS

OUTPUT = """\
# random seed: R02S2dd50d6d13a9a3b0d4cf4bff1ef1bd5e
1..3
# Start of x86_64 tests
ok 1 /x86_64/virtio-balloon/info/request
qemu-system-x86_64: Looped descriptor
ok 2 /x86_64/virtio-balloon/info/late # SKIP no time
not ok 3 /x86_64/virtio-balloon/info/stop
"""


def test_results_are_told_apart() -> None:
    result = TapResult.of(1, OUTPUT)
    assert result.passed == ("/x86_64/virtio-balloon/info/request",)
    assert result.skipped == ("/x86_64/virtio-balloon/info/late",)
    assert result.failed == ("/x86_64/virtio-balloon/info/stop",)
    assert not result.ok
    assert "1 passed, 1 skipped, 1 failed" in str(result)


@pytest.mark.parametrize(
    ("status", "output"), [(0, "1..0\n"), (0, "ok 1 /a # SKIP\n"), (-6, "ok 1 /a\n"), (0, "not ok 1 /a\n")]
)
def test_what_is_no_success(status: int, output: str) -> None:
    assert not TapResult.of(status, output).ok


def program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)


def test_a_program_runs_with_our_emulator_and_firmware(tmp_path: Path) -> None:
    built, scratch = tmp_path / "built", tmp_path / "scratch"
    built.mkdir()
    scratch.mkdir()
    program(built / "qemu-system-x86_64", 'echo "# emulator: $*"')
    program(built / "some-test", 'echo "ok 1 /$1$2$3"; exec "$QTEST_QEMU_BINARY" -m 64')
    done = QemuTests(built, (tmp_path / "roms",)).run("some-test", scratch, prefix="/x", seconds=60)
    assert done.ok
    assert done.passed == ("/-k-p/x",)
    assert f"# emulator: -m 64 -nic none -L {tmp_path}/roms" in done.output
    assert (scratch / "output.txt").read_text("utf-8") == done.output


def test_a_program_that_hangs_is_an_error_of_the_machinery(tmp_path: Path) -> None:
    program(tmp_path / "some-test", "sleep 1000")
    with pytest.raises(MachineryError, match="some-test has not ended"):
        QemuTests(tmp_path, ()).run("some-test", tmp_path, seconds=0.2)


def test_sanitizers_come_on_top_of_the_same_build() -> None:
    assert set(SANITIZED.options) - set(OPTIONS) >= {"--enable-asan", "--enable-ubsan", "--enable-fuzzing"}
    assert "--enable-tcg" in SANITIZED.options
