# SPDX-License-Identifier: GPL-2.0-or-later
"""What a run keeps of every page, in one compressed file: ``pages.npz``.

    Kept.of(evidence parts).save(folder / "pages.npz")
    kept = Kept.load(folder / "pages.npz")

A byte a page for its category, two for the request whose answer cleared it, bits
for zero, hole, sent and changed; three bytes a frame for each walk.  Most of it
repeats, so zlib packs it well: some ten KiB for an idle guest, and at most
(fragmented memory, many requests) a few bytes a page.  ``bound()`` says the most.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from harness.errors import InputError
from harness.memory.image import Flags
from harness.memory.record import Block
from harness.memory.walk import NONE, FreeWalk, Kind
from harness.verdict.judge import Judgement

PAGES_FILE: Final = "pages.npz"
_VERSION: Final = 1

EQUAL: Final = "equal"
SKIPPED: Final = "skipped"
#: Before the name of an explanation, and before a broken rule.
EXPLAINED: Final = "explained: "
WRONG: Final = "wrong: "

#: No block has more pages (16 TiB): a larger number is a damaged file.
_MOST_PAGES: Final = 1 << 32

_Bytes = npt.NDArray[np.uint8]
#: What was looked at, by request id and point; the end is (0, "switch-over").
LookKey = tuple[int, str]
LOOK_AT_END: Final[LookKey] = (0, "switch-over")


@dataclass(frozen=True, eq=False)
class KeptWalk:
    """One outside walk: what every frame is, and on which list a free one is."""

    request: int
    point: str
    zones: tuple[str, ...]
    types: tuple[str, ...]
    kind: _Bytes
    order: _Bytes
    place: _Bytes
    """Zone in the upper half, migrate type in the lower."""

    @classmethod
    def of(cls, instant: LookKey, walk: FreeWalk) -> KeptWalk:
        """Pack a walk; zones beyond the fifteenth lose their name."""
        zone = np.minimum(walk.zone, 15).astype(np.uint8)
        place = np.where(walk.zone == NONE, 0xFF, zone << 4 | walk.migrate_type & 15).astype(np.uint8)
        names = tuple(str(zone) for zone in walk.zones)
        return cls(*instant, names, walk.types, walk.kind, walk.order, place)

    def describe(self, frame: int) -> str:
        """One frame in words."""
        if not 0 <= frame < len(self.kind):
            return Kind.ABSENT.label
        kind = Kind(int(self.kind[frame]))
        if kind is not Kind.FREE:
            return kind.label
        zone, of_type = divmod(int(self.place[frame]), 16)
        where = self.zones[zone] if zone < len(self.zones) else f"zone {zone}"
        what = self.types[of_type] if of_type < len(self.types) else f"type {of_type}"
        return f"free, {where}, order {int(self.order[frame])}, {what}"

    def is_free(self, frame: int) -> bool:
        """Whether a frame is on a buddy list."""
        return 0 <= frame < len(self.kind) and int(self.kind[frame]) == Kind.FREE


@dataclass(frozen=True, eq=False)
class KeptBlock:
    """What is kept of every page of one block."""

    block: Block
    categories: tuple[str, ...]
    """The names of categories, by the number that :attr:`category` holds."""
    category: _Bytes
    request: npt.NDArray[np.int16]
    """Of the clearing that is in force: index into :attr:`Kept.requests`, -1: never cleared."""
    zero_source: Flags
    zero_destination: Flags
    hole: Flags | None = None
    sent: Flags | None = None
    changed: Mapping[tuple[LookKey, LookKey], Flags] = field(default_factory=dict)
    """Between two instants at which digests were taken."""

    def category_of(self, page: int) -> str:
        """What the judge called a page."""
        return self.categories[int(self.category[page])]

    def pages(self, prefix: str) -> npt.NDArray[np.int64]:
        """Every page whose category begins with this."""
        wanted = [number for number, name in enumerate(self.categories) if name.startswith(prefix)]
        return np.flatnonzero(np.isin(self.category, wanted))


@dataclass(frozen=True, eq=False)
class Kept:
    """Everything that is kept of the pages of one run."""

    blocks: Mapping[str, KeptBlock]
    requests: tuple[int, ...]
    """Ids of the requests whose answers cleared pages."""
    walks: tuple[KeptWalk, ...] = ()
    missing: Mapping[LookKey, str] = field(default_factory=dict)
    """Walks that could not be made, and why."""
    record: str = "source.record"
    """The file that the device's record is in."""

    @classmethod
    def of(
        cls,
        judgement: Judgement,
        looks: Iterable[tuple[LookKey, FreeWalk | Exception]],
        changed: Mapping[tuple[LookKey, LookKey], Mapping[str, Flags]],
        record: str = "source.record",
    ) -> Kept:
        """From the judgement, the walks in order, what changed in between, and the record's file."""
        blocks = {}
        for judged in judgement.blocks:
            state, name = judged.state, judged.state.block.name
            names, category = [EQUAL, SKIPPED], judged.skipped.astype(np.uint8)
            named = [(EXPLAINED + why, pages) for why, pages in judged.explained.items()]
            for label, pages in [*named, *((WRONG + rule, pages) for rule, pages in judged.wrong.items())]:
                if len(pages):
                    category[pages] = len(names)
                    names.append(label)
            blocks[name] = KeptBlock(
                state.block,
                tuple(names),
                category,
                judged.request.astype(np.int16),
                state.zero_on_source,
                state.zero_on_destination,
                state.hole_on_source,
                state.sent,
                {instants: flags[name] for instants, flags in changed.items() if name in flags},
            )
        seen = list(looks)
        walks = tuple(KeptWalk.of(instant, look) for instant, look in seen if isinstance(look, FreeWalk))
        missing = {instant: str(look) for instant, look in seen if not isinstance(look, FreeWalk)}
        return cls(blocks, judgement.requests, walks, missing, record)

    def bound(self) -> int:
        """Bytes of the file if nothing could be compressed."""
        pages = sum(kept.block.pages * (3 + (4 + len(kept.changed)) / 8) for kept in self.blocks.values())
        return int(pages + sum(3 * len(walk.kind) for walk in self.walks)) + 65536

    def save(self, path: Path) -> int:
        """Write a new file; returns its size in bytes."""
        arrays: dict[str, npt.NDArray[Any]] = {}
        meta: dict[str, object] = {
            "version": _VERSION,
            "requests": list(self.requests),
            "record": self.record,
            "blocks": [_block_meta(number, kept, arrays) for number, kept in enumerate(self.blocks.values())],
            "walks": [_walk_meta(number, walk, arrays) for number, walk in enumerate(self.walks)],
            "missing": [[*instant, why] for instant, why in self.missing.items()],
        }
        # Level 1: what repeats is found at once, what does not is not worth the time.
        with zipfile.ZipFile(path, "x", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
            file.writestr("meta.json", json.dumps(meta))
            for name, array in arrays.items():
                with file.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, array, allow_pickle=False)
        return path.stat().st_size

    @classmethod
    def load(cls, path: Path) -> Kept:
        """Read it back; :class:`InputError` if it is not such a file."""
        try:
            with zipfile.ZipFile(path) as file:
                meta = json.loads(file.read("meta.json"))
                if meta["version"] != _VERSION:
                    raise InputError(f"{path}: of version {meta['version']}, this program reads {_VERSION}")

                def array(name: str) -> npt.NDArray[Any]:
                    with file.open(f"{name}.npy") as entry:
                        return np.lib.format.read_array(entry, allow_pickle=False)

                blocks = [_block(number, one, array) for number, one in enumerate(meta["blocks"])]
                walks = [_walk(number, one, array) for number, one in enumerate(meta["walks"])]
                return cls(
                    {kept.block.name: kept for kept in blocks},
                    tuple(int(request) for request in meta["requests"]),
                    tuple(walks),
                    {(int(request), str(point)): str(why) for request, point, why in meta["missing"]},
                    Path(str(meta["record"])).name,
                )
        except InputError:
            raise
        except (OSError, zipfile.BadZipFile, ValueError, KeyError, TypeError, EOFError) as error:
            raise InputError(
                f"{path} cannot be read as what a run keeps of its pages: {error}",
                hint="is this a run folder, and did the run reach a verdict?",
            ) from error


