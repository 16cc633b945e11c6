# SPDX-License-Identifier: GPL-2.0-or-later
"""What a request costs the guest: the walk, its holds, the answer, and the work that is not done meanwhile.

Run with ``pytest -s tests/bench/test_module.py``.  Prints; asserts no time.  Goals:
on a machine with real KVM 99 % of the holds take at most 100 us; and the walk's
time grows with the number of free blocks, not with memory.  Emulated, the numbers
say as much about the host as about the module.

``FREEPAGE_BENCH_GIB`` names other sizes than 1, 2, 4 and 8, such as "1,2".
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from harness.events import Deadline
from harness.migration.device import read_counters
from harness.testing.agent_guest import PATIENCE, ModuleGuest, Setup
from harness.testing.plain_guest import MIB
from harness.toolchain import Toolchain

pytestmark = [pytest.mark.bench, pytest.mark.timeout(7200)]

SIZES = [int(word) for word in os.environ.get("FREEPAGE_BENCH_GIB", "1,2,4,8").split(",")]
REQUESTS = 7
#: Every other page of so much memory is free by itself: this many free blocks, whatever the memory.
FRAGMENTED = 512 * MIB
#: 2^n pages make a chunk of the dirty log: the least and the most that QEMU takes, and its own choice.
SHIFTS = (6, 18, 31)
DEVICE = "/machine/peripheral/balloon/virtio-backend"
HOLD_GOAL_US = 100
GOAL_SHARE = 0.99


@dataclass(frozen=True)
class Point:
    """One guest, some requests."""

    gib: int
    state: str
    blocks: float
    walk_us: float
    answer_us: float
    longest_hold_us: float


def boot(gib: int, folder: Path, *more: str) -> Iterator[ModuleGuest]:
    toolchain = Toolchain()
    setup = Setup(
        toolchain,
        toolchain.qemu(),
        toolchain.kernel(),
        variant="shipped",
        memory=gib * 1024 * MIB,
        more=more,
    )
    with ModuleGuest.boot(setup, folder) as guest:
        yield guest


def ask(guest: ModuleGuest, gib: int, state: str) -> tuple[Point, np.ndarray]:
    """Median over some requests, and the holds of all of them by duration."""
    before = np.array(guest.stats()["hold_times"])
    rows = []
    for _ in range(REQUESTS):
        guest.migrate()
        stats = guest.stats()
        rows.append([stats[f"last_{name}"] for name in ("entries", "walk_ns", "answer_ns", "hold_ns")])
    blocks, walk, answer, _ = np.median(np.array(rows), axis=0)
    longest = max(row[3] for row in rows)
    point = Point(gib, state, blocks, walk / 1000, answer / 1000, longest / 1000)
    return point, np.array(guest.stats()["hold_times"]) - before


def share_within(holds: np.ndarray, microseconds: int) -> float:
    """Of the holds, by a histogram whose n-th bucket begins at 2^n microseconds: those surely within."""
    ends = 2.0 ** (1 + np.arange(len(holds)))
    return float(holds[ends <= microseconds].sum() / max(1, holds.sum()))


def test_walk_and_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    points, holds = [], np.zeros(24, dtype=np.int64)
    with capsys.disabled():
        print("\n  GiB  state       free blocks   walk      per GiB   per block  answer    longest hold")
        for gib in SIZES:
            folder = tmp_path / str(gib)
            folder.mkdir()
            for guest in boot(gib, folder):
                for state in ("idle", "fragmented"):
                    if state == "fragmented":
                        guest.call("load", "fragmented", 1, FRAGMENTED)
                    point, taken = ask(guest, gib, state)
                    points.append(point)
                    holds += taken
                    print(
                        f"  {gib:3}  {state:10} {point.blocks:12.0f} {point.walk_us:8.0f} us"
                        f" {point.walk_us / gib:8.0f} us {1000 * point.walk_us / point.blocks:8.0f} ns"
                        f" {point.answer_us:8.0f} us {point.longest_hold_us:8.0f} us"
                    )
        _print_fit(points)
        print(f"  holds by duration, from below 2 us, each twice the one before: {holds.tolist()}")
        within = share_within(holds, 128)
        print(
            f"  {100 * within:.1f} % of {holds.sum()} holds took less than 128 us (goal on real KVM:"
            f" {100 * GOAL_SHARE:.0f} % at most {HOLD_GOAL_US} us); emulated: not judged"
        )


def _print_fit(points: list[Point]) -> None:
    """Least squares of the walk's time by free blocks and by memory."""
    if len(points) < 3:
        return
    rows = np.array([[1.0, point.blocks, point.gib] for point in points])
    times = np.array([point.walk_us for point in points])
    (constant, by_block, by_gib), *_ = np.linalg.lstsq(rows, times, rcond=None)
    rest = times - rows @ np.array([constant, by_block, by_gib])
    explained = 1 - float((rest**2).sum() / ((times - times.mean()) ** 2).sum())
    print(
        f"  fit: walk = {constant:.0f} us + {1000 * by_block:.0f} ns for each free block"
        f" + {by_gib:.0f} us for each GiB; R2 {explained:.3f}"
    )


