# SPDX-License-Identifier: GPL-2.0-or-later
"""Several guests of one run, which move at the same time between the same two hosts."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from harness.errors import ExitCode
from harness.report.folder import INCOMPLETE_MARKER
from harness.report.result import Result
from harness.scenario.load import load_scenario
from harness.testing import Freepage
from harness.testing.command import Running
from tests.vm.support.processes import words_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def freepage(freepage: Freepage) -> Freepage:
    """The scenario decides."""
    return freepage.without_defaults()


def own_result(out: Path, guest: int) -> Result:
    """What the guest's own folder says."""
    return Result.from_json((out / f"guest-{guest}" / "result.json").read_text("utf-8"))


def test_they_move_together_and_each_is_judged(freepage: Freepage) -> None:
    run = freepage.run("several-guests")
    assert run.exit_code == 0, str(run)
    result, out = run.result, run.folder
    assert result.guests is not None
    assert min(result.guests.together_ms) > 0
    each = [own_result(out, guest) for guest in (1, 2, 3)]
    assert len({one.seed for one in each}) == 3
    assert [one.seed for one in each] == [one.seed for one in result.guests.each]
    for guest, one in enumerate(each, 1):
        assert one.verdict == "pass"
        assert one.guest.checksum_matches
        assert one.protocol.requests > 0
        assert one.devices is not None
        assert one.devices.compared > 10
        assert not one.not_compared
        place = out / f"guest-{guest}"
        assert not (place / INCOMPLETE_MARKER).exists()
        # QEMUs of its own on both hosts, by its own name.
        for side in ("source", "destination"):
            assert f"guest=guest-{guest}," in (place / f"{side}.command").read_text("utf-8")
        assert freepage.command("explain", str(place)).exit_code == 0
    assert result.pages.total == sum(one.pages.total for one in each)
    assert result.protocol.requests == sum(one.protocol.requests for one in each)
    # The whole run is what is explained nowhere, and is repeated from any of its folders.
    assert freepage.command("explain", str(out)).exit_code == 2
    assert load_scenario(str(out / "guest-2" / "scenario.yaml")) == load_scenario(str(out / "scenario.yaml"))


def test_a_fault_is_named_for_each_guest_that_it_hits(freepage: Freepage) -> None:
    run = freepage.run("several-guests", "--set", "guests=2", "--fault", "sent-skipped")
    assert run.exit_code == 1, str(run)
    found = run.result.findings
    assert {one.rule for one in found} == {"differs-though-sent"}
    assert {one.guest for one in found} <= {1, 2}
    assert all(one.text.startswith(f"guest {one.guest}: ") for one in found)
    for guest in {one.guest for one in found}:
        assert guest is not None
        assert {one.guest for one in own_result(run.folder, guest).findings} == {guest}


def test_a_guest_that_is_lost_is_named_and_the_others_are_judged(freepage: Freepage) -> None:
    """Its QEMU is killed before anybody migrates: the other does not wait for it for ever."""
    running = freepage.start("several-guests", "--set", "guests=2")
    running.wait_for_step("guest 2: load")
    _qemu_of(running, "guest-2").kill()
    ended = running.end()
    out = running.folder
    assert ended.exit_code == 3, str(ended)
    assert "freepage: guest 2: " in ended.stderr
    assert (out / INCOMPLETE_MARKER).exists()
    assert "ended without a verdict" in (out / "guest-2" / INCOMPLETE_MARKER).read_text("utf-8")
    # It moved alone, and its memory is right.
    assert own_result(out, 1).verdict == "pass"


def _qemu_of(running: Running, guest: str) -> psutil.Process:
    """The QEMU of a guest that is not migrated yet."""
    (found,) = (
        process
        for process in running.processes()
        if any(word.startswith(f"guest={guest},") for word in words_of(process))
    )
    return found


def test_guests_whose_moves_are_refused_have_not_moved_together(freepage: Freepage, tmp_path: Path) -> None:
    """Each ended as it had to, and none was ever under way."""
    file = tmp_path / "apart.yaml"
    file.write_text(
        "name: apart\n"
        "guests: 2\n"
        "arm: 'off'\n"
        "guest:\n"
        "  memory: 192MiB\n"
        "  qemu_args: [-blockdev, 'null-co,node-name=n0,size=1048576,read-zeroes=on',\n"
        "              -device, 'nvme,drive=n0,serial=one,addr=0x1d']\n"
        "workload: {kind: churn, noise: 32MiB}\n"
        "migration: {capabilities: {switchover-ack: true}}\n"
        "moves: [{ends: failed, reason: nvme}]\n",
        encoding="utf-8",
    )
    ended = freepage.start(str(file)).end()
    assert ended.exit_code == ExitCode.INCONCLUSIVE, str(ended)
    assert "the migrations of the guests were not all under way at one time" in ended.result.reason
    assert ended.result.guests is not None
    assert [one.verdict for one in ended.result.guests.each] == ["pass", "pass"]
