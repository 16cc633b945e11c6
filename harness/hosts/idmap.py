# SPDX-License-Identifier: GPL-2.0-or-later
"""User and group ids of a user namespace: the user is root in there, and has more ids beside.

One mapped id would be enough to make namespaces, but libvirt sets supplementary
groups for each QEMU, which needs a map made by ``newgidmap``.  Root maps to the
user: what the run writes outside the lab belongs to whoever started it.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.errors import MachineryError

SUBUID: Final = Path("/etc/subuid")
SUBGID: Final = Path("/etc/subgid")

#: Restrictions on user namespaces that distributions ship: file, value that forbids, what to do.
_SWITCHES: Final = (
    (
        "kernel.apparmor_restrict_unprivileged_userns",
        "1",
        "AppArmor allows user namespaces to named programs only; allow them to all with "
        "'sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0', or run as root",
    ),
    (
        "kernel.unprivileged_userns_clone",
        "0",
        "allow user namespaces with 'sudo sysctl -w kernel.unprivileged_userns_clone=1', or run as root",
    ),
    (
        "user.max_user_namespaces",
        "0",
        "allow user namespaces with 'sudo sysctl -w user.max_user_namespaces=15000', or run as root",
    ),
)


@dataclass(frozen=True, slots=True)
class IdRange:
    """``count`` ids from ``inside`` on, which are those from ``outside`` on outside."""

    inside: int
    outside: int
    count: int


def subordinate_ids(lines: Iterable[str], name: str, uid: int) -> tuple[tuple[int, int], ...]:
    """The (start, count) ranges that a subuid or subgid file gives to a user, by name or number."""
    found: list[tuple[int, int]] = []
    for line in lines:
        fields = line.strip().split(":")
        if len(fields) != 3 or fields[0] not in (name, str(uid)):
            continue
        if fields[1].isdecimal() and fields[2].isdecimal() and int(fields[2]) > 0:
            found.append((int(fields[1]), int(fields[2])))
    return tuple(found)


def id_map(own: int, ranges: Sequence[tuple[int, int]]) -> tuple[IdRange, ...]:
    """Root is ``own``; the subordinate ids follow from 1 on."""
    result = [IdRange(0, own, 1)]
    inside = 1
    for start, count in ranges:
        result.append(IdRange(inside, start, count))
        inside += count
    return tuple(result)


def restriction() -> str | None:
    """What on this machine forbids user namespaces to an ordinary user, and how to allow them."""
    for name, forbids, advice in _SWITCHES:
        try:
            value = Path("/proc/sys", name.replace(".", "/")).read_text().strip()
        except OSError:
            continue  # this kernel has no such restriction
        if value == forbids:
            return advice
    return None


@dataclass(frozen=True, slots=True)
class IdMaps:
    """The two maps of a user namespace, and the programs that may write them."""

    uids: tuple[IdRange, ...]
    gids: tuple[IdRange, ...]

    @classmethod
    def of_this_user(cls) -> IdMaps:
        """From the user's subordinate ids; an error with a next step where there are none."""
        uid, gid = os.getuid(), os.getgid()
        try:
            name = pwd.getpwuid(uid).pw_name
        except KeyError:
            name = str(uid)
        for program in ("newuidmap", "newgidmap"):
            if shutil.which(program) is None:
                raise MachineryError(
                    f"{program} is missing: a lab of an ordinary user needs it",
                    hint="install the package uidmap, or run as root",
                )
        ranges = []
        for path in (SUBUID, SUBGID):
            try:
                lines = path.read_text().splitlines()
            except OSError:
                lines = []
            found = subordinate_ids(lines, name, uid)
            if not found:
                raise MachineryError(
                    f"user {name} has no subordinate ids in {path}",
                    hint=f"sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name}"
                    " (or a range that nobody else has), or run as root",
                )
            ranges.append(found)
        return cls(id_map(uid, ranges[0]), id_map(gid, ranges[1]))

    def write(self, pid: int) -> None:
        """Give both maps to the user namespace of ``pid``, a child of this process."""
        for program, ranges in (("newuidmap", self.uids), ("newgidmap", self.gids)):
            numbers = [str(n) for r in ranges for n in (r.inside, r.outside, r.count)]
            done = subprocess.run(
                [program, str(pid), *numbers], capture_output=True, text=True, check=False, timeout=30
            )
            if done.returncode != 0:
                raise MachineryError(
                    f"{program} failed: {done.stderr.strip() or f'exit status {done.returncode}'}",
                    hint=restriction() or "look at /etc/subuid and /etc/subgid, or run as root",
                )
