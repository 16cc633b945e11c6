# SPDX-License-Identifier: GPL-2.0-or-later
"""How fast the ways to run a guest are here.  Each is tried once, in bounded time, and the answer kept.

What is measured is the time to a guest kernel's first line: for ``tcg`` from
QEMU's start, for ``nested`` from the start of the machine around it.  The answer
holds until this host boots again.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from harness import accel
from harness.accel import hardware_nesting
from harness.doctor.finding import Diagnosis, Level
from harness.errors import FreepageError
from harness.events import EventStream
from harness.toolchain.built import built_machine
from harness.toolchain.cache import Cache, key_of

#: Emulated, on slow cores, with everybody else at work.
TCG_SECONDS: Final = 60.0
NESTED_SECONDS: Final = 180.0

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


def ways(cache: Cache, events: EventStream, *, measure: bool) -> Iterator[Diagnosis]:
    """Two findings: how fast emulation is, and how fast a nested machine boots."""
    machine = built_machine(cache)
    if machine is None:
        text = "{} is not known until there is something to try it with"
        yield Diagnosis(
            "tcg", Level.NOTE, text.format("how fast emulation is"), "freepage build, then ask again"
        )
        yield Diagnosis("nested", Level.NOTE, text.format("how fast a nested machine is"), None)
        return
    yield _tcg(machine, cache, events, measure=measure)
    yield _nested(machine, cache, events, measure=measure)


def _tcg(machine: accel.ProbeMachine, cache: Cache, events: EventStream, *, measure: bool) -> Diagnosis:
    fact = _fact("tcg", machine)
    found = _recall(cache, fact)
    if found is None and measure:
        with events.step("probe-tcg", limit_s=TCG_SECONDS) as step:
            found = accel.boots(machine, TCG_SECONDS, "tcg")
            step.note(usable=found.usable, reason=found.reason)
        _remember(cache, fact, found)
    if found is None:
        return Diagnosis("tcg", Level.OK, "guests can be emulated; how fast, --probe measures")
    return Diagnosis("tcg", Level.OK if found.usable else Level.NOTE, found.reason, seconds=found.seconds)


def _nested(machine: accel.ProbeMachine, cache: Cache, events: EventStream, *, measure: bool) -> Diagnosis:
    from harness.nested.parts import machine_parts

    offered = hardware_nesting()
    chain = "kvm-in-kvm, if this host's KVM runs guests" if offered else "kvm-in-tcg"
    fact = _fact("nested", machine)
    found = _recall(cache, fact)
    if found is None and measure:
        try:
            machine_parts(cache)
            found = _try(events)
        except FreepageError as error:
            # Of a lost machine the first line says enough here.
            return Diagnosis("nested", Level.NOTE, error.message, error.hint)
        _remember(cache, fact, found)
    if found is None:
        return Diagnosis("nested", Level.OK, f"freepage run --nested: {chain}; how fast, --probe measures")
    return Diagnosis("nested", Level.OK if found.usable else Level.NOTE, found.reason, seconds=found.seconds)


def _try(events: EventStream) -> accel.KvmProbe:
    """Boot a machine, and a guest kernel under the KVM in it."""
    from harness.nested.commands import nested, nested_environment

    began = time.monotonic()
    said = bytearray()
    with nested(events, memory=256 << 20, writable=(), boot_seconds=NESTED_SECONDS) as machine:
        booted = time.monotonic() - began
        with events.step("probe-kvm-inside"):
            machine.run(["probe"], cwd=Path("/"), env=nested_environment(), out=said.extend)
        chain = machine.spec.chain
    took = time.monotonic() - began
    answer = accel.KvmProbe(**json.loads(said.decode() or "{}"))
    reason = f"{chain}: a machine boots in {booted:.1f} s; inside, {answer.reason}"
    return accel.KvmProbe(answer.usable, reason, round(took, 2) if answer.usable else None)


def _fact(name: str, machine: accel.ProbeMachine) -> str:
    boot = _BOOT_ID.read_text(encoding="ascii").strip() if _BOOT_ID.exists() else ""
    return f"{name}-speed-" + key_of(boot=boot, qemu=machine.qemu_sha256, kernel=str(machine.vmlinuz))


def _recall(cache: Cache, fact: str) -> accel.KvmProbe | None:
    known = cache.recall(fact)
    if isinstance(known, dict):
        with contextlib.suppress(TypeError):
            return accel.KvmProbe(**known)
    return None


def _remember(cache: Cache, fact: str, found: accel.KvmProbe) -> None:
    value = {"usable": found.usable, "reason": found.reason, "seconds": found.seconds}
    with contextlib.suppress(FreepageError, OSError):
        cache.remember(fact, value)
