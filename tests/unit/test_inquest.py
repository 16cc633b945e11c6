# SPDX-License-Identifier: GPL-2.0-or-later
"""What is read of a nested machine that says nothing any more."""

from __future__ import annotations

import os
import socket
import threading

from harness.hosts.processors import Processor, processors_of
from harness.nested.inquest import hold_inquest, summary_of

REGISTERS = """
CPU#0
RAX=0000000000000000 RBX=ffff888003a68000 RCX=0000000000000000 RDX=4000000000000000
RIP=ffffffff81c2e0cb RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=1
ES =0000 0000000000000000 ffffffff 00c00000

CPU#1
RAX=0000000000000000 RBX=0000000000000001 RCX=0000000000000000 RDX=0000000000000000
RIP=ffffffff8110a5d2 RFL=00000002 [-------] CPL=0 II=0 A20=1 SMM=0 HLT=0
"""


def test_each_cpu_is_read() -> None:
    assert processors_of(REGISTERS) == [
        Processor(0, 0xFFFFFFFF81C2E0CB, halted=True, interrupts=True),
        Processor(1, 0xFFFFFFFF8110A5D2, halted=False, interrupts=False),
    ]


def test_what_is_no_answer_has_no_cpus() -> None:
    assert processors_of("") == []
    assert processors_of("CPU#0\nno registers here\n") == []


def test_a_cpu_that_runs_is_told_from_one_that_is_halted() -> None:
    later = REGISTERS.replace("ffffffff8110a5d2", "ffffffff8110a5d9")
    assert summary_of(processors_of(REGISTERS), processors_of(later)) == (
        "its CPU 0 halted at 0xffffffff81c2e0cb",
        "its CPU 1 runs at 0xffffffff8110a5d2, then at 0xffffffff8110a5d9",
    )


def test_a_monitor_that_says_no_greeting_is_said_and_the_threads_are_seen() -> None:
    asked, asking = socket.socketpair()
    with asked:
        asking.close()
        found = hold_inquest(os.getpid(), asked, cpus=2)
    assert len(found.summary) == 1
    assert found.summary[0].startswith("its QEMU's monitor does not answer")
    assert str(threading.get_native_id()) in found.report
