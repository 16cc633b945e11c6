# SPDX-License-Identifier: GPL-2.0-or-later
"""The workload ``clocks``: what its report means, for each way in which a clock can be wrong."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.errors import MachineryError
from harness.events import EventStream
from harness.evidence.wait_meter import WaitMeter, sample_of
from harness.guestview.clocks import ClockReview, review
from harness.guestview.report import Aftermath, Pause, Report
from harness.guestview.waits import WaitSample
from harness.memory.record import Block
from harness.scenario.workloads.clocks import Clocks
from harness.verdict.judge import BlockState, JudgeInput, judge
from tests.unit.test_workloads import compiled

NAMES = "monotonic boottime realtime tsc hpet"
#: Ten seconds, of which the guest stood still for two and a half.
PAUSES = (Pause(103.0, 103.5), Pause(105.0, 107.0))
RAN = 7.5


def said(at: float, *, rtc: float = 0.0, **changes: object) -> dict[str, object]:
    """A report by a guest whose clocks show ``at`` seconds; some as ``changes`` say."""
    shown = [round(1e9 * at)] * 5
    words: dict[str, object] = {"clocksource": "tsc", "clocks": NAMES, "shown": shown, "back": [0] * 5}
    return {**words, "rtc_s": 1_700_000_000 + int(rtc), "fired": 700, "late_ns": 20_000_000, **changes}


def reviewed(
    after: dict[str, object], accelerator: Any = "tcg", before: dict[str, object] | None = None
) -> ClockReview:
    first = before if before is not None else said(50.0)
    reports = Report(first, 100.0, 100.01), Report(after, 110.0, 110.01)
    return review(Aftermath(7, *reports, PAUSES, accelerator))


def rules(found: ClockReview) -> Sequence[str]:
    none = np.zeros(4, dtype=np.bool_)
    case = JudgeInput("off", (BlockState(Block("pc.ram", 4, ()), np.array([], np.int64), none, none),))
    return [finding.rule for finding in judge(case, found).findings]


def test_clocks_that_stood_while_the_guest_did() -> None:
    found = reviewed(said(50.0 + RAN, rtc=10))
    assert rules(found) == []
    assert [span.name for span in found.spans] == ["monotonic", "boottime", "realtime", "hpet"]
    assert found.rtc is not None


def test_a_real_processors_tsc_goes_on_meanwhile() -> None:
    """By no more than the pauses; what the board has stands all the same."""
    shown = [round(1e9 * (50 + seconds)) for seconds in (10, 10, 10, 10, RAN)]
    after = said(0, rtc=10, shown=shown)
    assert rules(reviewed(after, "kvm")) == []
    assert rules(reviewed(after, "tcg")) == ["clock-jumps"]
    assert rules(reviewed(said(60.0, rtc=10), "kvm")) == ["clock-jumps"]
    kvmclock = {"clocksource": "kvm-clock"}
    assert rules(reviewed({**after, **kvmclock}, "kvm", said(50.0, **kvmclock))) == ["clock-jumps"]


@pytest.mark.parametrize("seconds", [30.0, 0.4, -0.4])
def test_a_clock_that_jumps(seconds: float) -> None:
    found = reviewed(said(50.0 + RAN + seconds, rtc=10))
    assert rules(found) == ["clock-jumps"]
    assert not any(span.right for span in found.spans)


def test_where_everything_takes_longer_more_is_tolerated() -> None:
    taken = Report(said(50.0), 100.0, 100.01), Report(said(50.0 + RAN - 0.4, rtc=10), 110.0, 110.01)
    assert rules(review(Aftermath(7, *taken, PAUSES, "kvm"))) == ["clock-jumps"]
    assert rules(review(Aftermath(7, *taken, PAUSES, "kvm", patience=5.0))) == []


def test_a_clock_that_went_back() -> None:
    found = reviewed(said(50.0 + RAN, rtc=10, back=[1_500_000, 0, 0, 12345, 0]))
    assert rules(found) == ["clock-back"]
    assert found.back == (("monotonic", 0.0015), ("tsc", 12345))


def test_a_real_time_clock_that_is_another() -> None:
    for rtc in (10 + 3600, 10 - 3600, 10 + 4, 10 - 4):
        assert rules(reviewed(said(50.0 + RAN, rtc=rtc))) == ["rtc-jumps"]
    for rtc in (9, 11):
        assert rules(reviewed(said(50.0 + RAN, rtc=rtc))) == []
    # A kernel without one.
    none = reviewed(said(50.0 + RAN, rtc_s=0), before=said(50.0, rtc_s=0))
    assert (rules(none), none.rtc) == ([], None)


def test_a_timer_that_fires_too_late() -> None:
    late = said(50.0 + RAN, rtc=10, late_ns=1_200_000_000)
    assert rules(reviewed(late)) == ["timer-late"]
    # A clock that goes on in the pauses makes a timer late by as much.
    assert rules(reviewed(late, "kvm")) == []


@pytest.mark.parametrize(
    ("samples", "found"),
    [
        # The host had the vCPU wait for half a second of the 1.2, in one piece.
        ([(100.0, 0.0, 0.0), (101.0, 0.0, 0.1), (101.5, 0.0, 0.6), (102.0, 0.0, 0.6)], []),
        # As much in all, but spread over ten seconds: at no time more than a tenth.
        ([(100.0 + n, 0.0, 0.06 * n) for n in range(10)], ["timer-late"]),
        # The main loop, which lets the timer fire.
        ([(100.0, 0.0, 0.0), (101.0, 0.5, 0.0)], []),
        ([], ["timer-late"]),
    ],
)
def test_a_host_that_is_starved_explains_lateness(
    samples: list[tuple[float, float, float]], found: list[str]
) -> None:
    waits = [WaitSample(at, loop, {7: vcpu, 8: 0.0}) for at, loop, vcpu in samples]
    reports = (
        Report(said(50.0), 100.0, 100.01),
        Report(said(50.0 + RAN, rtc=10, late_ns=1_200_000_000), 110.0, 110.01),
    )
    assert rules(review(Aftermath(7, *reports, PAUSES, "tcg", waits=[waits]))) == found


def test_a_process_that_runs_has_waited() -> None:
    events = EventStream()
    with WaitMeter(events) as meter:
        events.emit("qemu-attached", source="source.qmp", pid=os.getpid(), core_limit="0")
        events.emit("qemu-attached", source="destination.qmp", pid=1, core_limit=None)
        [samples] = meter.of_each()
    assert samples
    assert samples[-1].loop >= 0
    assert samples[0].at <= samples[-1].at
    with pytest.raises(FileNotFoundError):
        sample_of(1 << 30, 0.0)


def test_a_report_that_makes_no_sense() -> None:
    with pytest.raises(MachineryError, match="no text 'clocksource'"):
        reviewed(said(50.0 + RAN, clocksource=7))


def test_the_guests_report_is_understood(tmp_path: Path) -> None:
    program = compiled(tmp_path)
    mine = Clocks.model_validate({"keep": "64KiB"})
    with subprocess.Popen(
        [program, "load", *mine.load_words(7, 0)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None
        assert stdout is not None

        def ask(line: str) -> Report:
            print(line, file=stdin, flush=True)
            return Report(json.loads(stdout.readline()), 0.0, 0.0)

        assert json.loads(stdout.readline())["bad"] == 0
        before = ask("report")
        threading.Event().wait(0.3)
        assert ask("stop").number("steps") > 0
        after = ask("report")
        stdin.close()
    taken = Report(before.said, 0.0, 0.0), Report(after.said, 0.3, 0.35)
    [found] = mine.facts(Aftermath(7, *taken, (), "tcg"))
    assert isinstance(found, ClockReview)
    assert [span.name for span in found.spans][:3] == ["monotonic", "boottime", "realtime"]
    assert all(span.seconds >= 0.3 for span in found.spans)
    assert found.back == ()
    assert found.fired > 0
