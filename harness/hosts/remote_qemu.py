# SPDX-License-Identifier: GPL-2.0-or-later
"""A QEMU on another machine: found, and its memory opened, by our deputy there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.errors import MachineryError
from harness.hosts.remote_deputy import DeputyClient
from harness.hosts.remote_memory import ORACLE, LookContext, RemoteImage
from harness.memory.access import Image
from harness.memory.qemu_ram import BlockPlace


@dataclass(frozen=True, slots=True)
class RemoteQemu:
    """See :class:`harness.hosts.interface.QemuProcess`."""

    pid: int
    words: tuple[str, ...]
    deputy: DeputyClient
    shared: LookContext

    @property
    def here(self) -> bool:
        """False: this QEMU runs on another machine."""
        return False

    def command(self) -> Sequence[str]:
        """QEMU's command line."""
        return self.words

    def open(self, blocks: Sequence[BlockPlace]) -> Mapping[str, Image]:
        """Have the deputy open the RAMBlocks that are files."""
        header, _ = self.deputy.call("open", purpose=ORACLE, pid=self.pid, blocks=_places(blocks))
        return self._images(header, blocks)

    def copy(self, blocks: Sequence[BlockPlace]) -> Mapping[str, Image | OSError]:
        """Have the deputy copy RAMBlocks that are in no file out of QEMU."""
        header, _ = self.deputy.call("copy", purpose=ORACLE, pid=self.pid, blocks=_places(blocks))
        failed = header.get("failed")
        found: dict[str, Image | OSError] = {
            block.name: OSError("QEMU does not tell where it is") for block in blocks if block.address is None
        }
        found |= self._images(header, blocks)
        if isinstance(failed, Mapping):
            found |= {name: OSError(str(why)) for name, why in failed.items()}
        return found

    def _images(self, header: Mapping[str, object], blocks: Sequence[BlockPlace]) -> Mapping[str, Image]:
        numbers, sizes = header.get("images"), {block.name: block.used for block in blocks}
        if not isinstance(numbers, Mapping):
            raise MachineryError(f"the {self.deputy.name} does not say what it opened")
        return {
            str(name): RemoteImage(self.deputy, int(number), str(name), sizes[str(name)], self.shared)
            for name, number in numbers.items()
            if name in sizes
        }


def _places(blocks: Sequence[BlockPlace]) -> list[list[object]]:
    known = (block for block in blocks if block.address is not None)
    return [[block.name, block.address, block.used] for block in known]


def find_qemu(deputy: DeputyClient, monitor: str, shared: LookContext) -> RemoteQemu:
    """The QEMU whose monitor has this path over there."""
    header, _ = deputy.call("find")
    found = header.get("processes")
    for pid, words in found if isinstance(found, list) else ():
        if any(monitor in str(word) for word in words):
            return RemoteQemu(int(pid), tuple(map(str, words)), deputy, shared)
    raise MachineryError(f"the {deputy.name}'s QEMU cannot be found there: nothing has the monitor {monitor}")
