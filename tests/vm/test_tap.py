# SPDX-License-Identifier: GPL-2.0-or-later
"""A tap between the hosts: what any QEMU has sent, held against what both sides hold."""

from __future__ import annotations

import pytest

from harness.testing import Freepage

SMALL = {"guest.memory": "256MiB", "tap": True}


def test_the_stream_of_a_run_is_what_both_sides_hold(freepage: Freepage) -> None:
    ending = freepage.start("idle", arm="off", set=SMALL).end()
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
    assert not list((ending.folder / "stream").glob("*.stream"))


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


def test_what_a_tap_cannot_hear_is_refused(freepage: Freepage) -> None:
    ending = freepage.start("idle", set={**SMALL, "migration.multifd": 2}).end()
    assert ending.exit_code == 2, str(ending)
    assert "does not go together with migration.multifd" in ending.stderr
