# SPDX-License-Identifier: GPL-2.0-or-later
"""How a guest's writes are logged: KVM's bitmap or its ring, and how QEMU clears the bitmap.

QEMU chooses among KVM's ways by itself, and each arms the log at another moment;
see the first row of the table in docs/protocol.md.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

KvmDirty: TypeAlias = Literal["bitmap", "bitmap-without-manual-protect", "ring"]

#: Entries of each vCPU's ring; a power of two, and more than KVM keeps for itself.
RING_ENTRIES: Final = 4096


@dataclass(frozen=True, slots=True)
class DirtyLog:
    """The choice, for one QEMU."""

    kvm: KvmDirty = "bitmap"
    #: Pages of one bit of QEMU's "to be cleared" map, as a power of two; None: QEMU's default, 18.
    clear_bitmap_shift: int | None = None
    #: Loaded into QEMU to hide manual protection from it.
    preload: Path | None = None

    def add_features(self, features: ET.Element) -> None:
        """What libvirt has words for."""
        if self.kvm == "ring":
            kvm = ET.SubElement(features, "kvm")
            ET.SubElement(kvm, "dirty-ring", {"state": "on", "size": str(RING_ENTRIES)})

    def arguments(self) -> Iterator[str]:
        """What it has none for."""
        if self.clear_bitmap_shift is not None:
            yield from ("-global", f"migration.x-clear-bitmap-shift={self.clear_bitmap_shift}")

    def environment(self) -> Mapping[str, str]:
        """Variables of QEMU's."""
        if self.kvm != "bitmap-without-manual-protect" or self.preload is None:
            return {}
        return {"LD_PRELOAD": str(self.preload)}


#: What QEMU does by itself.
QEMUS_CHOICE: Final = DirtyLog()
