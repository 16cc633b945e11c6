# SPDX-License-Identifier: GPL-2.0-or-later
"""How a deliberate fault gets into what is under test, and nowhere else.

It is chosen by a property of QEMU's balloon device, or by a word on the guest
kernel's command line that becomes a parameter of the module.  Both builds exist
for this only.  The scenario stays the same, and so does all that judges the
run: a checker must not be told the answer.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Injection:
    """What is different in a run with a fault."""

    qemu_flavour: str = "patched"
    qemu_arguments: tuple[str, ...] = ()
    faulty_module: bool = False
    cmdline: str = ""


NO_INJECTION = Injection()


def injection_of(fault: str | None) -> Injection:
    """How to build and start what has that fault; raises :class:`InputError` if no fault has that id."""
    if fault is None:
        return NO_INJECTION
    from harness.faults.catalogue import catalogue

    found = catalogue().find(fault)
    if found.where == "qemu":
        return Injection("faults", ("-global", f"virtio-balloon-device.x-fault={found.id}"))
    return Injection(faulty_module=True, cmdline=f"freepage.params=misbehave={found.id}")
