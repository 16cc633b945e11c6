# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's migration stream, read from outside: what it says, page by page and section by section.  Pure.

    with path.open("rb") as file:
        account = read_stream(file)         # harness.migstream.account
    account.blocks["pc.ram"].full           # pages that were sent whole
    account.memory["pc.ram"]                # what a destination that loads it must hold

The form is that of QEMU's migration/savevm.c and migration/ram.c (version 3 of the
stream, every QEMU from 2.3 on): no other program's word is needed, so a stream is a
witness of what any QEMU has sent.  It comes from a program under test, or from
anybody: every length in it is bounded, and nothing in it is believed.
"""

from __future__ import annotations
