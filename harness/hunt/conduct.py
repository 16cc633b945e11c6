# SPDX-License-Identifier: GPL-2.0-or-later
"""``freepage hunt``: what is wrong said first, what is needed built, the hunt, and what is said of it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from harness.errors import ExitCode, InputError
from harness.events import EventStream
from harness.faults.injection import injection_of
from harness.hosts.signals import polite_signals
from harness.hunt import language
from harness.hunt.drawing import DrawSpace
from harness.hunt.folder import HuntFolder
from harness.hunt.hunter import Hunt, HuntReport
from harness.hunt.lines import CodeReport
from harness.hunt.page import write_hunt_page
from harness.hunt.reached import ReachedLines, notes_of
from harness.hunt.running import Runner
from harness.plan.plan import Tools
from harness.scenario.problems import did_you_mean
from harness.terminal import TerminalProgress, print_error
from harness.toolchain import QemuBinary, Toolchain
from harness.toolchain.cache import key_of
from harness.toolchain.counted import COUNTED, OPTION
from harness.toolchain.qemu import FLAVOURS, PATCHED
from harness.toolchain.qemu_names import file_of
from harness.toolchain.run import search_path

#: Arms, the simplest first, as Hypothesis makes scenarios simpler.
_ARMS: Final = ("off", "hint", "info")
#: A small guest that has not moved by then moves too slowly for the hunt.
_LIMITS: Final = ("--set", "migration.timeout_s=100")
_GCOV: Final = "it comes with gcc"
#: So many functions that no run has been in are named in the report for people.
_NAMED: Final = 20


def conduct_hunt(
    tools: Tools,
    options: Sequence[str],
    *,
    minutes: float,
    seed: int,
    only: Sequence[str],
    jobs: int,
    out: Path,
    until_found: bool = False,
    coverage: bool = False,
) -> tuple[int, HuntReport]:
    """Hunt; the exit status and the report.

    ``options`` go to each ``freepage run``, beside what ``tools`` names.  ``coverage``: which lines of QEMU
    are reached is counted, too.
    """
    demand_keys(only)
    if coverage:
        demand_countable(tools)
    folder = HuntFolder(out)
    order = _Order(minutes, seed, only, jobs, until_found, coverage)
    try:
        with FileLock(folder.path / "lock", timeout=0):
            return _hunt(folder, tools, options, order)
    except Timeout:
        raise InputError(
            f"another hunt is at work in {folder.path}", hint="give --out a folder of its own"
        ) from None


@dataclass(frozen=True, slots=True)
class _Order:
    """How a hunt is to be made: see :func:`conduct_hunt`."""

    minutes: float
    seed: int
    only: Sequence[str]
    jobs: int
    until_found: bool
    coverage: bool


def _hunt(folder: HuntFolder, tools: Tools, options: Sequence[str], order: _Order) -> tuple[int, HuntReport]:
    events = EventStream()
    with TerminalProgress(events):
        toolchain = Toolchain(events=events, qemu_source=tools.qemu_source)
        injection = injection_of(tools.fault)
        if order.coverage:
            qemus = [_counting(toolchain, tools.source_qemu)] * 2
            place = str(qemus[0].path)
            tools = replace(tools, source_qemu=place, destination_qemu=place)
        else:
            qemus = _qemus(toolchain, tools, injection.qemu_flavour)
        space = DrawSpace(possible_arms(qemus), tuple(order.only))
        kernel = toolchain.kernel(tools.kernel or "default")
        made = [toolchain.image(kernel, variant).sha256 for variant in ("shipped", "test")]
        lines = None
        if order.coverage:
            with events.step("lines", text="the lines that QEMU has"):
                kept = folder.path / f"lines-{qemus[0].sha256[:12]}.json"
                lines = ReachedLines(notes_of(qemus[0]), kept)
    identity = key_of(
        qemus=[qemu.identity for qemu in qemus], kernel=kernel.digest, images=made, fault=tools.fault or ""
    )
    label = " -> ".join(dict.fromkeys(f"{qemu.path.name} {qemu.version}" for qemu in qemus))
    # What was built is not the hunt's time.
    deadline = time.monotonic() + 60 * order.minutes
    runner = Runner(folder, [*tools.options(), *options, *_LIMITS], deadline, lines)
    hunt = Hunt(
        folder,
        space,
        runner,
        identity,
        seed=order.seed,
        jobs=order.jobs,
        label=label,
        until_found=order.until_found,
        say=print_error,
    )
    with polite_signals():
        report = hunt.go()
    if lines is not None:
        report = replace(report, code=lines.report())
    write_hunt_page(report, folder.path)
    return status_of(report), report


def demand_countable(tools: Tools) -> None:
    """Raise :class:`InputError` if which lines these QEMUs reach cannot be counted, as far as names say."""
    if shutil.which("gcov", path=search_path()) is None:
        raise InputError("--coverage: there is no program gcov, which reads the counters", hint=_GCOV)
    if tools.fault is not None:
        raise InputError("--coverage has nothing to say beside --fault: that is a test of the hunt itself")
    if tools.source_qemu != tools.destination_qemu:
        raise InputError("--coverage takes one QEMU for both sides", hint="name it with --qemu")
    name = tools.source_qemu
    if name is not None and file_of(name) is None and name not in FLAVOURS:
        raise InputError(
            f"--coverage: {name} is not built here, and counts no lines",
            hint=f"leave --qemu out, or name {', '.join(FLAVOURS)}, or a QEMU built with {OPTION}",
        )


def _counting(toolchain: Toolchain, name: str | None) -> QemuBinary:
    """The QEMU that counts its lines: one of ours built so, or the one that was named."""
    if name is None or name in FLAVOURS:
        return toolchain.qemu(name or PATCHED, variant=COUNTED)
    found = toolchain.named_qemu(name)
    notes_of(found)
    return found


def demand_keys(only: Sequence[str]) -> None:
    """Raise :class:`InputError` for a key of ``--only`` that is none, or that no hunt draws."""
    drawn = {key.key for key in language.setting_keys()} | {"workload", "guest.devices", "moves", "script"}
    sections = {key.rpartition(".")[0] for key in drawn} | {key.partition(".")[0] for key in drawn}
    left = language.not_drawn()
    for key in only:
        if key in drawn or key in sections - {""}:
            continue
        if key in left:
            raise InputError(f"--only {key}: it is not drawn: {left[key]}")
        raise InputError(
            f"--only {key}: there is no such key",
            hint=f"{did_you_mean(key, sorted(drawn))}there are {', '.join(sorted(drawn))}",
        )


def _qemus(toolchain: Toolchain, tools: Tools, flavour: str) -> list[QemuBinary]:
    named = [tools.source_qemu, tools.destination_qemu]
    return [toolchain.named_qemu(name) if name else toolchain.qemu(flavour) for name in named]


def possible_arms(qemus: Sequence[QemuBinary]) -> tuple[str, ...]:
    """The arms in which all of these QEMUs can take part."""
    found = []
    for arm in _ARMS:
        try:
            for qemu in qemus:
                qemu.require_arm(arm)
        except InputError:
            continue
        found.append(arm)
    return tuple(found)


def status_of(report: HuntReport) -> int:
    """1: something was found that is not known; 3: the machinery ended the hunt; 0: nothing."""
    if report.found:
        return ExitCode.FAIL
    return ExitCode.ERROR if report.broken else ExitCode.PASS


def summarise_hunt(report: HuntReport) -> list[str]:
    """The report for people."""
    words = ", ".join(f"{count} {word}" for word, count in sorted(report.words.items())) or "none"
    coverage = report.coverage
    lines = [
        f"seed {report.seed}, {report.qemu}: {report.ended}",
        f"runs: {report.runs} ({words})",
        f"keys met: {coverage.keys_met} of {coverage.keys}; "
        f"pairs of keys: {coverage.pairs_met} of {coverage.pairs}",
    ]
    if coverage.never:
        lines.append(f"never drawn: {', '.join(coverage.never)}")
    for title, counted in (("known", report.known), ("refused", report.refused), ("error", report.errors)):
        lines += [f"{title}, {count} times: {what}" for what, count in sorted(counted.items())]
    for one in report.once:
        lines.append(f"came once, and not again: {one.signature}: {one.file}")
    for one in report.found:
        size = "every part of it is needed" if one.smallest else "it may not be the smallest"
        lines.append(f"found: {one.signature}: {one.file} ({size}; it came {one.repeats})")
    lines.append(f"found {len(report.found)} that are not known")
    if report.code is not None:
        lines += _code_lines(report.code)
    return lines


def _code_lines(code: CodeReport) -> Iterator[str]:
    trouble = f" ({code.trouble})" if code.trouble else ""
    yield f"lines of QEMU: the counters of {code.runs} runs; {code.without} left none{trouble}"
    for name, part in code.parts().items():
        percent = 100 * part.reached / part.lines
        yield f"  {name}/: {part.reached} of {part.lines} lines reached ({percent:.1f} %)"
    never = sorted(code.never("migration"), key=lambda one: -one.lines)
    for one in never[:_NAMED]:
        yield f"  no run was in {one.function}() ({one.file}:{one.line}, {one.lines} lines)"
    if len(never) > _NAMED:
        yield f"  nor in {len(never) - _NAMED} more functions of migration/; all of them: hunt.html"
