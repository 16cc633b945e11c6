# SPDX-License-Identifier: GPL-2.0-or-later
"""The checks.  Each asks the part of the harness that will need the thing, not a copy of its rules."""

from __future__ import annotations

import contextlib
import grp
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from harness import accel
from harness.doctor.finding import Diagnosis, Level
from harness.errors import MachineryError
from harness.events import EventStream
from harness.toolchain.built import BUILT_PARTS, built_parts, damaged_parts, machine_of
from harness.toolchain.cache import Cache
from harness.toolchain.run import FOR_WHAT, PACKAGES, lacking_programs
from harness.toolchain.system_packages import how_to_install
from harness.units import format_size

GIB: Final = 1 << 30

#: Two guests of 1 GiB, two QEMUs, two daemons.
MEMORY_WANTED: Final = 3 * GIB
#: A QEMU source tree with its build, a kernel with its headers.
DISK_TO_BUILD: Final = 6 * GIB


def examine(
    events: EventStream,
    cache: Cache | None = None,
    *,
    measure: bool = False,
    uris: Mapping[str, str] | None = None,
    ssh_config: Path | None = None,
) -> tuple[Diagnosis, ...]:
    """Look at everything; ``uris``: machines of the user's own, by the side that they are to be.

    With ``measure``, a guest is booted in each way that there is here, once, to see how fast it is;
    without, it takes a second or two.
    """
    cache = cache or Cache(None, events)
    built = built_parts(cache)
    from harness.doctor import remote, speed

    checks: tuple[Callable[[], Iterable[Diagnosis]], ...] = (
        lambda: [_kvm(cache, built, events, measure=measure), *speed.ways(cache, events, measure=measure)],
        lambda: [
            remote.ssh_client(measure=measure),
            *remote.machines(uris or {}, ssh_config, events),
        ],
        lambda: [_libvirt(), _namespaces(), _subordinate_ids(), _tun()],
        lambda: [_memory(), _disk(cache, built)],
        lambda: [_programs(built), *_parts(built)],
    )
    return tuple(finding for check in checks for finding in check())


def possible(findings: Iterable[Diagnosis]) -> bool:
    """Whether a run is possible."""
    return all(finding.level is not Level.MISSING for finding in findings)


def _kvm(cache: Cache, built: dict[str, list[Path]], events: EventStream, *, measure: bool) -> Diagnosis:
    """Usable, not just present: a guest kernel has to say something under it."""
    slower = "guests are emulated (TCG), some ten times slower"
    problem = accel.device_problem()
    if problem is not None:
        advice = None
        if accel.KVM_DEVICE.exists() and not os.access(accel.KVM_DEVICE, os.R_OK | os.W_OK):
            advice = _how_to_open(accel.KVM_DEVICE)
        return Diagnosis("kvm", Level.NOTE, f"{problem}; {slower}", advice)
    machine = machine_of(built)
    if machine is None:
        return Diagnosis(
            "kvm",
            Level.NOTE,
            f"{accel.KVM_DEVICE} answers; "
            "whether it runs guests is not known until there is one to try it with",
            "freepage build, then ask again",
        )
    if measure:
        answer = accel.probe_kvm(machine, cache, events)
    else:
        known = accel.known_kvm(machine, cache)
        if known is None:
            text = f"{accel.KVM_DEVICE} answers; whether it runs guests is not known yet"
            return Diagnosis(
                "kvm", Level.NOTE, text, "freepage doctor --probe tries it; so does the first run"
            )
        answer = known
    if answer.usable:
        return Diagnosis("kvm", Level.OK, answer.reason, seconds=answer.seconds)
    return Diagnosis("kvm", Level.NOTE, f"present and not usable ({answer.reason}); {slower}")


def _how_to_open(device: Path) -> str:
    """What an administrator does, so that a user may open a device: by its group, if that may."""
    about = device.stat()
    with contextlib.suppress(KeyError):
        group = grp.getgrgid(about.st_gid).gr_name
        if about.st_gid and about.st_mode & 0o060 == 0o060:
            return f"sudo usermod --append --groups {group} $USER, and log in again"
    return f"sudo setfacl --modify user:$USER:rw {device}"


