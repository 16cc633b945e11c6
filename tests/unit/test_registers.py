# SPDX-License-Identifier: GPL-2.0-or-later
"""vCPUs whose devices must not be saved: their registers, as QEMU shows them."""

from __future__ import annotations

from harness.devicestate.compare import Comparison
from harness.devicestate.registers import compare_registers, shown_registers
from harness.devicestate.sections import Section
from harness.evidence.device_state import SavedState, compare_states, registers_of
from harness.migration.qmp import CommandError
from harness.verdict.judge import JudgeInput, judge

TEXT = """\r
CPU#0\r
RAX=000000000001ad40 RBX=0000000000000000 RCX=0000000000000001 RDX=4000000000000000
RIP=ffffffff81e0b2ab RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=1
ES =0000 0000000000000000 ffffffff 00c00000
CS =0010 0000000000000000 ffffffff 00af9b00 DPL=0 CS64 [-RA]
GDT=     fffffe0000001000 0000007f
CR0=80050033 CR2=00007f9d8c5d4f30 CR3=0000000002c10000 CR4=003506f0
EFER=0000000000000d01
FCW=037f FSW=0000 [ST=0] FTW=00 MXCSR=00001f80
FPR0=0000000000000000 0000 FPR1=0000000000000000 0000
XMM00=0000000000000000 00000000000000ff XMM01=0000000000000000 0000000000000000
CPU#1\r
RAX=0000000000000002 RBX=0000000000000003
"""
WHY = "because of the clock"
#: QEMU's x86_cpu_dump_local_apic_state().
APIC = """\r
dumping local APIC state for CPU 1 \r
\r
LVT0\t 0x00010700 active-hi edge  masked                      ExtINT (vec 0)\r
LVTT\t 0x000400ec active-hi edge                 tsc-deadline Fixed  (vec 236)\r
Timer\t DCR=0x3 (divide by 16) initial_count = 62500 current_count = 4711\r
SPIV\t 0x000001ff APIC enabled, focus=off, spurious vec 255\r
ICR\t 0x000000fd physical edge de-assert no-shorthand\r
ICR2\t 0x00000001 cpu 1 (X2APIC ID)\r
ESR\t 0x00000000\r
ISR\t (none)\r
IRR\t 38 236(level) \r
\r
APR 0x00 TPR 0x10 DFR 0x0f LDR 0x02 PPR 0x10\r
"""


def test_registers_are_read_by_name() -> None:
    found = shown_registers(TEXT)
    assert found[0, "RAX"] == "000000000001ad40"
    assert found[0, "CS"] == "0010 0000000000000000 ffffffff 00af9b00"
    assert found[0, "GDT"] == "fffffe0000001000 0000007f"
    assert found[0, "HLT"] == "1"
    assert found[0, "XMM00"] == "0000000000000000 00000000000000ff"
    assert found[1, "RBX"] == "0000000000000003"


def test_an_apics_registers_are_its_vcpus() -> None:
    found = shown_registers(TEXT + APIC)
    assert found[0, "RAX"] == "000000000001ad40"
    assert found[1, "RAX"] == "0000000000000002"
    assert found[1, "apic.LVT0"] == "0x00010700 active-hi edge masked ExtINT (vec 0)"
    assert found[1, "apic.IRR"] == "38 236(level)"
    assert found[1, "apic.ISR"] == "(none)"
    assert (found[1, "apic.DCR"], found[1, "apic.initial_count"]) == ("0x3", "62500")
    assert (found[1, "apic.LDR"], found[1, "apic.PPR"]) == ("0x02", "0x10")
    assert not any("current" in name for _, name in found)


def test_an_interrupt_that_waited_and_is_gone() -> None:
    found = compare_registers(TEXT + APIC, TEXT + APIC.replace("IRR\t 38 236(level)", "IRR\t (none)"), WHY)
    assert isinstance(found, Comparison)
    assert [str(one) for one in found.differences] == ["cpu[1]: apic.IRR 38 236(level) -> (none)"]
    later = compare_registers(TEXT + APIC, TEXT + APIC.replace("4711", "4700"), WHY)
    assert isinstance(later, Comparison)
    assert later.differences == ()


class Shows:
    """A QEMU's monitor."""

    def __init__(self, *, lapic: bool = True) -> None:
        self.asked: list[tuple[object, object]] = []
        self.lapic = lapic

    def execute(self, command: str, arguments: dict[str, object]) -> str:
        assert command == "human-monitor-command"
        line = arguments["command-line"]
        self.asked.append((line, arguments.get("cpu-index")))
        if line == "info lapic" and not self.lapic:
            raise CommandError("no")
        return TEXT if line == "info registers -a" else APIC


def test_each_apic_is_asked_for() -> None:
    monitor = Shows()
    assert registers_of(monitor, apics=False) == TEXT  # type: ignore[arg-type]
    assert "dumping local APIC" in registers_of(monitor, apics=True)  # type: ignore[arg-type]
    assert monitor.asked[1:] == [("info registers -a", None), ("info lapic", 0), ("info lapic", 1)]
    assert registers_of(Shows(lapic=False), apics=True) == TEXT  # type: ignore[arg-type]


def test_one_register_differs() -> None:
    found = compare_registers(TEXT, TEXT.replace("00000000000000ff", "0000000000000000"), WHY)
    assert isinstance(found, Comparison)
    assert [str(one) for one in found.differences] == [
        "cpu: XMM00 0000000000000000 00000000000000ff -> 0000000000000000 0000000000000000"
    ]
    assert found.devices == 2
    assert WHY in found.partly
    assert [one.rule for one in judge(JudgeInput(arm="off", blocks=()), found).findings] == [
        "device-state-differs"
    ]


def test_the_same_registers() -> None:
    found = compare_registers(TEXT, TEXT, WHY)
    assert isinstance(found, Comparison)
    assert found.differences == ()
    assert compare_registers(TEXT, "", WHY) == WHY


def no_description() -> dict[str, object]:
    raise AssertionError("nobody asks for it")


def test_a_guest_with_a_kvmclock_is_compared_by_its_registers() -> None:
    clock = Section("kvmclock", 0, 1, bytes(8))
    source = SavedState((clock,), registers=TEXT)
    assert source.has_kvmclock
    found = compare_states(source, SavedState(missing=WHY, registers=TEXT), no_description, "kvm")
    assert isinstance(found, Comparison)
    assert found.partly
    without = SavedState((Section("rtc", 0, 1, bytes(8)),), registers=TEXT)
    assert not without.has_kvmclock
    whole = compare_states(without, without, no_description, "kvm")
    assert isinstance(whole, Comparison)
    assert not whole.partly
