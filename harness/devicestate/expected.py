# SPDX-License-Identifier: GPL-2.0-or-later
"""What may differ between the states of two QEMUs that stand still, each with its reason.

A row names a device, a field (both as shell patterns), and the conditions under which
QEMU changes that field on its way.  A number of bytes is never a reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from harness.devicestate.fields import CMOS_REGISTERS


@dataclass(frozen=True, slots=True)
class SavedMachine:
    """The machine whose state it is: its accelerator, and the names of its sections.

    ``versions``: of the source's QEMU and of the destination's.
    """

    accelerator: str = "tcg"
    devices: frozenset[str] = frozenset()
    versions: tuple[str, str] = ("", "")

    @property
    def between_versions(self) -> bool:
        """Whether the two QEMUs may know of different fields."""
        return self.versions[0] != self.versions[1]


@dataclass(frozen=True, slots=True)
class ExpectedDifference:
    """A field that QEMU itself changes.

    ``beside``: only in a machine that has this device.  ``bits``: only these bits,
    and only from 0 to 1; -1: any one bit from 0 to 1.  None: whatever its value.
    ``versions``: only between QEMUs of different versions.
    """

    device: str
    field: str
    reason: str
    accelerator: str = "*"
    beside: str | None = None
    bits: int | None = None
    versions: bool = False

    def explains(
        self, device: str, field: str, machine: SavedMachine, change: tuple[int, int] | None
    ) -> bool:
        """Whether this is why a field differs; ``change``: its values, if they are numbers."""
        return (
            fnmatchcase(device, self.device)
            and fnmatchcase(field, self.field)
            and fnmatchcase(machine.accelerator, self.accelerator)
            and (machine.between_versions or not self.versions)
            and (self.beside is None or self.beside in machine.devices)
            and (self.bits is None or (change is not None and _newly_set(*change, self.bits)))
        )


def _newly_set(source: int, destination: int, bits: int) -> bool:
    new = source ^ destination
    only_set = new & source == 0
    return only_set and (new.bit_count() == 1 if bits == -1 else new & ~bits == 0)


_CLOCK: Final = (
    "QEMU sets the clock's registers to the host's time whenever it saves them (rtc_pre_save); "
    "what the guest's clock is shifted by is in other fields"
)
_PL031: Final = (
    "QEMU tells how far the clock is off from the time at which it saves it, so by another number each time "
    "(pl031_pre_save); what the guest's clock is shifted by is in tick_offset"
)
_GENERATION: Final = (
    "QEMU tells a guest that has a VM generation id of its arrival, by ACPI's event 5 and interrupt 9 "
    "(vmgenid_post_load)"
)
_TPM_CLOCK: Final = (
    "swtpm puts the time into a TPM's volatile state whenever it is asked for it (libtpms, "
    "VolatileState_Marshal); what the guest has in it is read by the guest"
)
_QXL_IMAGES: Final = (
    "QEMU numbers the images that it makes of a qxl's screen, by a timer of the host's (spice-display.c)"
)


_IGB_DESCRIPTORS: Final = (
    "QEMU computes anew how long an igb's descriptors are (igb_core_post_load); until its driver has switched"
    " it on for the first time that is 0 on the source"
)


def _told(device: str, field: str, bits: int) -> ExpectedDifference:
    return ExpectedDifference(device, field, _GENERATION, beside="vmgenid", bits=bits)


EXPECTED: Final[tuple[ExpectedDifference, ...]] = (
    *(
        ExpectedDifference("mc146818rtc", f"cmos_data[[]*[]] {register}", _CLOCK)
        for register in CMOS_REGISTERS.values()
    ),
    ExpectedDifference("pl031", "tick_offset_vmstate", _PL031),
    ExpectedDifference("tpm-emulator", "state_blobs.volatil.buffer", _TPM_CLOCK),
    ExpectedDifference("*/qxl", "ssd.unique", _QXL_IMAGES),
    ExpectedDifference("*/igb", "core.rx_desc_len", _IGB_DESCRIPTORS, bits=16),
    _told("*", "*gpe.sts*", 1 << 5),
    _told("*/ICH9LPC", "sci_level", 1),
    _told("i8259", "irr", 1 << 1),
    _told("i8259", "last_irr", 1 << 1),
    _told("ioapic", "irr", 1 << 9),
    # An emulated vCPU is told to look at its APIC (CPU_INTERRUPT_POLL).
    _told("cpu_common", "interrupt_request", 1 << 4),
    # The interrupt's "remote IRR" bit.
    _told("ioapic", "ioredtbl[[]9[]]", 1 << 14),
    ExpectedDifference(
        "globalstate",
        "*vm_was_suspended",
        "QEMU before 9.0 has no such field: there it is part of the name of the state, and zero",
        versions=True,
    ),
    # Its vector is the guest's choice.
    _told("apic", "irr[[]*[]]", -1),
    _told("apic", "tmr[[]*[]]", -1),
)


def reason_for(
    device: str,
    field: str,
    machine: SavedMachine,
    change: tuple[int, int] | None = None,
    expected: Sequence[ExpectedDifference] = EXPECTED,
) -> str | None:
    """Why a field may differ; None: it must not."""
    rows = (row for row in expected if row.explains(device, field, machine, change))
    return next((row.reason for row in rows), None)
