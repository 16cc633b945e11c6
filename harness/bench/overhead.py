# SPDX-License-Identifier: GPL-2.0-or-later
"""What the testbed itself costs: a whole run beside the least that its migration takes.

The least is :mod:`harness.bench.bare`: the same two QEMUs, guest and migration over QMP,
by nothing but the standard library.  Pairs are interleaved (bare, run, run, bare, ...),
so that whatever else the machine does falls on both.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from harness.bench import bare, statistics
from harness.bench.document import Overhead
from harness.bench.folder import BenchFolder
from harness.bench.summarise import to_range
from harness.errors import MachineryError
from harness.events import EventStream
from harness.invoke import invoke
from harness.report.result import Result
from harness.toolchain import Toolchain

#: Of the guest, in both.
MEMORY: Final = "1GiB"
_LONGEST: Final = 900.0


def measure_overhead(
    arms: Sequence[str], pairs: int, folder: BenchFolder, events: EventStream
) -> list[Overhead]:
    """Make the pairs of runs that are missing, and compare whole runs with bare ones."""
    return [_of_arm(arm, pairs, folder, events) for arm in arms if pairs]


def _of_arm(arm: str, pairs: int, folder: BenchFolder, events: EventStream) -> Overhead:
    floors: list[float] = []
    wholes: list[tuple[float, float]] = []
    for number in range(1, pairs + 1):
        with events.step("overhead", pair=f"{number}/{pairs}", arm=arm) as step:
            place = folder.path / "overhead"
            for bare_now in (True, False) if number % 2 else (False, True):
                if bare_now:
                    floors.append(_bare(arm, place / f"bare-{arm}-{number}.json", events))
                else:
                    wholes.append(_whole(arm, place / f"run-{arm}-{number}"))
            step.note(floor=f"{floors[-1]:.2f} s", whole=f"{wholes[-1][0]:.2f} s")
    took, held = [whole for whole, _ in wholes], [held for _, held in wholes]
    without = [whole - hold for whole, hold in wholes]
    found = statistics.quotient(took, floors)
    bare_median = statistics.median(floors)
    return Overhead(
        arm=arm,
        floor=floors,
        whole=took,
        held=held,
        quotient=found.value if found else statistics.median(took) / bare_median,
        quotient_without_holds=statistics.median(without) / bare_median,
        interval=to_range(found.interval) if found else None,
    )


def _bare(arm: str, out: Path, events: EventStream) -> float:
    """Seconds from the start to the completed migration; ``out`` keeps what was printed."""
    if out.exists():
        return float(json.loads(out.read_text(encoding="utf-8"))["migrated"])
    toolchain = Toolchain(events=events)
    kernel = toolchain.kernel()
    qemu = toolchain.qemu()
    words = [qemu.path, qemu.firmware[0], kernel.vmlinuz, toolchain.image(kernel).initrd, "1G", arm]
    done = subprocess.run(
        [sys.executable, "-I", str(Path(bare.__file__)), *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=_LONGEST,
    )
    if done.returncode:
        raise MachineryError(f"the bare migration failed: {done.stderr.strip()[-500:]}")
    out.parent.mkdir(exist_ok=True)
    out.write_text(done.stdout, encoding="utf-8")
    return float(json.loads(done.stdout)["migrated"])


def _whole(arm: str, out: Path) -> tuple[float, float]:
    """Seconds from the command's start to the completed migration, and of these the holds."""
    if not (out / "result.json").exists():
        words = [
            "run",
            "idle",
            "--arm",
            arm,
            "--memory",
            MEMORY,
            "--accel",
            "tcg",
            "--json",
            "--out",
            str(out),
        ]
        out.parent.mkdir(exist_ok=True)
        done = invoke(words, timeout=_LONGEST)
        if done.exit_code:
            raise MachineryError(f"a run of the overhead did not pass: {done.stderr.strip()[-500:]}")
    result = Result.from_json((out / "result.json").read_text(encoding="utf-8"), str(out))
    return result.phases["until_migrated"], result.moved_time.held_ms / 1000
