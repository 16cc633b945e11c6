# SPDX-License-Identifier: GPL-2.0-or-later
"""The state of a guest's devices and vCPUs, as QEMU saves it: split, described, compared.  Pure.

Memory is not all that a migration moves.  QEMU saves each device's state as a
section of its stream; two QEMUs that stand still at switch-over are asked for
those sections once more, without memory, and must give the same bytes.

    source = read_sections(saved_by_the_source)
    destination = read_sections(saved_by_the_destination)
    for difference in compare(source, destination, description):
        print(difference)       # virtio-blk[0]: vq[0].last_avail_idx 17 -> 16

``description`` is QEMU's own account of its fields (vmdesc), which follows the
last section of a migration's stream; without one a difference is named by its
section and offset alone.
"""

from __future__ import annotations
