# SPDX-License-Identifier: GPL-2.0-or-later
"""A scenario as a whole: its keys, their types and defaults, and what does not go together.

What the guest is, how it is migrated and what must come out have modules of their own:
:mod:`harness.scenario.guest`, :mod:`harness.scenario.migration`, :mod:`harness.scenario.expectations`.
The words under a key are its description in the JSON Schema as well, and docs/scenario.md is checked against
them.  :mod:`harness.scenario.load` loads files.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import yaml
from pydantic import (
    BeforeValidator,
    Field,
    PrivateAttr,
    model_validator,
)
from pydantic_core import PydanticCustomError

from harness.errors import InputError
from harness.scenario.copied_disks import refuse_with_copied_disks
from harness.scenario.destination import refuse_wrong_destinations, refuse_wrong_ends
from harness.scenario.devices.disk import ListedDisk
from harness.scenario.devices.pmem import Pmem
from harness.scenario.expectations import Expect
from harness.scenario.guest import MOST_VCPUS, NOISE_MARGIN, Guest
from harness.scenario.migration import Migration, Move
from harness.scenario.mode import (
    layered,
    refuse_contradictions,
    refuse_excluded,
)
from harness.scenario.moments import BEFORE_IT_LEAVES
from harness.scenario.own_image import refuse_with_own_image
from harness.scenario.plugging import refuse_wrong_plugging
from harness.scenario.remote import Remote
from harness.scenario.saved_file import demand_way
from harness.scenario.script import Script, actions, count_plugged, needs_controls, restarts
from harness.scenario.several_guests import MOST_GUESTS, refuse_with_several_guests
from harness.scenario.several_nics import refuse_wrong_nics
from harness.scenario.transport import refuse_wrong_transports
from harness.scenario.values import (
    Section,
    Text,
    as_tuple,
)
from harness.scenario.wire import WireConditions
from harness.scenario.workloads.at_rest import Idle
from harness.scenario.workloads.base import AnyWorkload
from harness.scenario.written import Written
from harness.units import format_size

Arm: TypeAlias = Literal["off", "hint", "info"]
Accelerator: TypeAlias = Literal["auto", "kvm", "tcg"]


class Measure(Section):
    """What the guest gets done around its migration. Costs the time of both windows."""

    before_s: Annotated[float, Field(ge=0, le=3600)] = 2.0
    """Seconds for which the guest is watched before the migration begins; the run takes as much longer."""
    after_s: Annotated[float, Field(ge=0, le=3600)] = 2.0
    """Seconds for which it is watched after it was resumed."""
    every_ms: Annotated[int, Field(ge=1, le=1000)] = 10
    """Milliseconds between two samples, by the guest's clock."""


