# SPDX-License-Identifier: GPL-2.0-or-later
"""Keeps what libvirt has learnt about QEMU binaries from one run to the next.

libvirt asks a new binary about itself for some seconds, once, and keeps the
answers in files, one a binary.  Each daemon of a lab gets copies, since it writes
them in place: two daemons in one folder could read each other's half-written
files.  What is new is put back whole, by one link, so that neither another run
nor a SIGKILL ever sees or leaves half of one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

from harness.toolchain.cache import cache_root

_PATTERN: Final = "*.xml"


def capability_cache() -> Path:
    """The folder that is kept, in the user's cache.

    libvirt discards what it learnt under another kernel, or with KVM when there is
    none, and the other way round, so each has a folder of its own.
    """
    kvm = "kvm" if os.access("/dev/kvm", os.R_OK | os.W_OK) else "no-kvm"
    return cache_root() / "libvirt" / f"{kvm}-{os.uname().release}"


def load_capabilities(kept: Path, private: Path) -> None:
    """Give a daemon its copies."""
    private.mkdir(parents=True, exist_ok=True)
    for file in kept.glob(_PATTERN):
        # Gone meanwhile: another run puts a newer one there.
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(file, private / file.name)


def save(private: Path, kept: Path) -> None:
    """Keep what a daemon has learnt that is not there yet, or that differs.

    A cache that cannot be written costs the next run some seconds, and this one nothing.
    """
    with contextlib.suppress(OSError):
        _save(private, kept)


def _save(private: Path, kept: Path) -> None:
    for file in private.glob(_PATTERN):
        content = file.read_bytes()
        target = kept / file.name
        try:
            if target.read_bytes() == content:
                continue
        except FileNotFoundError:
            pass
        if content.rstrip().endswith(b"</qemuCaps>"):
            kept.mkdir(parents=True, exist_ok=True)
            _link_whole(content, target)


def _link_whole(content: bytes, target: Path) -> None:
    """Make ``target`` appear with its content, from a file that has no name until then."""
    try:
        descriptor = os.open(target.parent, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR):
            raise
        _rename_whole(content, target)
        return
    try:
        os.write(descriptor, content)
        target.unlink(missing_ok=True)
        # Another run was faster: it has learnt the same.
        with contextlib.suppress(FileExistsError):
            # With a dir_fd Python calls linkat(AT_SYMLINK_FOLLOW); without, it would link the symlink.
            os.link(f"/proc/self/fd/{descriptor}", target, src_dir_fd=descriptor, follow_symlinks=True)
    finally:
        os.close(descriptor)


def _rename_whole(content: bytes, target: Path) -> None:
    """As :func:`_link_whole`, where every file has a name (9p): a SIGKILL may leave a hidden file."""
    descriptor, draft = tempfile.mkstemp(prefix=".", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        Path(draft).replace(target)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
