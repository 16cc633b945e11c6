# SPDX-License-Identifier: GPL-2.0-or-later
"""The state of every device, asked of both QEMUs at switch-over.

QMP's ``xen-save-devices-state`` writes what a migration would send of the
devices, without memory, into a file.  It needs no Xen, and every QEMU has it
that was built with a migration at all.  Both guests stand still, so that it
changes nothing.

Where the two differ, the destination is asked for its own description of the
fields: it migrates, with its memory left out, into a socket of ours.  That
happens only in a run that has found a difference.

    source = save(monitor, path, path.read_bytes)       # while the source's QEMU lives
    ...
    destination = save(other, path, path.read_bytes)
    result = compare_states(source, destination, lambda: describe(other, place, place), "tcg")
"""

from __future__ import annotations

import contextlib
import functools
import socket
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from harness.devicestate.acted import ActedUpon, changed_sides, explain_by_acts
from harness.devicestate.compare import Comparison, compare_sections
from harness.devicestate.fields import KNOWN_PLACES
from harness.devicestate.registers import compare_registers, count_vcpus_shown
from harness.devicestate.sections import MOST_BYTES, Section, read_description, read_sections
from harness.errors import FreepageError, MachineryError
from harness.migration.cleanup import await_cleanup
from harness.migration.qmp import CommandError, QemuGone

if TYPE_CHECKING:
    from harness.migration.qmp import Monitor

#: For a destination that writes its devices' state, and the blocks that are in no file, into a socket.
_DESCRIBE_SECONDS: Final = 30.0
_CHUNK: Final = 1 << 16
#: The section of hw/i386/kvm/clock.c.
_KVMCLOCK: Final = "kvmclock"
#: What keeps memory out of a stream: it is in files that others could map.
_WITHOUT_MEMORY: Final = "x-ignore-shared"


@dataclass(frozen=True, slots=True)
class SavedState:
    """One side's devices; ``missing`` says why there are none.

    ``version``: of the QEMU.  ``registers``: of its vCPUs, by HMP.
    """

    sections: tuple[Section, ...] = ()
    missing: str | None = None
    version: str = ""
    registers: str = ""

    @property
    def has_kvmclock(self) -> bool:
        """Whether the guest has a clock that QEMU takes from KVM as it saves it."""
        return any(section.device == _KVMCLOCK for section in self.sections)


#: Nobody has told either QEMU anything.
UNTOUCHED: Final = ActedUpon()
NOT_SAVED: Final = SavedState(missing="the migration came to no switch-over")


def save(monitor: Monitor, seen_by_qemu: Path, fetch: Callable[[], bytes]) -> SavedState:
    """Have a QEMU that stands still save its devices.

    ``seen_by_qemu`` is a file that it may make; ``fetch`` reads that file.
    """
    try:
        version = qemu_version(monitor.execute("query-version"))
        monitor.execute("xen-save-devices-state", {"filename": str(seen_by_qemu), "live": False})
    except CommandError as error:
        return SavedState(missing=error.message)
    except QemuGone as error:
        return SavedState(missing=f"it has ended: {error}")
    saved = SavedState(read_sections(fetch()), version=version)
    return replace(saved, registers=registers_of(monitor, apics=saved.has_kvmclock))


def qemu_version(answer: object) -> str:
    """The version in what ``query-version`` answers: ``10.0.13``."""
    numbers = answer.get("qemu") if isinstance(answer, Mapping) else None
    if not isinstance(numbers, Mapping):
        return ""
    return ".".join(str(numbers.get(part, "?")) for part in ("major", "minor", "micro"))


def registers_of(monitor: Monitor, *, apics: bool) -> str:
    """What a QEMU shows of its vCPUs' registers, which changes nothing; empty if it does not.

    ``apics``: their local APICs as well, one by one.
    """
    shown = ""
    with contextlib.suppress(FreepageError):
        shown = _shown(monitor, "info registers -a")
        for number in range(count_vcpus_shown(shown) if apics else 0):
            shown += "\n" + _shown(monitor, "info lapic", {"cpu-index": number})
    return shown


def _shown(monitor: Monitor, line: str, of: Mapping[str, object] | None = None) -> str:
    return str(monitor.execute("human-monitor-command", {"command-line": line, **(of or {})}))


