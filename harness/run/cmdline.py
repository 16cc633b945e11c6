# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line of the guest's kernel."""

from __future__ import annotations

from typing import Final

from harness import accel
from harness.arch import GUEST
from harness.hosts.interface import Nic
from harness.hosts.netns import PREFIX
from harness.plan.plan import RunPlan

#: Each byte for the console is an exit of the guest's, and each exit of an emulated KVM costs a millisecond.
#: (A kernel that panics says so at any level.)  Tests of its ciphers take it as long as all else.
#: Where init expects the host without a word.
INIT_CONTROL: Final = "ttyS1"
_EMULATED_KVM: Final = "loglevel=4 cryptomgr.notests"


def kernel_cmdline(plan: RunPlan, *, nic: Nic | None) -> str:
    """The words that the guest's kernel is started with; ``nic``: its first, None: it has none yet.

    A kernel that panics restarts at once, which ends its QEMU: a guest that
    failed must not sit there until a deadline.
    """
    guest, board = plan.resolved.scenario.guest, GUEST.board
    words = [
        f"console={board.console} panic=-1 {board.cmdline}",
        f"freepage.driver={plan.driver}",
        f"freepage.control={board.control}" if board.control != INIT_CONTROL else "",
        f"freepage.ip={nic.address}/{PREFIX}" if nic is not None else "",
        # Which of several is the first, as drivers come in no order.
        f"freepage.mac={nic.mac}" if nic is not None and len(guest.all_nics) > 1 else "",
        # Of a guest that names its interfaces itself; the small one does not care.
        "net.ifnames=0" if plan.disk is not None and plan.disk.distribution else "",
        _EMULATED_KVM if accel.chain() == "kvm-in-tcg" else "",
        # Memory that is there from the beginning, or comes by itself, is used without anybody's doing.
        "memhp_default_state=online_movable" if guest.shared is not None or guest.virtio_mem else "",
        "freepage.modules=virtio_mem" if guest.virtio_mem is not None else "",
        *(word for device in guest.all_devices for word in device.kernel_words),
        guest.cmdline,
        plan.injection.cmdline,
    ]
    return " ".join(filter(None, words))
