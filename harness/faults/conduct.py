# SPDX-License-Identifier: GPL-2.0-or-later
"""``freepage faults run``: what is chosen, what has to be built for it, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from filelock import FileLock, Timeout

from harness.errors import ExitCode, InputError
from harness.events import EventStream
from harness.faults.campaign import (
    Campaign,
    CampaignReport,
    CampaignRow,
    CampaignRun,
    clean_jobs_for,
    jobs_for,
)
from harness.faults.catalogue import Catalogue, Fault, catalogue
from harness.terminal import TerminalProgress, print_error
from harness.toolchain import Toolchain
from harness.toolchain.cache import key_of, tree_digest
from harness.toolchain.sources import package_folder, python_files


def choose(found: Catalogue, only: Sequence[str], *, sample: bool) -> list[Fault]:
    """The faults to run, in the catalogue's order; raises :class:`InputError` for an unknown id."""
    if only:
        wanted = {found.find(name).id for name in only}
        return [fault for fault in found.faults if fault.id in wanted]
    return [fault for fault in found.faults if fault.sample or not sample]


#: Builds what runs need before the first of them; from a room above this one.
BuildRuns: TypeAlias = Callable[[Sequence[CampaignRun], Sequence[str], EventStream], None]


def conduct(
    only: Sequence[str],
    build: BuildRuns,
    *,
    sample: bool,
    clean: bool,
    nested: bool,
    warm: bool,
    jobs: int,
    out: Path,
    options: Sequence[str] = (),
) -> tuple[int, CampaignReport]:
    """Build and run; the exit status, and what came of each.

    ``build`` is called once, before the first run: no run's time has a build in it.
    With ``clean`` no fault is run: each one's scenario is, as often as there are faults.
    With ``nested`` those are run that only KVM can show, under KVM inside of an emulated machine.
    With ``warm`` guests go on from a file where they may (harness/plan/warming.py).
    ``options`` go to each ``freepage run``.
    """
    chosen = choose(catalogue(), only, sample=sample)
    if not chosen:
        raise InputError("no fault is chosen")
    runnable = [fault for fault in chosen if (fault.accelerator == "kvm") == nested]
    not_run = [fault.id for fault in chosen if fault not in runnable]
    if not runnable:
        where = "need no KVM" if nested else "only KVM can show: --nested runs them"
        raise InputError(f"all faults that were chosen {where}")
    wanted = clean_jobs_for(runnable) if clean else jobs_for(runnable)
    accelerator = "kvm" if nested else "tcg"
    options = [*options, *(["--nested"] if nested else ["--warm"] if warm else [])]
    events = EventStream()
    with TerminalProgress(events):
        key = _build(Toolchain(events=events), chosen)
        build(wanted, options, events)
    out = out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / "lock", timeout=0):
            runs = Campaign(out, key, accelerator, _say, options)
            report = runs.run(wanted, jobs=jobs, not_run=not_run)
    except Timeout:
        raise InputError(
            f"another campaign is at work in {out}", hint="give --out a folder of its own"
        ) from None
    return _status(report, chosen), report


def _build(toolchain: Toolchain, chosen: Sequence[Fault]) -> str:
    """What the runs need, made here once; the key of all of it."""
    kernel = toolchain.kernel()
    made = {"qemu": toolchain.qemu().sha256, "image": toolchain.image(kernel).sha256}
    if any(fault.where == "qemu" for fault in chosen):
        made["faults"] = toolchain.qemu("faults").sha256
    made["test image"] = toolchain.image(kernel, "test").sha256
    ours = tree_digest(python_files(), package_folder())
    return key_of(made=made, kernel=kernel.digest, harness=ours)


def _say(row: CampaignRow) -> None:
    detail = row.rule or row.why
    print_error(f"{row.word:7} {row.job}  {row.scenario}  {row.seconds:.0f} s  {detail}")


def _status(report: CampaignReport, chosen: Sequence[Fault]) -> int:
    known = {fault.id for fault in chosen if fault.known_missed}
    rows = [row for row in report.faults if row.job not in known]
    words = {row.word for row in (*rows, *report.controls)}
    if "missed" in words:
        return ExitCode.FAIL
    return ExitCode.ERROR if "error" in words else ExitCode.PASS
