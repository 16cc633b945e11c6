# SPDX-License-Identifier: GPL-2.0-or-later
"""A connection that a guest keeps while it is migrated: see docs/oracle.md, "What a guest would notice"."""

from __future__ import annotations

from harness.testing import Freepage


def test_a_stream_goes_on_with_no_byte_wrong(freepage: Freepage) -> None:
    run = freepage.run("tcp-stream")
    assert run.verdict == "pass", run
    assert run.result.observed["stream-bytes"] > 1 << 17
    assert run.result.observed["stream-gap-ms"] >= run.result.time.downtime_ms
