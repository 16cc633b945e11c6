# SPDX-License-Identifier: GPL-2.0-or-later
"""The connections of one migration, each in a file: which is which, by how they begin."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from harness.migstream.account import StreamedGuest, read_stream
from harness.migstream.multifd import CHANNEL_MAGIC
from harness.migstream.source import StreamError, UnknownFormError

_MAIN: Final = b"QEVM"
_CHANNEL: Final = struct.pack(">I", CHANNEL_MAGIC)
#: TLS begins with a handshake of version 3.x.
_HANDSHAKE: Final = b"\x16\x03"

ENCRYPTED: Final = "it is encrypted (TLS), by keys that nobody else has: only its bytes are counted"


@dataclass(frozen=True, slots=True)
class StreamFiles:
    """One migration's connections, in the order in which they were made."""

    main: Path
    channels: tuple[Path, ...]
    urgent: Path | None

    @classmethod
    def of(cls, paths: list[Path]) -> StreamFiles:
        """Sort them.  Raises :class:`StreamError` unless they are those of one migration."""
        begins = [(path, _head(path)) for path in paths]
        begins = [(path, head) for path, head in begins if head]
        if any(head.startswith(_HANDSHAKE) for _, head in begins):
            raise UnknownFormError(0, ENCRYPTED)
        mains = [path for path, head in begins if head == _MAIN]
        channels = tuple(path for path, head in begins if head == _CHANNEL)
        others = [path for path, head in begins if head not in (_MAIN, _CHANNEL)]
        if not mains:
            raise StreamError(0, "none of the connections is that of a migration")
        if len(mains) > 1 or len(others) > 1:
            raise UnknownFormError(0, "the connections are those of several migrations, or of one that broke")
        return cls(mains[0], channels, others[0] if others else None)

    def read(self, *, keep: bool = True) -> StreamedGuest:
        """Read all of them; see :func:`harness.migstream.account.read_stream`."""
        with contextlib.ExitStack() as stack:
            main, *channels = [stack.enter_context(path.open("rb")) for path in (self.main, *self.channels)]
            urgent: BinaryIO | None = None
            if self.urgent is not None:
                urgent = stack.enter_context(self.urgent.open("rb"))
            return read_stream(main, channels, urgent, keep=keep)


def stream_files(folder: Path) -> Iterator[Path]:
    """What a tap has written, a file for each connection, in their order."""
    yield from sorted(folder.glob("*.stream"), key=lambda path: (len(path.name), path.name))


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        head = file.read(4)
    return head[:2] if head.startswith(_HANDSHAKE) else head
