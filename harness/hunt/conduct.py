# SPDX-License-Identifier: GPL-2.0-or-later
"""``freepage hunt``: what is wrong said first, what is needed built, the hunt, and what is said of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
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
from harness.hunt.running import Runner
from harness.plan.plan import Tools
from harness.scenario.problems import did_you_mean
from harness.terminal import TerminalProgress, print_error
from harness.toolchain import QemuBinary, Toolchain
from harness.toolchain.cache import key_of

#: Arms, the simplest first, as Hypothesis makes scenarios simpler.
_ARMS: Final = ("off", "hint", "info")
#: A small guest that has not moved by then moves too slowly for the hunt.
_LIMITS: Final = ("--set", "migration.timeout_s=100")


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
) -> tuple[int, HuntReport]:
    """Hunt; the exit status and the report.  ``options`` go to each ``freepage run``."""
    demand_keys(only)
    folder = HuntFolder(out)
    try:
        with FileLock(folder.path / "lock", timeout=0):
            return _hunt(
                folder,
                tools,
                options,
                minutes=minutes,
                seed=seed,
                only=only,
                jobs=jobs,
                until_found=until_found,
            )
    except Timeout:
        raise InputError(
            f"another hunt is at work in {folder.path}", hint="give --out a folder of its own"
        ) from None


def _hunt(
    folder: HuntFolder,
    tools: Tools,
    options: Sequence[str],
    *,
    minutes: float,
    seed: int,
    only: Sequence[str],
    jobs: int,
    until_found: bool,
) -> tuple[int, HuntReport]:
    events = EventStream()
    with TerminalProgress(events):
        toolchain = Toolchain(events=events, qemu_source=tools.qemu_source)
        injection = injection_of(tools.fault)
        qemus = _qemus(toolchain, tools, injection.qemu_flavour)
        space = DrawSpace(possible_arms(qemus), tuple(only))
        kernel = toolchain.kernel(tools.kernel or "default")
        made = [toolchain.image(kernel, variant).sha256 for variant in ("shipped", "test")]
    identity = key_of(
        qemus=[qemu.identity for qemu in qemus], kernel=kernel.digest, images=made, fault=tools.fault or ""
    )
    label = " -> ".join(dict.fromkeys(f"{qemu.path.name} {qemu.version}" for qemu in qemus))
    # What was built is not the hunt's time.
    runner = Runner(folder, [*options, *_LIMITS], time.monotonic() + 60 * minutes)
    hunt = Hunt(
        folder,
        space,
        runner,
        identity,
        seed=seed,
        jobs=jobs,
        label=label,
        until_found=until_found,
        say=print_error,
    )
    with polite_signals():
        report = hunt.go()
    return status_of(report), report


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
    return lines
