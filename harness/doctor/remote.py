# SPDX-License-Identifier: GPL-2.0-or-later
"""Machines of the user's own: whether there is ssh to reach them, and whether those that are named will do.

Nothing is started or written over there.  What is measured takes a few seconds at most.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from harness.doctor.finding import Diagnosis, Level
from harness.errors import FreepageError
from harness.events import EventStream
from harness.scenario.remote import RemoteSide
from harness.toolchain.run import search_path
from harness.toolchain.system_packages import how_to_install
from harness.units import PAGE_SIZE, format_size

if TYPE_CHECKING:
    from harness.hosts.remote_host import RemoteHost

_MIB: Final = 1 << 20
#: Of a transfer, to see how fast it is: it ends at the first of these.
_MOST_SECONDS: Final = 2.0
_MOST_BYTES: Final = 4 * _MIB
_CALLS: Final = 5
#: Pages whose digests are made, to see how long the oracle looks at memory.
_PAGES: Final = 4096

#: A file of some megabytes that every machine has: the Python that runs there.
_SOME_FILE: Final = "/proc/self/exe"


def ssh_client(*, measure: bool) -> Diagnosis:
    """Whether two machines of the user's own could be reached at all."""
    found = shutil.which("ssh", path=search_path())
    if found is None:
        return Diagnosis(
            "remote",
            Level.NOTE,
            "there is no ssh: no run between machines of yours",
            how_to_install("openssh-client"),
        )
    said = subprocess.run([found, "-V"], capture_output=True, text=True, timeout=20, check=False)
    if said.returncode != 0:
        text = f"ssh does not run for this user: {said.stderr.strip()}"
        return Diagnosis("remote", Level.NOTE, text, "no run between machines of yours until it does")
    text = f"{said.stderr.split(',')[0].strip()}: freepage run --source qemu+ssh://... --destination qemu+ssh://..."
    if measure:
        text += f"; a CPU like ours looks at 1 GiB of memory in {_look_seconds():.1f} s"
    return Diagnosis("remote", Level.OK, text, "freepage doctor --source URI tries one of them")


def _look_seconds() -> float:
    """Seconds for the digests of 1 GiB that is full, as a deputy makes them."""
    pages = [number.to_bytes(4, "little") * (PAGE_SIZE // 4) for number in range(_PAGES)]
    key, began = secrets.token_bytes(32), time.monotonic()
    for page in pages:
        hashlib.blake2b(page, digest_size=16, key=key).digest()
    return (time.monotonic() - began) * (1 << 30) / (_PAGES * PAGE_SIZE)


def machines(uris: Mapping[str, str], ssh_config: Path | None, events: EventStream) -> Iterator[Diagnosis]:
    """A finding for each machine that is named."""
    for name, uri in uris.items():
        try:
            with _connected(name, uri, ssh_config, events) as host:
                yield Diagnosis(name, Level.OK, _describe(host) + _speed(host))
        except FreepageError as error:
            yield Diagnosis(name, Level.MISSING, error.message, error.hint)


@contextlib.contextmanager
def _connected(name: str, uri: str, ssh_config: Path | None, events: EventStream) -> Iterator[RemoteHost]:
    from harness.hosts.remote import connect_host
    from harness.hosts.remote_memory import LookContext

    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fp-")))
        config = None if ssh_config is None else ssh_config.absolute()
        with events.step("connect", host=name, to=uri):
            host = connect_host(
                name, RemoteSide(uri=uri), config, folder, LookContext(secrets.token_bytes(32)), events, stack
            )
        yield host


def _describe(host: RemoteHost) -> str:
    facts = host.facts
    kvm = facts.kvm or "/dev/kvm opens"
    memory = format_size(facts.memory_available // _MIB * _MIB)
    return (
        f"{host.remote.place}: {facts.node}, kernel {facts.kernel}, libvirt {host.libvirt_version}, "
        f"Python {facts.python}, {facts.cpus} CPUs, {memory} available; {kvm}"
    )


def _speed(host: RemoteHost) -> str:
    times = []
    for _ in range(_CALLS):
        began = time.monotonic()
        host.deputy.call("memory")
        times.append(time.monotonic() - began)
    moved, began = 0, time.monotonic()
    offset = 0
    while moved < _MOST_BYTES and time.monotonic() - began < _MOST_SECONDS:
        header, data = host.deputy.call("fetch", path=_SOME_FILE, offset=offset)
        moved += len(data)
        length = header.get("bytes")
        offset = offset + length if isinstance(length, int) and length else 0
    rate = moved / _MIB / (time.monotonic() - began)
    return f"; answers in {min(times) * 1000:.1f} ms, sends {rate:.1f} MiB/s"
