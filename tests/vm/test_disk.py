# SPDX-License-Identifier: GPL-2.0-or-later
"""A disk that the guest writes to while it is migrated: see docs/oracle.md, "What a guest would notice"."""

from __future__ import annotations

from harness.testing import Freepage


def test_a_disk_holds_what_was_acknowledged(freepage: Freepage) -> None:
    run = freepage.run("disk-journal")
    assert run.verdict == "pass", run
    assert run.result.observed["disk-requests"] > 100
    assert not (run.folder / "disk.raw").exists()


def test_a_disk_with_one_request_at_a_time(freepage: Freepage) -> None:
    run = freepage.run("disk-journal", set={"workload.depth": 1, "workload.disk": "1MiB"})
    assert run.verdict == "pass", run
