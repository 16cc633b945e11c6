# SPDX-License-Identifier: GPL-2.0-or-later
"""The device under fuzzers, with ASan and UBSan (``ci/fuzz``).

``FREEPAGE_FUZZ_SECONDS`` is how long each of them runs (60), ``FREEPAGE_FUZZ_SEED``
what it starts from (drawn at random, and printed).
"""

from __future__ import annotations

import os
import random
import re
import shutil
from pathlib import Path

import pytest

from harness.toolchain import Toolchain
from harness.toolchain.qtests import FUZZ_TARGETS, OUR_TEST, QemuTests

SECONDS = int(os.environ.get("FREEPAGE_FUZZ_SECONDS", "60"))
SEED = int(os.environ.get("FREEPAGE_FUZZ_SEED") or random.randrange(1, 1 << 31))

#: Building takes most of it, the first time.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(6 * 3600),
    pytest.mark.skipif(
        shutil.which("clang") is None, reason="no clang here; its packages are clang and libclang-rt-dev"
    ),
]


@pytest.fixture(scope="module")
def fuzzer() -> QemuTests:
    """Fuzzer, emulator and qtest with sanitizers, built if need be."""
    return Toolchain().fuzzer()


@pytest.mark.parametrize("target", FUZZ_TARGETS)
def test_nothing_is_found_on_the_queue(fuzzer: QemuTests, folder: Path, target: str) -> None:
    """libFuzzer makes the descriptors and what they point at."""
    status, output = fuzzer.fuzz(target, folder, seconds=SECONDS, seed=SEED)
    print(f"{target}, seed {SEED}\n{output[-2000:]}")
    assert status == 0, output[-8000:]
    runs = re.search(r"Done (\d+) runs in (\d+) second", output)
    assert runs
    assert int(runs[1]) > 0
    # It has found its way into the code, not only to the first check.
    covered = re.findall(r"cov: (\d+)", output)
    assert int(covered[-1]) > int(covered[0])


def test_an_overflow_is_found(repository: Path, folder: Path) -> None:
    """The fuzzer can find something: what the device of 2016 did with a chunk that is too long."""
    fault = repository / "qemu-patches/faults/answer-overflow.patch"
    fuzzer = Toolchain().fuzzer(extra_patches=[fault])
    status, output = fuzzer.fuzz(FUZZ_TARGETS[0], folder, seconds=600, seed=SEED)
    assert status != 0
    assert "AddressSanitizer: heap-buffer-overflow" in output, output[-8000:]
    # And whoever looks for it has what found it.
    assert list(folder.glob("crash-*"))


def test_nothing_is_found_during_a_migration(fuzzer: QemuTests, folder: Path) -> None:
    """A random driver, while a request is outstanding and the migration stands."""
    done = fuzzer.run(
        OUR_TEST,
        folder,
        prefix="/x86_64/virtio-balloon/info",
        seconds=SECONDS + 1800,
        more={
            "FREE_PAGE_INFO_FUZZ_SECONDS": str(SECONDS),
            "ASAN_OPTIONS": "detect_leaks=0",
            "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
        },
    )
    print(done)
    assert done.ok, done
    assert "runtime error" not in done.output
    assert "AddressSanitizer" not in done.output