def test_arming(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """How long the migration thread takes to arm the whole log, by memory and by a chunk's size."""
    with capsys.disabled():
        print("\n  GiB  shift   clears     arming    a clear")
        for gib in SIZES:
            for shift in SHIFTS:
                folder = tmp_path / f"{gib}-{shift}"
                folder.mkdir()
                for guest in boot(gib, folder, "-global", f"migration.x-clear-bitmap-shift={shift}"):
                    rows = [armed_once(guest) for _ in range(REQUESTS)]
                    clears, nanoseconds = np.median(np.array(rows), axis=0)
                    print(
                        f"  {gib:3}  {shift:5} {clears:8.0f} {nanoseconds / 1000:8.0f} us"
                        f" {nanoseconds / max(1.0, clears):8.0f} ns"
                    )


def armed_once(guest: ModuleGuest) -> tuple[int, int]:
    """The clears and the nanoseconds of a migration's first arming, which is of the whole log."""
    before = read_counters(guest.monitor, DEVICE)["armings"]
    guest.begin_migration()
    deadline = Deadline(PATIENCE, "the first arming")
    while (now := read_counters(guest.monitor, DEVICE))["armings"] == before:
        deadline.check()
    guest.monitor.execute("migrate_cancel")
    guest.wait_for_migration("cancelled")
    return int(str(now["arming-clears"])), int(str(now["arming-ns"]))


def test_work_lost_during_a_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A guest that churns through memory, once left alone and once asked again and again."""
    for guest in boot(1, tmp_path):
        guest.call("load", "fragmented", 1, FRAGMENTED)
        guest.call("unload")
        guest.call("load", "churn", 1, 128 * MIB, "rate=1000000")
        guest.call("watch", 5)
        rates = []
        for device in ("off", "on"):
            start = guest.call("clock")["us"]
            requests = guest.stats()["requests"]
            for _ in range(REQUESTS):
                if device == "off":
                    guest.monitor.execute("qom-get", {"path": DEVICE, "property": "type"})
                    guest.call("ping")
                else:
                    guest.begin_migration()
                    while guest.stats()["requests"] == requests:
                        pass
                    requests = guest.stats()["requests"]
                    guest.monitor.execute("migrate_cancel")
                    guest.wait_for_migration("cancelled")
            window = guest.call("window", start, guest.call("clock")["us"])
            rates.append((1e6 * window["work"] / max(1, window["us"]), window["gap_us"]))
        with capsys.disabled():
            (alone, quiet_gap), (asked, gap) = rates
            print(
                f"\n  work: {alone:.0f} pages a second alone, {asked:.0f} while asked"
                f" ({100 * (1 - asked / max(1.0, alone)):.1f} % less); longest gap between two samples"
                f" {quiet_gap / 1000:.1f} and {gap / 1000:.1f} ms"
            )
