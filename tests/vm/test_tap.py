# SPDX-License-Identifier: GPL-2.0-or-later
"""A tap between the hosts: what any QEMU has sent, held against what both sides hold."""

from __future__ import annotations

import pytest

from harness.explain.sendings import Sendings
from harness.testing import Freepage

SMALL = {"guest.memory": "256MiB", "tap": True}


def test_the_stream_of_a_run_is_what_both_sides_hold(freepage: Freepage) -> None:
    """Of a QEMU that keeps no record, so that nobody has to ask for it."""
    ending = freepage.start("idle", arm="off", qemu="stock", set={"guest.memory": "256MiB"}).end()
    result = ending.result
    assert result.verdict == "pass", result.reason
    assert result.wire is not None
    (ram,) = [block for block in result.wire.blocks if block.name == "pc.ram"]
    assert ram.pages == 65536
    assert ram.full + ram.zero >= ram.pages
    assert ram.never.count == ram.stale.count == ram.not_loaded.count == 0
    # QEMU's own counters agree.
    assert sum(block.full for block in result.wire.blocks) == result.moved_bytes.full_pages
    assert sum(block.zero for block in result.wire.blocks) == result.moved_bytes.zero_pages
    assert result.wire.bytes.whole == 4096 * result.moved_bytes.full_pages
    assert result.wire.bytes.total == result.moved_bytes.sent
    assert sum(one.full + one.zero for one in result.wire.rounds) == sum(
        block.full + block.zero for block in result.wire.blocks
    )
    assert not list((ending.folder / "stream").glob("*.stream"))
    (frame,) = Sendings.load(ending.folder)["pc.ram"].of(16)[-1:]
    assert "(" in frame[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scenario", "arm", "settings"),
    [
        ("churn", "off", {}),
        ("churn", "info", {"migration.xbzrle": True}),
        ("freed", "hint", {"guest.memory": "512MiB"}),
        ("there-and-back", "info", {}),
    ],
)
def test_in_every_arm(freepage: Freepage, scenario: str, arm: str, settings: dict[str, object]) -> None:
    result = freepage.start(scenario, arm=arm, set={**SMALL, **settings}).end().result
    assert result.verdict == "pass", result.reason
    assert result.wire is not None
    skipped = sum(block.never.count for block in result.wire.blocks)
    # A hint is often followed by a write of the driver's own, and the page is sent after all.
    if arm != "hint":
        assert (skipped > 0) == (arm == "info")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["none", "zlib", "zstd"])
def test_channels_of_multifd(freepage: Freepage, how: str) -> None:
    """The device's record says, page by page, what the channels say."""
    modes = {"migration.multifd": 3, "migration.parameters": {"multifd-compression": how}}
    result = freepage.start("churn", arm="info", set={**SMALL, **modes}).end().result
    assert result.verdict == "pass", result.reason
    assert result.wire is not None
    assert result.wire.unread is None
    assert len(result.wire.rounds) > 1
    assert sum(block.full for block in result.wire.blocks) == result.moved_bytes.full_pages
    assert sum(block.never.count for block in result.wire.blocks) > 0
    assert (result.wire.bytes.whole == 4096 * result.moved_bytes.full_pages) == (how == "none")


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["postcopy", "postcopy-runs"])
def test_postcopy(freepage: Freepage, scenario: str) -> None:
    result = freepage.start(scenario, arm="off", set={"tap": True}).end().result
    assert result.verdict == "pass", result.reason
    assert result.wire is not None
    assert result.wire.unread is None
    assert not any(block.never.count for block in result.wire.blocks)
    assert sum(block.full for block in result.wire.blocks) > 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["x509", "psk"])
def test_of_what_is_encrypted_only_bytes_are_known(freepage: Freepage, kind: str) -> None:
    tls: bool | str = True if kind == "x509" else kind
    result = freepage.start("idle", arm="off", set={**SMALL, "migration.tls": tls}).end().result
    assert result.verdict == "pass", result.reason
    assert result.wire is not None
    assert result.wire.bytes.total > 1 << 20
    assert "encrypted" in (result.wire.unread or "")
    assert not result.wire.blocks


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "scenario", "rule"),
    [
        ("load-wrong-block", "freed-small", "wire-not-loaded"),
        ("sync-skipped-at-end", "churn-off", "wire-stale"),
    ],
)
def test_the_side_that_is_to_blame_is_told(freepage: Freepage, fault: str, scenario: str, rule: str) -> None:
    path = f"harness/faults/scenarios/{scenario}.yaml"
    ending = freepage.start(path, fault=fault, set={"tap": True}).end()
    result = ending.result
    assert result.verdict == "fail"
    rules = {found.rule for found in result.findings}
    assert {name for name in rules if name.startswith("wire-")} == {rule}
    # Evidence is kept.
    assert list((ending.folder / "stream").glob("*.stream"))


@pytest.mark.slow
@pytest.mark.parametrize("kept", [True, False])
def test_a_limit_is_kept_by_the_taps_own_clock(freepage: Freepage, kept: bool) -> None:
    """A limit that QEMU does not keep: it is taken away by a way that the testbed does not know."""
    command = {"command-line": "migrate_set_parameter max-bandwidth 4000M"}
    away = {"action": "qmp", "command": "human-monitor-command", "arguments": command}
    settings = {
        **SMALL,
        "migration.bandwidth": "16MiB/s",
        "migration.downtime_limit_ms": 1,
        "script": [] if kept else [{"at": "active", "do": [away]}],
    }
    result = freepage.start("idle", arm="off", set=settings).end().result
    assert result.verdict == ("pass" if kept else "fail"), result.reason
    assert {found.rule for found in result.findings} == (set() if kept else {"bandwidth-exceeded"})
    assert result.wire is not None
    assert result.wire.pace is not None
    assert result.wire.pace.limit == 16 << 20


@pytest.mark.slow
def test_the_urgent_connection(freepage: Freepage) -> None:
    """postcopy-preempt has a connection of its own for what the destination asks for."""
    settings = {"tap": True, "migration.postcopy_preempt": True}
    ending = freepage.start("harness/faults/scenarios/postcopy-urgent.yaml", arm="off", set=settings).end()
    result = ending.result
    assert result.verdict == "pass", result.reason
    assert result.wire is not None
    assert result.wire.unread is None
    assert not any(block.never.count for block in result.wire.blocks)


def test_what_a_tap_cannot_hear_is_refused(freepage: Freepage) -> None:
    ending = freepage.start("idle", set={**SMALL, "migration.to": "file"}).end()
    assert ending.exit_code == 2, str(ending)
    assert "does not go together with migration.to: file" in ending.stderr