def _pack(flags: Flags) -> _Bytes:
    return np.packbits(flags, bitorder="little")


def _block_meta(number: int, kept: KeptBlock, arrays: dict[str, npt.NDArray[Any]]) -> dict[str, object]:
    arrays[f"b{number}.category"] = kept.category
    arrays[f"b{number}.request"] = kept.request
    bits = {"zero_source": kept.zero_source, "zero_destination": kept.zero_destination}
    bits |= {"hole": kept.hole} if kept.hole is not None else {}
    bits |= {"sent": kept.sent} if kept.sent is not None else {}
    bits |= {f"changed{index}": flags for index, flags in enumerate(kept.changed.values())}
    for name, flags in bits.items():
        arrays[f"b{number}.{name}"] = _pack(flags)
    return {
        "name": kept.block.name,
        "pages": kept.block.pages,
        "gpa": kept.block.gpa,
        "categories": kept.categories,
        "bits": list(bits),
        "changed": list(kept.changed),
    }


def _walk_meta(number: int, walk: KeptWalk, arrays: dict[str, npt.NDArray[Any]]) -> dict[str, object]:
    for name in ("kind", "order", "place"):
        arrays[f"w{number}.{name}"] = getattr(walk, name)
    return {"request": walk.request, "point": walk.point, "zones": walk.zones, "types": walk.types}


def _block(number: int, meta: Mapping[str, Any], array: Any) -> KeptBlock:
    pages = int(meta["pages"])
    if not 0 < pages <= _MOST_PAGES:
        raise ValueError(f"a block of {pages} pages")
    bits = {
        name: np.unpackbits(array(f"b{number}.{name}"), count=pages, bitorder="little").view(np.bool_)
        for name in meta["bits"]
    }
    category, request = array(f"b{number}.category"), array(f"b{number}.request")
    categories = tuple(str(name) for name in meta["categories"])
    if len(category) != pages or len(request) != pages or category.max() >= len(categories):
        raise ValueError(f"what is kept of {meta['name']!r} does not cover its {pages} pages")
    changed = {
        (_instant(before), _instant(after)): bits[f"changed{index}"]
        for index, (before, after) in enumerate(meta["changed"])
    }
    gpa = tuple((int(a), int(o), int(n)) for a, o, n in meta["gpa"])
    return KeptBlock(
        Block(str(meta["name"]), pages, gpa),
        categories,
        category,
        request,
        bits["zero_source"],
        bits["zero_destination"],
        bits.get("hole"),
        bits.get("sent"),
        changed,
    )


def _instant(pair: Sequence[Any]) -> LookKey:
    request, point = pair
    return int(request), str(point)


def _walk(number: int, meta: Mapping[str, Any], array: Any) -> KeptWalk:
    parts = [array(f"w{number}.{name}") for name in ("kind", "order", "place")]
    if len({len(part) for part in parts}) != 1 or parts[0].max(initial=0) >= len(Kind):
        raise ValueError("a walk whose arrays do not fit together")
    zones, types = tuple(map(str, meta["zones"])), tuple(map(str, meta["types"]))
    return KeptWalk(int(meta["request"]), str(meta["point"]), zones, types, *parts)