class Scenario(Section):
    """One scenario. Only ``name`` must be given; everything else has a default."""

    name: Annotated[Text, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]
    """Small letters, digits and dashes, at most 40; names the run's folder."""
    summary: Text = ""
    """One line for lists."""
    arm: Arm = "info"
    """off: plain migration; hint: upstream's free page hint; info: free page info."""
    accelerator: Accelerator = "auto"
    """auto: KVM where it was shown to run guests, TCG otherwise."""
    guest: Guest = Guest()
    """The virtual machine under test."""
    guests: Annotated[int, Field(ge=1, le=MOST_GUESTS)] = 1
    """So many of that guest, each with a seed of its own, which all move at the same time between the same
    two hosts; each is judged by itself. See [guests.md](guests.md) for what does not go together with it."""
    workload: AnyWorkload = Idle()
    """What the guest does with its memory."""
    migration: Migration = Migration()
    """How it is moved."""
    moves: Annotated[tuple[Move, ...], BeforeValidator(as_tuple), Field(min_length=1, max_length=16)] = (
        Move(),
    )
    """The migrations of the guest, one after the other: there and back, cancelled and tried again."""
    script: Script = ()
    """What happens during them."""
    wire: WireConditions | None = None
    """The network between the hosts of the lab: delay, loss, reordering, a rate. null: as good as it is."""
    tap: bool | None = None
    """Have the migration's stream pass through a tap, which needs no patched QEMU: the verdict then knows
    which page was sent how often and how, and what the destination must hold. Costs the stream's size on
    disk while the run lasts. null: where the source's QEMU keeps no record of its own, and a tap changes
    nothing that the script is about; see [stream.md](stream.md). Not with shared memory, files or remote."""
    strict: bool = True
    """Hold the guest at every request and take digests, so that "unchanged since the
    request" is a fact; see docs/oracle.md. false: it is inferred from the device's own dirty log."""
    trace: Literal["pages"] | None = None
    """pages: QEMU traces each page that arrives, so that "freepage explain" can say in which round
    each was sent. Slow, and not with multifd."""
    walk: bool = True
    """Walk the guest's free lists from outside, at every request and answer: the second witness of what is
    free, and what the floor counts by; see docs/walk.md. false: for a kernel that cannot be walked."""
    measure: Measure | None = None
    """Watch the guest before, during and after its migration; null: do not."""
    remote: Remote | None = None
    """Two machines of the user's own, in place of the lab; see docs/remote.md. null: the lab."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    """Of the workload's contents and everything else that is random. null: a new one each run, which the
    result and the run folder's scenario.yaml tell."""
    expect: Expect = Expect()
    """What must come out."""

    _written: Written = PrivateAttr(default_factory=Written)

    def written_in(self, written: Written) -> Scenario:
        """The same, which knows from now on where each of its keys was written."""
        self._written = written
        return self

    def wrong(self, key: str, text: str, *, hint: str | None = None) -> InputError:
        """An error about a key (``guest.cpu``, ``guest.xml.0``), with its place in the file."""
        return self._written.wrong(key, text, hint=hint)

    def migration_of(self, number: int) -> Migration:
        """How one of the moves is made, counted from 1."""
        return layered(self.migration, self.moves[number - 1].migration)

    @property
    def migrations(self) -> tuple[Migration, ...]:
        """How each of the moves is made."""
        return tuple(self.migration_of(number) for number in range(1, len(self.moves) + 1))

    def past_libvirt(self, number: int) -> tuple[str, ...]:
        """Keys beside those of its ``migration`` by which one of the moves goes past libvirt."""
        args = self.moves[number - 1].destination_args
        moments = sorted({entry.at for entry in self.script if entry.move == number} & BEFORE_IT_LEAVES)
        found = [f"moves[{number - 1}].destination_args"] if args else []
        return (*found, *(f"at: {moment}" for moment in moments))

    @model_validator(mode="after")
    def _modes_go_together(self) -> Scenario:
        refuse_excluded(self, self.migration, "migration")
        for number, move in enumerate(self.moves, 1):
            if move.migration is None:
                continue
            how, place = self.migration_of(number), f"moves[{number - 1}].migration"
            try:
                refuse_contradictions(how)
            except PydanticCustomError as error:
                context = error.context or {}
                where = ("moves", number - 1, "migration", *context.get("path", ()))
                words = {"words": error.message(), "path": where}
                raise PydanticCustomError("at", "{words}", words) from None
            refuse_excluded(self, how, place)
        return self

    @model_validator(mode="after")
    def _goes_that_way(self) -> Scenario:
        for how in self.migrations:
            demand_way(self, how)
        for index, move in enumerate(self.moves):
            if move.guest != "running" and self.migration_of(index + 1).to == "background-snapshot":
                words = "expected running: a background snapshot is of a guest that writes on"
                raise PydanticCustomError("at", words, {"path": ("moves", index, "guest")})
        if len({how.file.compression for how in self.migrations if how.to == "save"}) > 1:
            words = "expected the same for all moves: libvirt is told once"
            path = {"path": ("migration", "file", "compression")}
            raise PydanticCustomError("at", words, path)
        return self

    @model_validator(mode="after")
    def _fits(self) -> Scenario:
        if self.guest.vcpus < self.guest.nodes:
            path = {"path": ("guest", "nodes")}
            raise PydanticCustomError("at", "expected at least as many vcpus as nodes", path)
        most, plugged = self.guest.most_vcpus, count_plugged(self.script)
        if not self.guest.vcpus <= most <= MOST_VCPUS:
            raise PydanticCustomError(
                "at",
                "expected a product from {vcpus} (vcpus) to {most}, got {got}",
                {
                    "path": ("guest", "topology"),
                    "vcpus": self.guest.vcpus,
                    "most": MOST_VCPUS,
                    "got": most,
                },
            )
        if self.guest.vcpus + plugged > most:
            raise PydanticCustomError(
                "at",
                "the script needs {wanted} vCPUs, and there can be {most}",
                {"path": ("guest", "topology"), "wanted": self.guest.vcpus + plugged, "most": most},
            )
        refuse_wrong_nics(self.guest)
        noise, margin = noise_bytes(self), self.guest.kept_by_kernel or NOISE_MARGIN
        if noise + margin > self.guest.memory:
            raise PydanticCustomError(
                "at",
                "{what} does not fit into a guest of {memory}, which needs {margin} for itself",
                {
                    "path": ("workload", "noise"),
                    "what": format_size(noise),
                    "memory": format_size(self.guest.memory),
                    "margin": format_size(margin),
                },
            )
        low, high = self.expect.skipped_percent_min, self.expect.skipped_percent_max
        if low is not None and high is not None and low > high:
            path = {"path": ("expect", "skipped_percent_min")}
            raise PydanticCustomError("at", "expected at most skipped_percent_max", path)
        return self

    @model_validator(mode="after")
    def _of_an_own_image(self) -> Scenario:
        refuse_with_own_image(self)
        refuse_with_copied_disks(self)
        refuse_wrong_plugging(self)
        refuse_with_several_guests(self)
        refuse_wrong_transports(self)
        refuse_wrong_destinations(self)
        refuse_wrong_ends(self)
        return self

    @model_validator(mode="after")
    def _disk_is_large_enough(self) -> Scenario:
        number = self.guest.work_disk if self.workload.writes_disk else None
        if number is not None:
            disk = self.guest.all_devices[number]
            assert isinstance(disk, ListedDisk)
            if disk.size < self.workload.disk_bytes:
                context = {"path": ("workload", "disk"), "size": format_size(disk.size)}
                raise PydanticCustomError("at", "the disk of the scenario has only {size}", context)
        return self

    @model_validator(mode="after")
    def _shared(self) -> Scenario:
        """It takes a DIMM's slot; what else is in a file that others could map would stay behind with it."""
        guest = self.guest
        others = {
            "guest.dimm": guest.dimm,
            "guest.hugepages": guest.hugepages,
            "remote": self.remote,
            "a device pmem": any(isinstance(one, Pmem) for one in guest.devices),
        }
        for name, value in others.items():
            if guest.shared is not None and value:
                path = {"path": ("guest", "shared"), "name": name}
                raise PydanticCustomError("at", "does not go together with {name}", path)
        return self

    @model_validator(mode="after")
    def _backed(self) -> Scenario:
        """There is one slot for what is plugged in, and remote hosts have files of their own."""
        guest = self.guest
        memory: dict[str, object] = {"guest.dimm": guest.dimm, "guest.shared": guest.shared}
        remote: dict[str, object] = {"remote": self.remote}
        others = {"virtio_mem": memory | remote | {"guest.hugepages": guest.hugepages}}
        others["memory_backend"] = remote | {"guest.shared": guest.shared, "guest.hugepages": guest.hugepages}
        backend = guest.memory_backend
        if backend is not None and backend.offset is not None:
            nodes = guest.nodes > 1
            others["memory_backend"] |= memory | {"guest.nodes": nodes, "guest.virtio_mem": guest.virtio_mem}
        for key, values in others.items():
            for name, value in values.items():
                if getattr(guest, key) is not None and value:
                    path = {"path": ("guest", key), "name": name}
                    raise PydanticCustomError("at", "does not go together with {name}", path)
        if guest.virtio_mem is None and any(action.needs_virtio_mem for action in actions(self.script)):
            path = {"path": ("guest", "virtio_mem")}
            raise PydanticCustomError("at", "expected one: the script resizes it", path)
        return self

    @model_validator(mode="after")
    def _memory_can_be_handed_over(self) -> Scenario:
        """QEMU's mode cpr-transfer, on one kernel, of memory that has a descriptor to be handed over."""
        if not any(how.hands_over for how in self.migrations):
            return self
        words, guest = "mode: cpr-transfer in the migration's parameters", self.guest
        backend = guest.memory_backend
        if backend is None or backend.type != "memfd" or not backend.shared:
            path = {"path": ("guest", "memory_backend"), "words": words}
            text = "expected type: memfd, shared: {words} hands memory over by its descriptor"
            raise PydanticCustomError("at", text, path)
        others: dict[tuple[str, ...], object] = {
            ("guest", "dimm"): guest.dimm,
            ("guest", "virtio_mem"): guest.virtio_mem,
            ("remote",): self.remote,
            ("trace",): self.trace,
        }
        for way in self.migrations:
            others["migration", "to"] = way.hands_over and way.to != "host"
            for path_of, value in others.items():
                if value:
                    where = {"path": path_of, "words": words}
                    raise PydanticCustomError("at", "does not go together with {words}", where)
        return self

    @model_validator(mode="after")
    def _backends_are_there(self) -> Scenario:
        if not any(disk.room for disk in self.guest.all_disks):
            for index, entry in enumerate(self.script):
                for place, action in enumerate(entry.do):
                    if action.needs_room:
                        where = {"path": ("script", index, "do", place, "action"), "word": action.action}
                        raise PydanticCustomError(
                            "at", "{word} needs a disk of guest.disks with a room", where
                        )
        served = {device.device for device in self.guest.all_devices if device.served_apart}
        for index, entry in enumerate(self.script):
            for place, action in enumerate(entry.do):
                if action.needs_backend is not None and action.needs_backend not in served:
                    here = {
                        "path": ("script", index, "do", place, "device"),
                        "name": action.needs_backend,
                        "served": ", ".join(sorted(served)) or "none",
                    }
                    words = "no program beside QEMU serves a device {name} of this guest, but {served}"
                    raise PydanticCustomError("at", words, here)
        return self

    @property
    def tap_obstacle(self) -> str | None:
        """Why no tap can listen; None: one can.  It needs connections between the hosts of a lab."""
        others = {
            f"migration.to: {self.migration.to}": any(how.to != "host" for how in self.migrations),
            "a migration that goes over anything but tcp": any(how.over != "tcp" for how in self.migrations),
            "guest.shared": self.guest.shared,
            "mode: cpr-transfer": any(how.hands_over for how in self.migrations),
            "script: postcopy-recover": any(one.connects_anew for one in actions(self.script)),
            "remote": self.remote,
        }
        return next((name for name, value in others.items() if value), None)

    @model_validator(mode="after")
    def _tapped(self) -> Scenario:
        if self.tap and (name := self.tap_obstacle):
            raise PydanticCustomError(
                "at", "does not go together with {name}", {"path": ("tap",), "name": name}
            )
        return self

    @model_validator(mode="after")
    def _rule_is_of_a_failure(self) -> Scenario:
        if self.expect.rule is not None and self.expect.verdict != "fail":
            path = {"path": ("expect", "rule")}
            raise PydanticCustomError("at", "expected only with verdict: fail", path)
        return self

    @model_validator(mode="after")
    def _postcopy_is_allowed(self) -> Scenario:
        if self.migration.postcopy_preempt and not any(
            how.switches_on("postcopy-ram") for how in self.migrations
        ):
            path = {"path": ("migration", "postcopy_preempt")}
            raise PydanticCustomError("at", "expected only with postcopy: true", path)
        for index, entry in enumerate(self.script):
            if entry.move <= len(self.moves) and self.migration_of(entry.move).switches_on("postcopy-ram"):
                continue
            for place, action in enumerate(entry.do):
                if action.needs_postcopy:
                    here = {"path": ("script", index, "do", place, "action"), "word": action.action}
                    raise PydanticCustomError("at", "{word} needs migration.postcopy: true", here)
        return self

    @model_validator(mode="after")
    def _libvirt_lets_the_guest_run(self) -> Scenario:
        switched = set()
        for index, entry in enumerate(self.script):
            if entry.move > len(self.moves):
                continue
            by_libvirt = self.migration_of(entry.move).postcopy == "libvirt"
            for place, action in enumerate(entry.do):
                words = action.not_by_libvirt if by_libvirt else action.needs_libvirt
                if words is not None:
                    text = "does not go with" if by_libvirt else "goes only with"
                    here = {"path": ("script", index, "do", place, "action"), "words": words, "text": text}
                    raise PydanticCustomError("at", "{text} postcopy: libvirt: {words}", here)
                if by_libvirt and action.action == "postcopy-start":
                    switched.add(entry.move)
        for number, how in enumerate(self.migrations, 1):
            if how.postcopy == "libvirt" and number not in switched:
                path = {"path": ("migration", "postcopy"), "number": number}
                text = "libvirt lets the guest run at once: expected a postcopy-start in move {number}"
                raise PydanticCustomError("at", text, path)
        return self

    @model_validator(mode="after")
    def _moves_fit(self) -> Scenario:
        if self.moves[-1].ends != "completed" and (key := self.expect.of_a_switch_over) is not None:
            words = (
                "expected only where the last of the moves completes: it is of a migration that has arrived"
            )
            raise PydanticCustomError("at", words, {"path": ("expect", key)})
        for index, move in enumerate(self.moves):
            if move.guest == "stays-paused":
                follows = self.moves[index + 1] if index + 1 < len(self.moves) else None
                if move.ends != "completed" or follows is None or follows.guest == "running":
                    path = {"path": ("moves", index, "guest")}
                    words = "expected only before a move of a guest that is paused as well, and completed"
                    raise PydanticCustomError("at", words, path)
            if move.guest == "suspended" and self.workload.kind == "clocks":
                words = "does not go with the workload clocks: what they show of such a time is Linux' affair"
                raise PydanticCustomError("at", words, {"path": ("moves", index, "guest")})
            if move.reason is not None and move.ends != "failed":
                path = {"path": ("moves", index, "reason")}
                raise PydanticCustomError("at", "expected only with ends: failed", path)
        if needs_controls(self.script) and self.guest.module != "test":
            where = {"path": ("guest", "module")}
            raise PydanticCustomError("at", "expected test: the script holds the module's walk", where)
        if self.walk and restarts(self.script):
            walk = {"path": ("walk",)}
            raise PydanticCustomError("at", "expected false: the script starts another kernel", walk)
        for index, entry in enumerate(self.script):
            if entry.move > len(self.moves):
                raise PydanticCustomError(
                    "at",
                    "there is no move {move}, only {moves}",
                    {"path": ("script", index, "move"), "move": entry.move, "moves": len(self.moves)},
                )
            if index and entry.move < self.script[index - 1].move:
                path = {"path": ("script", index, "move")}
                raise PydanticCustomError("at", "expected entries in the order of the moves", path)
        return self

    @property
    def memory_of_both(self) -> int:
        """Bytes of RAM that all guests have on both hosts."""
        return 2 * self.guests * self.guest.all_memory

    @property
    def copied_memory(self) -> int:
        """Bytes that the oracle has to copy, of all guests."""
        return self.guests * self.guest.copied_memory

    @property
    def bad_wire(self) -> WireConditions | None:
        """What the network between the hosts is like at first; None: a plain one, which nobody changes."""
        changed = any(action.changes_wire for action in actions(self.script))
        return self.wire or (WireConditions() if changed else None)

    def to_yaml(self) -> str:
        """The scenario as a file that :func:`load_scenario` reads back to the same value."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def noise_bytes(scenario: Scenario) -> int:
    """How much the workload fills, in whole pages; a share is of the memory that the kernel leaves."""
    return scenario.workload.noise_bytes(scenario.guest.memory - scenario.guest.kept_by_kernel)