def compare_states(
    source: SavedState,
    destination: SavedState,
    describe: Callable[[], Mapping[str, object]],
    accelerator: str,
    acted: ActedUpon = UNTOUCHED,
    sent: Sequence[Section] | None = None,
) -> Comparison | str:
    """What differs; a string says why nothing was compared.

    ``acted``: what each side was told when its state should have stood still.  ``sent``: the devices in
    the migration's own stream; None: nobody has heard it.
    """
    if source.has_kvmclock and destination.missing is not None and destination.registers:
        why = f"the destination's QEMU was not asked to save its devices: {destination.missing}"
        return compare_registers(source.registers, destination.registers, why)
    for side, state in (("source", source), ("destination", destination)):
        if state.missing is not None:
            return f"the {side}'s QEMU does not save its devices: {state.missing}"
    # In most runs nothing differs but the time in the real-time clock, whose place is known.
    versions = source.version, destination.version
    unplugged = len(set(acted.unplugged))
    both = functools.partial(
        compare_sections, accelerator=accelerator, versions=versions, unplugged=unplugged
    )
    found = both(source.sections, destination.sections, KNOWN_PLACES)
    if not found.wrong:
        return found
    description: Mapping[str, object] | None = None
    # A difference without the field's name is a difference all the same.
    with contextlib.suppress(FreepageError):
        description = describe()
    found = both(source.sections, destination.sections, description)
    named = functools.partial(both, description=description)
    whose = changed_sides(source.sections, sent, destination.sections, named) if sent is not None else None
    return explain_by_acts(found, acted, whose)


def describe(monitor: Monitor, place: Path, seen_by_qemu: Path) -> Mapping[str, object]:
    """QEMU's description of its devices' fields, of a guest that stands still.

    As for :func:`device_stream`.  Raises :class:`MachineryError` if the QEMU does not tell.
    """
    return read_description(device_stream(monitor, place, seen_by_qemu))


def device_stream(monitor: Monitor, place: Path, seen_by_qemu: Path) -> bytes:
    """What a QEMU sends of a guest that stands still, but for the memory that is in files.

    ``place`` is a socket that is made for it, ``seen_by_qemu`` the same socket as QEMU sees it.
    Raises :class:`MachineryError` if the QEMU refuses.
    """
    before, credentials = _capabilities(monitor), _credentials(monitor)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(place))
        listening.listen(1)
        listening.settimeout(_DESCRIBE_SECONDS)
        try:
            with ThreadPoolExecutor(1, "device-state") as pool:
                stream = pool.submit(_receive, listening)
                try:
                    _switch(monitor, before, {_WITHOUT_MEMORY})
                    # Our socket speaks no TLS.
                    _encrypt(monitor, credentials, "")
                    monitor.execute("migrate", {"uri": f"unix:{seen_by_qemu}"})
                except FreepageError:
                    # Nobody will connect: the thread must not wait for it.
                    listening.close()
                    raise
                received = stream.result()
            await_cleanup(monitor)
            # The guest may move on from here, in another way than this.
            _switch(monitor, {_WITHOUT_MEMORY}, before)
            _encrypt(monitor, "", credentials)
            return received
        finally:
            place.unlink(missing_ok=True)


def _capabilities(monitor: Monitor) -> set[str]:
    """The migration capabilities that are on.  Raises :class:`MachineryError` for a QEMU without ours."""
    known = monitor.execute("query-migrate-capabilities")
    rows = known if isinstance(known, list) else []
    if _WITHOUT_MEMORY not in [row["capability"] for row in rows]:
        raise MachineryError(f"this QEMU has no capability {_WITHOUT_MEMORY!r}")
    return {str(row["capability"]) for row in rows if row["state"]}


def _switch(monitor: Monitor, now: set[str], wanted: set[str]) -> None:
    states = [{"capability": name, "state": name in wanted} for name in sorted(now ^ wanted)]
    if states:
        monitor.execute("migrate-set-capabilities", {"capabilities": states})


def _credentials(monitor: Monitor) -> str:
    """The credentials by which a migration is encrypted; empty: it is not."""
    parameters = monitor.execute("query-migrate-parameters")
    return str(parameters.get("tls-creds") or "") if isinstance(parameters, Mapping) else ""


def _encrypt(monitor: Monitor, now: str, wanted: str) -> None:
    if now != wanted:
        monitor.execute("migrate-set-parameters", {"tls-creds": wanted})


def _receive(listening: socket.socket) -> bytes:
    try:
        connection, _ = listening.accept()
        with connection:
            connection.settimeout(_DESCRIBE_SECONDS)
            received = bytearray()
            while data := connection.recv(_CHUNK):
                received += data
                if len(received) > MOST_BYTES:
                    raise MachineryError("the device state is larger than any machine's")
            return bytes(received)
    except OSError as error:
        raise MachineryError(f"the device state did not come: {error}") from error
