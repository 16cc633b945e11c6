# SPDX-License-Identifier: GPL-2.0-or-later
"""Two hosts that are machines of the user's own, reached by ssh: what is asked there before a run starts."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness import accel
from harness.errors import InputError, MachineryError
from harness.plan.machines import Binaries, Machines
from harness.scenario.resolve import HOST_MARGIN, demand_accelerator
from harness.scenario.script import actions
from harness.toolchain.firmware import NEEDED, firmware
from harness.toolchain.probe import read_probe
from harness.toolchain.qemu import QemuBinary

if TYPE_CHECKING:
    from harness.events import EventStream
    from harness.hosts.remote import RemotePair
    from harness.hosts.remote_host import RemoteHost
    from harness.scenario.load import Scenario
    from harness.scenario.remote import Remote, RemoteSide
    from harness.toolchain import Kernel, Toolchain
    from harness.toolchain.cache import Cache

_ASK_SECONDS = 20.0

#: Until their sizes are known: QEMU, firmware, kernel and image.
_FILES_ROOM = 512 << 20


class RemoteMachines(Machines):
    """Two machines, each with a libvirt of its own."""

    def __init__(self, pair: RemotePair, remote: Remote) -> None:
        self._pair = pair
        self._remote = remote
        self._in_place = False

    @classmethod
    def serves(cls, scenario: Scenario) -> bool:
        """Where the scenario names two machines."""
        return scenario.remote is not None

    @classmethod
    @contextlib.contextmanager
    def reach(cls, scenario: Scenario, events: EventStream) -> Iterator[RemoteMachines]:
        """Connect to both.  All is left as it was found afterwards."""
        # Only a run between such machines pays for loading this.
        from harness.hosts.remote import RemotePair

        assert scenario.remote is not None
        _demand_possible(scenario)
        with RemotePair.connect(scenario.remote, events) as pair:
            yield cls(pair, scenario.remote)

    @classmethod
    def demand_network(cls, user: str) -> None:
        """Raise: a guest that moves between two machines has no network."""
        raise InputError(
            f"remote: {user} needs the network of a lab",
            hint="leave the section remote out, or --set remote=null",
        )

    def demand(self, scenario: Scenario) -> None:
        """Raise unless a guest of this size fits on both."""
        self._pair.demand_memory(scenario.guest.memory)
        demand_accelerator(scenario, scenario.accelerator)

    def memory_available(self, scenario: Scenario) -> int:
        """What both can have together; that it is enough was asked of each of them, by :meth:`demand`."""
        return max(self._pair.memory_available(), 2 * scenario.guest.memory + HOST_MARGIN)

    def own_qemus(self, toolchain: Toolchain) -> tuple[QemuBinary | None, QemuBinary | None]:
        """The QEMUs that are said to be there already; with firmware of ours for one that finds none."""
        sides = (self._remote.source, self._remote.destination)
        source, destination = (
            _own_qemu(host, side, toolchain) for host, side in zip(self._pair.hosts, sides, strict=True)
        )
        return source, destination

    def probe(self, binaries: Binaries, cache: Cache, events: EventStream) -> accel.KvmProbe:  # noqa: ARG002
        """Whether KVM runs guests on both.  Kept nowhere: the machines are not ours, and change."""
        for host in self._pair.hosts:
            if host.facts.kvm:
                return accel.KvmProbe(False, f"{host.remote.place}: {host.facts.kvm}")
        self._put_in_place(binaries)
        for host, qemu in zip(self._pair.hosts, binaries.qemus, strict=True):
            with events.step("probe-kvm", host=host.name, limit_s=accel.PROBE_SECONDS) as step:
                found = _probe(host, qemu, binaries.kernel)
                step.note(usable=found.usable, reason=found.reason)
            if not found.usable:
                return accel.KvmProbe(False, f"{host.remote.place}: {found.reason}")
        return accel.KvmProbe(True, "a guest kernel under KVM printed its first line on both hosts")

    def _put_in_place(self, binaries: Binaries) -> None:
        """Make the run's folders, and copy there what is not there."""
        if self._in_place:
            return
        self._in_place = True
        self._pair.make_folders(_FILES_ROOM)
        sides = (self._remote.source, self._remote.destination)
        for host, side, qemu in zip(self._pair.hosts, sides, binaries.qemus, strict=True):
            _demand_single(qemu, host.name)
            files: dict[str, Path] = {"vmlinuz": binaries.kernel.vmlinuz}
            files |= {f"firmware{number}": place for number, place in enumerate(qemu.firmware)}
            if side.qemu is None:
                files["qemu"] = qemu.path
            host.bring(files)

    def run(self, work: Callable[[], int], keep: Iterable[Path]) -> int:  # noqa: ARG002
        """Here, in this process: ssh needs no namespaces."""
        return work()

    @contextlib.contextmanager
    def hosts(
        self,
        scenario: Scenario,  # noqa: ARG002 - what it asks for is each domain's own matter
        binaries: Binaries,
        logs: Path,
        events: EventStream,
    ) -> Iterator[RemotePair]:
        """The two hosts, with everything in place; all is taken away again at the end."""
        try:
            with events.step("copy"):
                self._put_in_place(binaries)
                for host, qemu in zip(self._pair.hosts, binaries.qemus, strict=True):
                    _demand_runs(host, qemu)
            emulators: Mapping[str, Path] = {
                host.name: qemu.path for host, qemu in zip(self._pair.hosts, binaries.qemus, strict=True)
            }
            with self._pair.ready(emulators, logs) as pair:
                yield pair
        finally:
            for host in self._pair.hosts:
                host.leave()


