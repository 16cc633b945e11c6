# SPDX-License-Identifier: GPL-2.0-or-later
"""``freepage replay``: a run again, from its folder: its scenario, its seed, its QEMUs.

What is wrong for the order in which things happen to come need not be wrong again; so what came of both
is said, and whether both ran the same programs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from harness.errors import InputError
from harness.plan.by_hand import NOT_BY_HAND, ByHand
from harness.plan.prepare import load_with_tools
from harness.report.folder import LARGEST_RESULT, RUN_RESULT, demand_new, demand_run_folder
from harness.report.result import Result
from harness.run.replay_command import RecordedRun, recorded_run
from harness.run.several import run_folders
from harness.run.supervise import run_scenario
from harness.terminal import print_error

#: What both runs have to have had: the parts of ``versions`` that carry a digest.
_DIGESTED: Final = {
    "source_qemu": "the source's QEMU",
    "destination_qemu": "the destination's QEMU",
    "kernel": "the guest's kernel",
    "image": "the guest's image",
}
#: And those that are told by their version.
_NAMED: Final = {"libvirt": "libvirt", "host_kernel": "the host's kernel", "freepage": "freepage"}


def load_recorded(run: Path) -> RecordedRun:
    """How the run in a folder was made.  Raises :class:`InputError` if it is none, or does not say."""
    if not run.is_dir():
        raise InputError(f"there is no run folder {run}")
    demand_run_folder(run)
    return recorded_run(run)


def replay_run(
    run: Path, recorded: RecordedRun, *, out: Path | None, as_json: bool, hand: ByHand = NOT_BY_HAND
) -> int:
    """Make a run again, on this machine; returns the new run's exit status.

    ``hand``: where a person wants the new run to stand still.
    """
    demand_new(out)
    scenario, tools = load_with_tools(str(recorded.scenario), [], recorded.tools)
    (folder,) = run_folders([scenario], out)
    status = run_scenario(str(recorded.scenario), [], tools, out=folder, as_json=as_json, hand=hand)
    for line in compared(result_of(run), result_of(folder), run):
        print_error(line)
    return status


def result_of(folder: Path) -> Result | None:
    """The result in a run folder; None: there is none."""
    from harness.reading import read_text

    path = folder / RUN_RESULT
    if not path.exists():
        return None
    return Result.from_json(read_text(path, LARGEST_RESULT, "a result"), str(path))


def compared(before: Result | None, now: Result | None, run: Path) -> list[str]:
    """What the two runs have in common, and what not, in words."""
    if now is None:
        return []
    if before is None:
        return [f"replay: {run} reached no verdict; there is nothing to compare with"]
    lines = [f"replay: {words}" for words in other_programs(before.versions, now.versions)]
    rules = [sorted({found.rule for found in one.findings}) for one in (before, now)]
    if before.verdict == now.verdict and rules[0] == rules[1]:
        what = f" ({', '.join(rules[1])})" if rules[1] else ""
        lines.append(f"replay: the verdict is the same as in {run}: {now.verdict}{what}")
    else:
        was, has = (
            f"{one.verdict!r}" + (f" ({', '.join(found)})" if found else "")
            for one, found in zip((before, now), rules, strict=True)
        )
        lines.append(f"replay: the verdict in {run} was {was}, and is {has} now")
    return lines


def other_programs(before: Mapping[str, object], now: Mapping[str, object]) -> list[str]:
    """Which programs are not those of the run before."""
    found = []
    for key, name in _DIGESTED.items():
        was, has = before.get(key), now.get(key)
        if isinstance(was, Mapping) and isinstance(has, Mapping) and was.get("sha256") != has.get("sha256"):
            found.append(f"{name} is another one: {was.get('path')} then, {has.get('path')} now")
    for key, name in _NAMED.items():
        if before.get(key) != now.get(key):
            found.append(f"{name} was {before.get(key)}, and is {now.get(key)}")
    return found
