# SPDX-License-Identifier: GPL-2.0-or-later
"""The keys of a scenario that say how the guest is migrated: ``migration``, and ``moves``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    BeforeValidator,
    Field,
    field_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from harness.scenario.mode import (
    Exclusion,
    Mode,
    refuse_contradictions,
    settings_of,
)
from harness.scenario.saved_file import SavedFile, Way
from harness.scenario.transport import AddressForm, Transport
from harness.scenario.values import (
    Rate,
    Section,
    Text,
    as_tuple,
)

#: A capability or parameter, as QEMU names them.
_QemuName: TypeAlias = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,60}$")]

#: What a QEMU or the lab has from its start, and no migration can have otherwise.
_FROM_THE_START = ("clear_bitmap_shift",)
#: What a QEMU that was told of it once cannot be told to forget.
_NEVER_FORGOTTEN = ("block-bitmap-mapping",)


class Migration(Section):
    """How the guest is moved."""

    to: Way = "host"
    """Where it goes. host: to the other host at once. By way of a file, which the other host restores:
    file: QEMU migrates to it while the guest runs. save: libvirt stops and saves the guest (virsh save).
    savevm: a snapshot in a qcow2 image, of a guest that stands still (QEMU's snapshot-save).
    background-snapshot: QEMU saves the guest as it is at one moment while it writes on; what it does after
    that is lost. See docs/files.md."""
    mapped_ram: Annotated[bool, Mode("mapped-ram")] = False
    """to: file: each page has its own place in the file; a page of zeros is left out."""
    direct_io: Annotated[bool, Mode(qemu_parameter="direct-io")] = False
    """to: file, with mapped_ram and multifd: past the kernel's page cache."""
    file: SavedFile = SavedFile()
    """The file through which it goes, and what is done to it on its way."""
    over: Transport = "tcp"
    """By what it goes from one QEMU to the other. tcp: the network between the hosts. unix: a Unix socket.
    fd: a pair of sockets, whose descriptors both QEMUs are given (QMP's getfd). pipe: those of a pipe. exec:
    a program on each side, and a pipe between them. pipe and exec go one way, so without return-path. All
    but tcp past libvirt, in a lab, and without a tap."""
    address: AddressForm = "uri"
    """How QEMU is told where to. uri: by a text, such as tcp:HOST:PORT. channels: by a list of channels, as
    QEMU has it since 8.2; past libvirt."""
    bandwidth: Rate | None = None
    """Limit of the migration's own making; null: as fast as it goes."""
    downtime_limit_ms: Annotated[int, Field(ge=1, le=2_000_000)] = 300
    """The longest pause that QEMU may plan for."""
    multifd: Annotated[
        int,
        Field(ge=0, le=255),
        Mode(
            "multifd",
            flag="PARALLEL",
            parameter="PARALLEL_CONNECTIONS",
            qemu_parameter="multifd-channels",
            both_sides=True,
            excludes=(Exclusion("trace", "with multifd QEMU does not trace single pages"),),
        ),
    ] = 0
    """Parallel channels; 0: one stream."""
    zero_pages: Annotated[
        Literal["none", "legacy", "multifd"] | None, Mode(qemu_parameter="zero-page-detection")
    ] = None
    """Who looks for pages of zeros: nobody, the migration's thread, the multifd threads; null:
    QEMU's default."""
    xbzrle: Annotated[bool, Mode("xbzrle", flag="COMPRESSED", parameter="COMPRESSION", value="xbzrle")] = (
        False
    )
    """Send what has changed in a page, not the page, where it has been sent before."""
    auto_converge: Annotated[bool, Mode("auto-converge", flag="AUTO_CONVERGE")] = False
    """Slow the guest down as long as it writes faster than the migration sends."""
    tls: Annotated[Literal[False, True, "psk"], Mode(flag="TLS", past_libvirt_for=("psk",))] = False
    """Encrypt the migration, with certificates of the run's own. psk: with a key that both sides share,
    which libvirt has no word for."""
    postcopy: Annotated[
        Literal[False, True, "libvirt"], Mode("postcopy-ram", flag="POSTCOPY", past_libvirt_for=(True, None))
    ] = False
    """Allow a switch to postcopy, which a script makes (postcopy-start). With arm hint nothing is left out
    then. true: past libvirt. libvirt: by libvirt, which always lets the guest run on the destination."""
    postcopy_preempt: Annotated[bool, Mode("postcopy-preempt")] = False
    """Send what the destination asks for over a connection of its own, past what is being pushed. With
    postcopy."""
    clear_bitmap_shift: Annotated[int, Field(ge=6, le=31)] | None = None
    """So many pages, as a power of two, are cleared in KVM's bitmap at a time; null: QEMU's default, 18."""
    capabilities: Annotated[Mapping[_QemuName, bool], Field(max_length=64)] = {}
    """QEMU's capabilities, by its own names: what query-migrate-capabilities of the QEMUs in use lists. What
    libvirt has no flag for, QEMU is told itself, past libvirt. See docs/modes.md."""
    parameters: Annotated[Mapping[_QemuName, Any], Field(max_length=64)] = {}
    """QEMU's parameters, by its own names, in its own units and as QMP has them, lists too: what
    migrate-set-parameters of the QEMUs in use takes; null: QEMU's own value."""
    timeout_s: Annotated[int, Field(ge=1, le=86400)] = 300
    """Seconds until the migration must have completed."""
    stuck_s: Annotated[int, Field(ge=1, le=86400)] = 60
    """Seconds without any progress (bytes, bitmap syncs, status), or without an answer of QEMU's, after
    which the migration counts as stuck: a failure. While a script keeps the stream from going on it does not
    count."""

    def switches_on(self, capability: str) -> bool:
        """Whether one of QEMU's capabilities is asked for, by a key of its own or by QEMU's name."""
        return any(setting.mode.capability == capability for _, setting in settings_of(self))

    @property
    def hands_over(self) -> bool:
        """Whether no memory is sent, but the files that it is in are handed to the other QEMU."""
        return self.parameters.get("mode") == "cpr-transfer"

    @model_validator(mode="after")
    def _says_one_thing(self) -> Migration:
        refuse_contradictions(self)
        return self


class Move(Section):
    """One of several migrations of the same guest. Each that completes takes it to the other host."""

    ends: Literal["completed", "cancelled", "failed"] = "completed"
    """How it has to end. failed: refused by QEMU or libvirt, or given up. Where the last one is not to
    complete, no memory of it is compared: it has to end so, and the guest to go on where it is, whole."""
    reason: Annotated[Text, Field(min_length=1)] | None = None
    """failed: words that must be in the reason which the user is given."""
    check: bool = True
    """Whether the guest is asked for its pages before the next one begins; after the last it always is."""
    guest: Literal["running", "paused", "stays-paused", "suspended"] = "running"
    """paused: the guest stands still from before this one, and through it; over one that does not complete
    into the next, if that says so as well. On its new host it goes on. stays-paused: it does not, but moves
    on without having run there; nobody asks it anything before that. suspended: it has suspended itself to
    its memory (ACPI S3) as the migration begins, and is woken up where it is in the end."""
    migration: Migration | None = None
    """How this one is made: what is said here counts, in place of what the scenario's `migration` says, and
    for this one alone."""
    destination_args: Annotated[tuple[Text, ...], BeforeValidator(as_tuple), Field(max_length=64)] = ()
    """Words that are appended to the command line of the QEMU that this one leads to, and of no other: a
    machine that is not quite the source's, as [-global, virtio-net-pci.mrg_rxbuf=off]. The migration goes
    past libvirt. See docs/machine.md."""

    @field_serializer("migration")
    def _as_written(self, migration: Migration | None) -> object:
        # What was not said is not this move's: read back, it would count.
        return None if migration is None else migration.model_dump(mode="json", exclude_unset=True)

    @model_validator(mode="after")
    def _can_change(self) -> Move:
        for key in _FROM_THE_START:
            if self.migration is not None and key in self.migration.model_fields_set:
                words = "expected in the scenario's migration: it is the same for all moves"
                raise PydanticCustomError("in-entry", words, {"path": ("migration", key)})
        for name in _NEVER_FORGOTTEN:
            if self.migration is not None and name in self.migration.parameters:
                words = "expected in the scenario's migration: no QEMU can be told to forget it"
                path = {"path": ("migration", "parameters", name)}
                raise PydanticCustomError("in-entry", words, path)
        return self


Moves: TypeAlias = Annotated[tuple[Move, ...], BeforeValidator(as_tuple), Field(min_length=1, max_length=16)]
