# SPDX-License-Identifier: GPL-2.0-or-later
"""How large a running guest's file is, and how long it takes, in the three arms.

Run with ``pytest -s tests/bench/test_files.py``.  A guest of 2 GiB has filled and
freed 1500 MiB of it, and is migrated to a file while it runs: plain, and mapped-ram.
Prints; asserts that memory was right when the file was restored, and nothing of
bytes or times.  The figures are good beside each other only.
"""

from __future__ import annotations

import pytest

from harness.testing import Freepage, RunOptions

pytestmark = [pytest.mark.bench, pytest.mark.timeout(3600)]

SETTINGS: RunOptions = {"accel": "tcg", "memory": "2GiB", "seed": 1}


@pytest.mark.parametrize("mapped_ram", [False, True], ids=["plain", "mapped-ram"])
def test_files(freepage: Freepage, mapped_ram: bool) -> None:
    print(f"\n{'mapped-ram' if mapped_ram else 'plain'}, 2 GiB, 1500 MiB filled and freed, 256 MiB/s, TCG")
    print("  arm    in the file  takes     written - held  read")
    for arm in ("off", "hint", "info"):
        settings = {
            "workload.noise": "1500MiB",
            "migration.bandwidth": "256MiB/s",
            "migration.mapped_ram": mapped_ram,
        }
        done = freepage.with_defaults(**SETTINGS).run("to-file-freed", arm=arm, set=settings, timeout=900)
        assert done.exit_code in (0, 4), done.stderr
        assert done.result.pages.wrong == 0
        file, time = done.result.file, done.result.time
        assert (
            file is not None
            and time is not None
            and file.write_ms is not None
            and file.restore_ms is not None
        )
        assert file.bytes is not None and file.allocated is not None
        print(
            f"  {arm:5} {file.bytes / 1e6:8.0f} MB {file.allocated / 1e6:8.0f} MB"
            f"  {file.write_ms - time.held_ms:6} ms  {file.restore_ms:6} ms"
        )