def _libvirt() -> Diagnosis:
    from harness.hosts.libvirtd import find_libvirt, libvirt_version

    try:
        program = find_libvirt()
        version = libvirt_version()
    except (MachineryError, ImportError) as error:
        hint = error.hint if isinstance(error, MachineryError) else "install libvirt's Python binding"
        return Diagnosis("libvirt", Level.MISSING, str(error), hint)
    return Diagnosis("libvirt", Level.OK, f"{program.path}, library {version}")


def _namespaces() -> Diagnosis:
    """Make a lab's namespaces: only that says exactly what is allowed here."""
    from harness.hosts.enter import enter

    try:
        status = enter(lambda: 0)
    except MachineryError as error:
        return Diagnosis("namespaces", Level.MISSING, error.message, error.hint)
    if status != 0:
        return Diagnosis("namespaces", Level.MISSING, f"a process in a lab ended with status {status}")
    return Diagnosis("namespaces", Level.OK, "PID, mount, network, UTS and IPC namespaces can be made")


def _subordinate_ids() -> Diagnosis:
    """Users often ask whether subordinate ids are needed, so the doctor says: a lab needs none."""
    return Diagnosis("subuids", Level.OK, "not needed: a lab maps no ids but the user's own")


def _tun() -> Diagnosis:
    from harness.hosts.netns import can_open_tun

    if can_open_tun():
        return Diagnosis("tun", Level.OK, "/dev/net/tun opens: the guest's NIC is a tap")
    text = "/dev/net/tun does not open: the guest's frames go through a relay, which is slower"
    return Diagnosis("tun", Level.NOTE, text, "load the module tun, or allow this user to open the device")


def _memory() -> Diagnosis:
    from harness.hosts.this_machine import memory_available

    available = memory_available()
    text = f"{format_size(available // GIB * GIB or available)} available"
    if available < MEMORY_WANTED:
        return Diagnosis("memory", Level.NOTE, text, "use smaller guests: --memory 512MiB")
    return Diagnosis("memory", Level.OK, text)


def _disk(cache: Cache, built: dict[str, list[Path]]) -> Diagnosis:
    place = next(path for path in (cache.root, *cache.root.parents) if path.exists())
    free = shutil.disk_usage(place).free
    text = f"{free // GIB} GiB free for the cache {cache.root}"
    if free < (1 if built["qemu"] else 6) * GIB:
        return Diagnosis(
            "disk", Level.NOTE if built["qemu"] else Level.MISSING, text, "make room, or set FREEPAGE_CACHE"
        )
    return Diagnosis("disk", Level.OK, text)


def _programs(built: dict[str, list[Path]]) -> Diagnosis:
    lacking = lacking_programs()
    if not lacking:
        return Diagnosis("build tools", Level.OK, "all there")
    packages = sorted({PACKAGES[name] for name in lacking})
    needed = any(name not in FOR_WHAT for name in lacking) and not all(built.values())
    said = (f"{name} (for {FOR_WHAT[name]})" if name in FOR_WHAT else name for name in lacking)
    level = Level.MISSING if needed else Level.NOTE
    return Diagnosis("build tools", level, f"missing: {', '.join(said)}", how_to_install(*packages))


def _parts(built: dict[str, list[Path]]) -> Iterable[Diagnosis]:
    damaged = damaged_parts(built)
    for kind in BUILT_PARTS:
        if kind in damaged:
            text = f"{len(damaged[kind])} of {len(built[kind])} in the cache are damaged: {damaged[kind][0]}"
            advice = "who needs it makes it anew; freepage cache verify --repair takes it away"
            yield Diagnosis(kind, Level.NOTE, text, advice)
        elif not built[kind]:
            yield Diagnosis(kind, Level.NOTE, "not built yet: the first run builds it", "freepage build")
        else:
            yield Diagnosis(kind, Level.OK, f"{len(built[kind])} in the cache{_detail(built[kind][-1])}")


def _detail(entry: Path) -> str:
    """What the newest entry is, where it says so."""
    try:
        made_of = json.loads((entry / "made-of.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    patches = len(made_of.get("patches", ()))
    return f", the newest {made_of.get('source')} with {patches} patches"
