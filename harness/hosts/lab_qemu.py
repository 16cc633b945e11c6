# SPDX-License-Identifier: GPL-2.0-or-later
"""A QEMU of the lab: a process of this machine, whose memory is at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.errors import MachineryError
from harness.memory.access import Image
from harness.memory.image import RamImage
from harness.memory.live_image import LiveImage
from harness.memory.qemu_ram import BlockPlace, backings, placed, read_block
from harness.units import PAGE_SIZE

#: What is smaller and in no file (firmware, a display's memory) is copied once, when the guest has left.
LARGE: Final = 32 << 20


@dataclass(frozen=True, slots=True)
class LabQemu:
    """See :class:`harness.hosts.interface.QemuProcess`; its RAM files are below ``memory``."""

    pid: int
    memory: Path

    @property
    def here(self) -> bool:
        """True: a lab's QEMU runs on this machine."""
        return True

    def command(self) -> list[str]:
        """QEMU's command line."""
        words = Path(f"/proc/{self.pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        return [word.decode(errors="replace") for word in words]

    def open(self, blocks: Sequence[BlockPlace]) -> dict[str, Image]:
        """Open the RAMBlocks that are files, and those in none that are as large as a guest's RAM."""
        found: dict[str, Image] = {}
        for backing in backings(self.pid, blocks, self.memory):
            block = backing.block
            # QEMU makes a file as large as a block may become, rounded up as it rounds that.
            room = max(block.used, block.total)
            found[block.name] = RamImage.open(backing.path, block.used, block.name, backing.base, room)
        for block in blocks:
            if block.name not in found and block.used >= LARGE and block.address is not None:
                found[block.name] = LiveImage(self.pid, block.address, block.used, block.name)
        return found

    def copy(self, blocks: Sequence[BlockPlace]) -> Mapping[str, Image | OSError]:
        """Copy RAMBlocks that are in no file out of QEMU."""
        if any(block.address is None for block in blocks):
            maps = Path(f"/proc/{self.pid}/maps").read_text(encoding="utf-8", errors="replace")
            blocks = placed(maps, blocks)
        return {block.name: self._copy(block) for block in blocks}

    def _copy(self, block: BlockPlace) -> Image | OSError:
        try:
            content = read_block(self.pid, block)
        except OSError as error:
            return error
        if not content or len(content) % PAGE_SIZE:
            return OSError(f"its {len(content)} bytes are no whole pages")
        try:
            return RamImage.from_bytes(content, block.name.replace("/", "-"))
        except MachineryError as error:
            return OSError(error.message)
