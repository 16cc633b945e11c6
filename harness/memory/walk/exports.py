# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernel's image itself tells of symbols that its table of symbols leaves out.

    addresses = find_exports(space, info, ("node_data",))

A kernel without CONFIG_KALLSYMS_ALL has only functions in that table.  What modules may use is in another
one (``struct kernel_symbol`` with relative references, include/linux/export-internal.h): three numbers of
32 bits, of which the first leads from its own place to the symbol, the second from its own to the name.
That one word of a large image leads to the name by chance is rare, and happened: the entry before or
after it in the table has to lead to a name, too.

BTF is known by its first bytes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

import numpy as np
import numpy.typing as npt

from harness.memory.walk import btf
from harness.memory.walk.errors import WalkError
from harness.memory.walk.pagetables import AddressSpace
from harness.memory.walk.vmcoreinfo import VmcoreInfo

#: No kernel's text and constants are larger.
_LONGEST = 96 << 20
#: Numbers in a struct kernel_symbol.
_ENTRY = 3
#: The names of all exported symbols stand together: some 250 KiB of them.
_LONGEST_NAMES = 4 << 20
_NAME = re.compile(rb"[A-Za-z_][A-Za-z0-9_]{1,127}\0")
#: struct btf_header: magic, version 1, no flags, the header's own size.
_BTF_BEGINS = btf.HEADER.pack(btf.MAGIC, 1, 0, btf.HEADER.size, 0, 0, 0, 0)[:12]


def find_exports(space: AddressSpace, info: VmcoreInfo, wanted: Collection[str]) -> Mapping[str, int]:
    """The addresses of these symbols, as far as exactly one place of the image exports each.

    ``__start_BTF`` and ``__stop_BTF`` may be among them.
    """
    start = info.symbol("_stext")
    content = _image(space, start)
    words = np.frombuffer(content, dtype="<i4")
    targets = np.arange(len(words), dtype=np.int64) * 4 + words
    found = {}
    for name in wanted:
        places = [
            place
            # The linker keeps a name that another one ends with in there: no zero has to stand in front.
            for text in _all(content, name.encode("ascii") + b"\0")
            for place in np.flatnonzero(targets == text).tolist()
            if place and _in_table(content, targets, place)
        ]
        if len(places) == 1:
            found[name] = start + int(targets[places[0] - 1])
    return found | _btf(content, start)


def _in_table(content: bytes, targets: npt.NDArray[np.int64], place: int) -> bool:
    """Whether an entry beside the one whose name is told at ``place`` has a name as well."""
    beside = (place - _ENTRY, place + _ENTRY)
    return any(
        0 <= other < len(targets)
        and abs(int(targets[other]) - int(targets[place])) < _LONGEST_NAMES
        and _NAME.match(content, max(0, int(targets[other]))) is not None
        for other in beside
    )


def _image(space: AddressSpace, start: int) -> bytes:
    """From its beginning to where nothing is mapped any more: the memory of its initialisation is gone."""
    first = next(iter(space.runs(start, _LONGEST)))
    if first.physical is None:
        raise WalkError("unmapped", "the kernel's image", f"the kernel maps nothing at {start:#x}")
    parts = []
    for run in space.runs(start, _LONGEST):
        if run.physical is None or not space.memory.holds(run.physical, run.length):
            break
        parts.append(space.memory.read(run.physical, run.length))
    content = b"".join(parts)
    return content[: len(content) // 4 * 4]


def _all(content: bytes, needle: bytes) -> list[int]:
    places: list[int] = []
    place = content.find(needle)
    while place >= 0 and len(places) < 256:
        places.append(place)
        place = content.find(needle, place + 1)
    return places


def _btf(content: bytes, start: int) -> dict[str, int]:
    for place in _all(content, _BTF_BEGINS):
        length = btf.length(content[place : place + btf.HEADER.size].ljust(btf.HEADER.size, b"\0"))
        if btf.HEADER.size < length <= len(content) - place:
            return {"__start_BTF": start + place, "__stop_BTF": start + place + length}
    return {}
