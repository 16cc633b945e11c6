# SPDX-License-Identifier: GPL-2.0-or-later
"""The mounts of a lab: what its processes see that nobody else does.

Everything that a run makes and does not keep is in :data:`ROOM`, in memory, in
a mount of the run's own.  The path is the same in every lab; what is behind it
is not, and outside a lab it does not exist.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from harness.hosts import kernel
from harness.hosts.kernel import Mount

_RUN: Final = Path("/run")
_SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - replaced by a private one

#: The lab's private folder.
ROOM: Final = _RUN / "freepage"


def furnish(keep: Iterable[Path]) -> None:
    """Make the mounts of a lab in the calling process's new mount namespace.

    ``keep``: paths that stay visible although they are below one of the folders
    that become private; a run folder in memory would otherwise be lost.
    """
    kernel.make_mounts_private()
    plain = Mount.NOSUID | Mount.NODEV
    kernel.mount("proc", "/proc", "proc", plain | Mount.NOEXEC)
    # Not everywhere: a container may hide parts of /sys, and then the kernel refuses another
    # one.  What libvirt wants from it is in the hosts' own mounts, which say so if they fail.
    with contextlib.suppress(PermissionError):
        kernel.mount("sysfs", "/sys", "sysfs", plain | Mount.NOEXEC)
    keep = tuple(keep)
    private = [(_RUN, "mode=0755")]
    if _SHARED_MEMORY.is_dir() and _SHARED_MEMORY not in keep:
        private.append((_SHARED_MEMORY, "mode=1777"))
    hidden = [
        (path, os.open(path, os.O_PATH | os.O_CLOEXEC))
        for path in keep
        if path.exists() and any(path.is_relative_to(top) and path != top for top, _ in private)
    ]
    for top, mode in private:
        kernel.mount(top.name, top, "tmpfs", plain, mode)
    for path, descriptor in hidden:
        _put_back(path, descriptor)
    for folder in (ROOM, ROOM / "tmp"):
        folder.mkdir(mode=0o700)


def _put_back(path: Path, descriptor: int) -> None:
    """Mount what ``descriptor`` is open on at its old path again."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        seen = Path(f"/proc/self/fd/{descriptor}")
        if seen.is_dir():
            path.mkdir()
        else:
            path.touch()
        kernel.bind(seen, path)
    os.close(descriptor)
