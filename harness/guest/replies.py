# SPDX-License-Identifier: GPL-2.0-or-later
"""What the guest may answer on the control channel, verb by verb.

The guest is what is under test: after a migration gone wrong its words may be
anything.  Nothing that it says is used before it has passed through here.
"""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

_U64: Final = (1 << 64) - 1

Count = Annotated[int, Field(strict=True, ge=0, le=_U64)]
_Word = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
_Text = Annotated[str, Field(max_length=512)]


class Reply(BaseModel):
    """Base: frozen, and nothing but what is named."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Plain(Reply):
    """What a verb without a model of its own may say: numbers, words and lists of numbers."""

    model_config = ConfigDict(frozen=True, extra="allow")

    __pydantic_extra__: dict[
        str, Count | bool | _Text | Annotated[list[Count], Field(max_length=4096)] | None
    ]


class Nothing(Reply):
    """Done; there is nothing more to say."""


class Hello(Reply):
    """``ready`` and ``ping``: who the guest is.  A guest that does nothing else says only ``init``."""

    init: _Text = ""
    protocol: Count = 0
    driver: _Text = ""
    release: _Text = ""
    uptime_ms: Count = 0
    mem_total: Count = 0
    mem_free: Count = 0
    loaded: bool = False


class BadPage(Reply):
    """The first page that is not what it must be, and its first wrong word."""

    page: Count
    word: Annotated[int, Field(strict=True, ge=0, lt=512)]
    expected: _Word
    actual: _Word


class PagesReply(Reply):
    """``load``, ``verify``, ``stop``, ``exercise``: what was read, and how much of it was wrong.

    ``freed`` counts the pages that a load wrote and gave back, ``steps`` those of
    the churn, ``live_*`` what the churn checked on its way; ``nonzero`` counts
    fresh pages that did not come as zeros.
    """

    kind: _Text
    pages: Count
    bad: Count
    checksum: _Word
    first_bad: BadPage | None
    seconds: Annotated[float, Field(ge=0)]
    freed: Count = 0
    steps: Count = 0
    live_checked: Count = 0
    live_bad: Count = 0
    nonzero: Count = 0


class ScriptPagesReply(PagesReply):
    """``pages-alloc``, ``pages-write``, ``pages-read``, ``pages-free``: the script's own pages.

    ``frames``: where the first of them are in the guest's memory.
    """

    frames: list[Count] = Field(default=[], max_length=512)


class MemoryBlocks(Reply):
    """``memory-offline``, ``memory-online``: memory blocks that changed, by number."""

    blocks: list[Count] = Field(max_length=1024)


class KernelLog(Reply):
    """``kmsg [AFTER]``: trouble in the kernel's log, from records after that sequence number.

    ``count`` may be more than the lines that fit; ``sequence`` is of the newest record.
    """

    read: bool
    sequence: Annotated[int, Field(strict=True, ge=-1, le=_U64)] = -1
    warnings: Count
    count: Count
    lost: Count
    lines: list[_Text]


class Stats(Reply):
    """``stats``: memory, and the module's counters where it is loaded."""

    mem_total: Count
    mem_free: Count
    mem_available: Count
    module: dict[_Text, Count | list[Count] | _Text] | None


class DeviceReply(Reply):
    """``device``: what is wrong with a device, in words, if anything is; what was done with it."""

    wrong: _Text
    silent: bool
    did: _Text
    value: Annotated[str, Field(pattern=r"^([0-9a-f]{2})*$", max_length=512)]


class FrameList(Reply):
    """``frames``: a file in the guest with {page, frame} pairs of 64 bit words."""

    path: _Text
    pages: Count


class HeldWalk(Reply):
    """``held POINT``: the module stands there, on the request ``id``, after so many entries of its walk."""

    point: _Text
    id: Count
    entries: Count


class WalkRelease(Reply):
    """``release``: whether anything stood, and goes on now."""

    released: bool


class Clock(Reply):
    """``clock``, ``watch``: the guest's own clock; it stands while the guest is stopped."""

    us: Count


class Window(Reply):
    """``window``: between the first and the last sample in it.  Without a sample all is 0."""

    samples: Count
    us: Count
    work: Count
    mem_free_lowest: Count
    gap_us: Count


class CommandReply(Reply):
    """``run SECONDS WORD..``: how a command ended; what it wrote is asked for by the number of the call."""

    call: Count
    status: Annotated[int, Field(strict=True, ge=0, le=255)]
    signal: Annotated[int, Field(strict=True, ge=0, le=64)]
    late: bool
    bytes: Count


class OutputPiece(Reply):
    """``output CALL FROM``: a piece of what a command wrote, in base64."""

    data: Annotated[str, Field(max_length=4096)]


Register = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")] | None


class Registers(Reply):
    """``msrs CPU``: KVM's own registers of one processor; null: there is none."""

    wall_clock: Register
    system_time: Register
    async_pf: Register
    steal_time: Register
    pv_eoi: Register


class RegisterValues(Reply):
    """``msr-values CPU NUMBER..``: any registers of one processor; null: there is none of that number."""

    values: Annotated[list[Register], Field(max_length=40)]


class Orders(Reply):
    """``orders``: free blocks by order, from 0."""

    blocks: Annotated[list[Count], Field(max_length=32)]


REPLIES: Final[dict[str, type[Reply]]] = {
    "ping": Hello,
    "load": PagesReply,
    "unload": Nothing,
    "verify": PagesReply,
    "stop": PagesReply,
    "exercise": PagesReply,
    "frames": FrameList,
    "device": DeviceReply,
    "kmsg": KernelLog,
    "stats": Stats,
    "watch": Clock,
    "clock": Clock,
    "window": Window,
    "orders": Orders,
    "msrs": Registers,
    "msr-values": RegisterValues,
    "wake": Nothing,
    "poweroff": Nothing,
    "hold": Nothing,
    "unhold": Nothing,
    "held": HeldWalk,
    "release": WalkRelease,
    "misbehave": Nothing,
    "tune": Nothing,
    "behave": Nothing,
    "take": Nothing,
    "pages-alloc": ScriptPagesReply,
    "pages-write": ScriptPagesReply,
    "pages-read": ScriptPagesReply,
    "pages-free": ScriptPagesReply,
    "driver-unbind": Nothing,
    "driver-bind": Nothing,
    "memory-offline": MemoryBlocks,
    "memory-offline-begin": Nothing,
    "memory-online": MemoryBlocks,
    "run": CommandReply,
    "output": OutputPiece,
    "reboot": Nothing,
    "kexec": Nothing,
}
