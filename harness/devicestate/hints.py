# SPDX-License-Identifier: GPL-2.0-or-later
"""How many of upstream's free page hints a balloon has taken, by its own state.

A QEMU without the series keeps no record of them.  Its device's state says how far it has
read in the queue of the hints, which tells whether there were any.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from harness.devicestate.sections import Section
from harness.devicestate.virtio import virtio_fields

_BALLOON: Final = "virtio-balloon"
#: After inflate, deflate and statistics (``virtio_balloon_device_realize()``).
_QUEUE: Final = 3
#: Of what is in the queue, that is no hint: where hints begin and where they end, each with a buffer.
_MARKS: Final = 2


def hints_taken(sections: Sequence[Section]) -> int | None:
    """Hints that the device has taken since its driver was loaded, modulo 65536; None: it does not say."""
    section = next((one for one in sections if one.device.rpartition("/")[2] == _BALLOON), None)
    if section is None:
        return None
    fields = {name: section.data[at : at + size] for name, at, size in virtio_fields(section.data)}
    index = fields.get(f"vq[{_QUEUE}].last_avail_idx")
    return None if index is None else max(0, int.from_bytes(index, "big") - _MARKS)
