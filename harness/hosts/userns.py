# SPDX-License-Identifier: GPL-2.0-or-later
"""The user namespace of an ordinary user's lab: nobody in it but the user.

In a namespace of its own a process may make mounts and links whoever it is; the
ids need not change.  So the user stays the user, which takes neither
subordinate ids nor the programs that map them, keeps supplementary groups (the
one that may open /dev/kvm, say), and leaves files in the run folder that belong
to whoever started the run.  libvirt runs as it does in a desktop session.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from harness.hosts import kernel
from harness.hosts.kernel import Namespace

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


def restriction(settings: Path = Path("/proc/sys")) -> str | None:
    """How to lift what on this machine forbids user namespaces to ordinary users; None if nothing does."""
    for name, forbids, advice in _SWITCHES:
        try:
            value = (settings / name.replace(".", "/")).read_text().strip()
        except OSError:
            continue  # this kernel has no such restriction
        if value == forbids:
            return advice
    return None


def leave_for_own() -> None:
    """Move this process (of one thread) into a user namespace of its own, as the same user and group."""
    uid, gid = os.geteuid(), os.getegid()
    kernel.unshare(Namespace.USER)
    # Without helpers the kernel accepts a map of one's own ids only, and of the group
    # only when the groups that one is in can no longer be changed.
    _write("setgroups", "deny")
    _write("uid_map", f"{uid} {uid} 1")
    _write("gid_map", f"{gid} {gid} 1")


def _write(name: str, text: str) -> None:
    path = Path("/proc/self", name)
    # At once and unbuffered: each file takes one write.
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        os.close(descriptor)
