# SPDX-License-Identifier: GPL-2.0-or-later
"""Model specific registers of the guest's processors, as the guest reads them before and after.

QEMU carries them over with a vCPU (``vmstate_x86_cpu`` in target/i386/machine.c, with its subsections;
under KVM ``kvm_get_msrs()`` and ``kvm_put_msrs()``).  A guest with kvmclock cannot be saved once more where
it arrives (docs/oracle.md), so the guest is asked, before it leaves and once it runs again.  So only those
are listed that a kernel sets as it boots and leaves alone then.  Not listed, as they change while a guest
runs: the TSC, its deadline and adjustment; KERNEL_GS_BASE and what else belongs to a task (SPEC_CTRL,
VIRT_SSBD, XFD, PKRS); the counters of performance, branches and SMIs; Hyper-V's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

#: By QEMU's name of the field: the register's number.
STEADY: Final[Mapping[str, int]] = {
    "apic_base": 0x1B,
    "feature_control": 0x3A,
    "sgxlepubkeyhash[0]": 0x8C,
    "tsx_ctrl": 0x122,
    "sysenter_cs": 0x174,
    "sysenter_esp": 0x175,
    "sysenter_eip": 0x176,
    "mcg_status": 0x17A,
    "mcg_ctl": 0x17B,
    "misc_enable": 0x1A0,
    "umwait": 0xE1,
    "pat": 0x277,
    "mtrr_deftype": 0x2FF,
    "xss": 0xDA0,
    "efer": 0xC0000080,
    "star": 0xC0000081,
    "lstar": 0xC0000082,
    "cstar": 0xC0000083,
    "fmask": 0xC0000084,
    "tsc_aux": 0xC0000103,
    "hwcr": 0xC0010015,
    "vm_hsave": 0xC0010117,
    "wall_clock_msr": 0x4B564D00,
    "system_time_msr": 0x4B564D01,
    "async_pf_en_msr": 0x4B564D02,
    "steal_time_msr": 0x4B564D03,
    "pv_eoi_en_msr": 0x4B564D04,
    "poll_control_msr": 0x4B564D05,
    "async_pf_int_msr": 0x4B564D06,
    **{
        f"mtrr_fixed[{place}]": number
        for place, number in enumerate((0x250, 0x258, 0x259, *range(0x268, 0x270)))
    },
    **{f"mtrr_var[{n}].base": 0x200 + 2 * n for n in range(8)},
    **{f"mtrr_var[{n}].mask": 0x201 + 2 * n for n in range(8)},
    **{f"mce_banks[{4 * n}]": 0x400 + 4 * n for n in range(10)},
}

#: By name, what a processor has in a register; None: it has none of that number.
VcpuMsrs = Mapping[str, int | None]


@dataclass(frozen=True, slots=True)
class LostRegister:
    """A register of a processor that is not what it was."""

    cpu: int
    name: str
    before: int | None
    after: int | None

    def __str__(self) -> str:
        words = ("absent" if value is None else f"{value:#x}" for value in (self.before, self.after))
        return f"CPU {self.cpu}: {self.name} {' -> '.join(words)}"


@dataclass(frozen=True, slots=True)
class RegisterReview:
    """What came of a guest's registers, for the verdict; ``read``: how many there were, of all processors."""

    read: int
    lost: tuple[LostRegister, ...]


def review_registers(before: Sequence[VcpuMsrs], after: Sequence[VcpuMsrs]) -> RegisterReview:
    """Hold what each processor has against what it had; processors that have come or gone are left out."""
    pairs = list(enumerate(zip(before, after, strict=False)))
    read = sum(value is not None for _, (here, _) in pairs for value in here.values())
    return RegisterReview(read, tuple(lost for cpu, pair in pairs for lost in _lost(cpu, *pair)))


def _lost(cpu: int, before: VcpuMsrs, after: VcpuMsrs) -> Iterator[LostRegister]:
    for name in before:
        if before[name] != after.get(name):
            yield LostRegister(cpu, name, before[name], after.get(name))