def _demand_possible(scenario: Scenario) -> None:
    """Raise for what only a lab has; before anybody is connected to."""
    if any(how.tls for how in scenario.migrations):
        raise InputError(
            "migration.tls: the certificates of a run are made for its lab",
            hint="between remote machines the migration goes through ssh anyway",
        )
    if scenario.guest.vhost:
        raise InputError("guest.vhost: a guest between two machines of yours has no network")
    if any(action.needs_network for action in actions(scenario.script)):
        raise InputError("script: pulling the wire needs the lab's own network")
    if scenario.wire is not None:
        raise InputError("wire: the network between machines of yours is not the testbed's to change")
    if scenario.workload.needs_network:
        kind = scenario.workload.kind
        raise InputError(f"workload.kind: {kind} needs the network of a lab, remote guests have none")
    if (scenario.guest.image or scenario.workload.image) != "small" or scenario.workload.writes_disk:
        raise InputError(
            "guest.image: a guest with a disk to write to cannot move between two machines yet",
            hint="its disk would have to be on storage that both reach; use guest.image=small",
        )
    if scenario.guest.kvm_dirty == "bitmap-without-manual-protect":
        raise InputError(
            "guest.kvm_dirty: bitmap-without-manual-protect is for hosts on this machine",
            hint="leave --source and --destination out, or take the ring or the bitmap",
        )


def _ask(host: RemoteHost, *command: str, word: str = "", seconds: float = _ASK_SECONDS) -> str:
    header, _ = host.deputy.call("ask", command=list(command), seconds=seconds, word=word)
    said, status = str(header.get("said")), header.get("status")
    if word:
        return said
    if header.get("problem") or status != 0:
        why = header.get("problem") or f"it ends with status {status}"
        last = f": {said.strip().splitlines()[-1]}" if said.strip() else ""
        raise InputError(f"{command[0]} does not run on {host.remote.place}: {why}{last}")
    return said


def _own_qemu(host: RemoteHost, side: RemoteSide, toolchain: Toolchain) -> QemuBinary | None:
    if side.qemu is None:
        return None
    path = side.qemu
    found = read_probe(lambda *words: _ask(host, path, *words), f"{path} on {host.remote.place}")
    header, _ = host.deputy.call("sha256", path=path)
    return QemuBinary(
        path=Path(path),
        firmware=() if _finds_firmware(host, found.data_dirs) else firmware(toolchain.cache),
        version=found.version,
        sha256=str(header.get("sha256")),
        flavour="remote",
        has_free_page_info=found.has_free_page_info,
        has_free_page_hint=found.has_free_page_hint,
        has_record=found.has_record,
        has_hold=found.has_hold,
    )


def _finds_firmware(host: RemoteHost, folders: Sequence[Path]) -> bool:
    paths = [str(folder / name) for folder in folders for name in NEEDED]
    header, _ = host.deputy.call("existing", paths=paths)
    there = header.get("paths")
    return isinstance(there, list) and all(any(str(p).endswith(f"/{name}") for p in there) for name in NEEDED)


def _demand_single(qemu: QemuBinary, host: str) -> None:
    """Raise for a QEMU that is more than a file: it would find nothing of the rest over there."""
    if qemu.folder is not None:
        raise InputError(
            f"the QEMU {qemu.flavour} has libraries of its own, and is not copied to other machines",
            hint=f"install it over there, and say remote.{host}.qemu",
        )
    if qemu.emulator is not None:
        raise InputError(
            f"the QEMU {qemu.path} ({qemu.version}) refuses what older libvirts say, and is not copied to "
            "other machines, whose libvirt is not known",
            hint=f"install it over there, and say remote.{host}.qemu",
        )


def _demand_runs(host: RemoteHost, qemu: QemuBinary) -> None:
    """Raise unless the QEMU that was copied finds its libraries over there."""
    path = str(host.path_of(qemu.path))
    try:
        _ask(host, path, "-version")
    except InputError as error:
        raise InputError(
            error.message,
            hint="install the libraries that it names there, or a QEMU of that machine's own with "
            f"the patches, and say remote.{host.name}.qemu",
        ) from error


def _probe(host: RemoteHost, qemu: QemuBinary, kernel: Kernel) -> accel.KvmProbe:
    machine = accel.ProbeMachine(
        host.path_of(qemu.path),
        qemu.sha256,
        tuple(host.path_of(folder) for folder in qemu.firmware),
        host.path_of(kernel.vmlinuz),
    )
    word = accel.FIRST_WORD.decode()
    try:
        said = _ask(host, *machine.command(), word=word, seconds=accel.PROBE_SECONDS)
    except MachineryError as error:
        return accel.KvmProbe(False, error.message)
    return accel.judge_words(said.encode(), accel.PROBE_SECONDS)
