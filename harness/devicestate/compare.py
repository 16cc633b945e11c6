# SPDX-License-Identifier: GPL-2.0-or-later
"""Two machines' device states, held against each other: what differs, by device, instance and field."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from harness.devicestate.expected import SavedMachine, reason_for
from harness.devicestate.fields import FieldPlace, fields_of
from harness.devicestate.parts import StatePart, split_at_subsections
from harness.devicestate.requests import TURNED_AROUND, are_turned_around
from harness.devicestate.sections import Section

#: Of a field that is longer, the bytes around the first difference are shown.
_SHOWN: Final = 16
#: Numbers beyond this are addresses or masks rather than counts.
_LARGE: Final = 0xFFFF
#: Of the primary NIC of a failover pair.
PLUGGED_ANEW: Final = "unplugged for the migration (UNPLUG_PRIMARY), and plugged in anew by the destination"


@dataclass(frozen=True, slots=True)
class Difference:
    """A field that the destination has not as the source had it.

    ``reason``: why it may differ; None: it must not.  ``changed``: which side has no longer what was
    sent; empty: nobody has heard what was sent.
    """

    device: str
    instance: int
    field: str
    source: str
    destination: str
    reason: str | None = None
    changed: str = ""

    def __str__(self) -> str:
        where = self.device if self.instance == 0 else f"{self.device}[{self.instance}]"
        who = f" (not what was sent: the {self.changed}'s)" if self.changed else ""
        return f"{where}: {self.field} {self.source} -> {self.destination}{who}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was compared, and all that differs.

    ``partly``: why no more than a part was.  ``untold``: what differs, and may or may not be a loss.
    """

    devices: int
    bytes: int
    differences: tuple[Difference, ...] = ()
    partly: str = ""
    untold: tuple[str, ...] = ()

    @property
    def wrong(self) -> tuple[Difference, ...]:
        """What has no reason to differ."""
        return tuple(one for one in self.differences if one.reason is None)


def compare_sections(
    source: Sequence[Section],
    destination: Sequence[Section],
    description: Mapping[str, object] | None = None,
    *,
    accelerator: str = "tcg",
    versions: tuple[str, str] = ("", ""),
    unplugged: int = 0,
) -> Comparison:
    """Compare all devices.  ``description``: QEMU's own, of the destination's fields.

    ``versions``: of both QEMUs; where they differ, what one of them has no field for is set aside.
    ``unplugged``: how many devices QEMU had the guest let go of for the migration, to be plugged in anew.
    """
    here = {section.key: section for section in source}
    there = {section.key: section for section in destination}
    described = _described(description)
    machine = SavedMachine(accelerator, frozenset(section.device for section in source), versions)
    found: list[Difference] = []
    for key, section in here.items():
        other = there.get(key)
        if other is None:
            found.append(_missing(key, "saved", "absent", machine))
        elif other != section:
            found += _fields(section, other, described.get(key), machine)
    absent = [_missing(key, "absent", "saved", machine) for key in there if key not in here]
    found += _plugged_anew(absent, unplugged)
    size = sum(len(section.data) for section in source)
    return Comparison(len(here), size, tuple(found))


def _missing(key: tuple[str, int], source: str, destination: str, machine: SavedMachine) -> Difference:
    device, instance = key
    reason = reason_for(device, "section", machine) or lacking(machine, source == "absent")
    return Difference(device, instance, "section", source, destination, reason)


def _plugged_anew(absent: Sequence[Difference], unplugged: int) -> Iterator[Difference]:
    """Of what only the destination has, the devices at so many places on a bus have a reason."""
    places = dict.fromkeys(one.device.rpartition("/")[0] for one in absent if one.reason is None)
    anew = [place for place in places if place][:unplugged]
    for one in absent:
        mine = one.reason is None and one.device.rpartition("/")[0] in anew
        yield replace(one, reason=PLUGGED_ANEW) if mine else one


def lacking(machine: SavedMachine, in_source: bool) -> str | None:
    """Why something may be absent from one side's state; None: both QEMUs are of one version."""
    if not machine.between_versions:
        return None
    side, version = ("source", machine.versions[0]) if in_source else ("destination", machine.versions[1])
    return f"the {side}'s QEMU, {version}, has not written it: set aside, between two versions"


def _described(description: Mapping[str, object] | None) -> dict[tuple[str, int], Mapping[str, object]]:
    devices = description.get("devices") if description is not None else None
    found: dict[tuple[str, int], Mapping[str, object]] = {}
    for device in devices if isinstance(devices, list) else []:
        if isinstance(device, Mapping):
            instance = device.get("instance_id")
            found[str(device.get("name")), instance if isinstance(instance, int) else 0] = device
    return found


def _fields(
    source: Section, destination: Section, description: Mapping[str, object] | None, machine: SavedMachine
) -> Iterator[Difference]:
    device, instance = source.key

    def difference(field: str, here: str, there: str) -> Difference:
        return Difference(device, instance, field, here, there, reason_for(device, field, machine))

    def changed(place: FieldPlace, here: bytes, there: bytes) -> Difference:
        numbers = (_number(place, here), _number(place, there)) if _is_number(place) else None
        reason = reason_for(device, place.name, machine, numbers)
        if device.endswith("/virtio-blk") and place.name == "device" and are_turned_around(here, there):
            reason = TURNED_AROUND
        return Difference(device, instance, place.name, *_values(place, here, there), reason)

    if source.version != destination.version:
        yield difference("version", str(source.version), str(destination.version))
    here, there = source.data, destination.data
    if machine.between_versions and len(here) != len(there):
        yield from _between_versions(source, destination, description, machine)
        return
    if len(here) != len(there):
        yield difference("length", f"{len(here)} bytes", f"{len(there)} bytes")
        yield from _first_fields(source, destination, description, difference)
        return
    end = 0
    for place in fields_of(description, there) if description is not None else []:
        begin, end = place.offset, place.offset + place.size
        if here[begin:end] != there[begin:end]:
            yield changed(place, here[begin:end], there[begin:end])
    if here[end:] != there[end:]:
        at = next(offset for offset in range(end, len(here)) if here[offset] != there[offset])
        # Not described: by its place in the section.
        piece = slice(at, at + _SHOWN)
        yield difference(f"byte {at}", here[piece].hex(), there[piece].hex())


def _between_versions(
    source: Section, destination: Section, description: Mapping[str, object] | None, machine: SavedMachine
) -> Iterator[Difference]:
    """Of states that two versions of QEMU write with different parts: each part that both have."""
    device, instance = source.key
    ours, theirs = split_at_subsections(source.data), split_at_subsections(destination.data)
    places = fields_of(description, destination.data) if description is not None else []
    for name in dict.fromkeys([*ours, *theirs]):
        label = name or "length"
        if name not in ours or name not in theirs:
            in_source = name not in ours
            sides = ("absent", "saved") if in_source else ("saved", "absent")
            yield Difference(device, instance, label, *sides, lacking(machine, in_source))
            continue
        here, there = ours[name], theirs[name]
        if len(here.data) != len(there.data):
            sizes = (f"{len(here.data)} bytes", f"{len(there.data)} bytes")
            reason = "the two versions write it in different lengths: set aside"
            yield Difference(device, instance, label, *sizes, reason)
            continue
        yield from _in_part(source.key, (here, there), places, machine)


def _in_part(
    key: tuple[str, int],
    parts: tuple[StatePart, StatePart],
    places: Sequence[FieldPlace],
    machine: SavedMachine,
) -> Iterator[Difference]:
    """The fields in which a part differs that has one length on both sides."""
    here, there = parts
    if here.data == there.data:
        return
    seen = False
    for place in places:
        begin = place.offset - there.offset
        end = begin + place.size
        if begin < 0 or end > len(there.data) or here.data[begin:end] == there.data[begin:end]:
            continue
        seen = True
        one, other = here.data[begin:end], there.data[begin:end]
        numbers = (_number(place, one), _number(place, other)) if _is_number(place) else None
        reason = reason_for(key[0], place.name, machine, numbers)
        yield Difference(*key, place.name, *_values(place, one, other), reason)
    if not seen:
        at = next(offset for offset in range(len(here.data)) if here.data[offset] != there.data[offset])
        piece, field = slice(at, at + _SHOWN), f"byte {there.offset + at}"
        shown = here.data[piece].hex(), there.data[piece].hex()
        yield Difference(*key, field, *shown, reason_for(key[0], field, machine))


def _first_fields(
    source: Section,
    destination: Section,
    description: Mapping[str, object] | None,
    difference: Callable[[str, str, str], Difference],
) -> Iterator[Difference]:
    """Of states of different lengths: the first field that differs; what follows it has moved."""
    if description is None:
        return
    here, there = source.data, destination.data
    for place in fields_of(description, there):
        begin, end = place.offset, place.offset + place.size
        if here[begin:end] != there[begin:end]:
            yield difference(place.name, *_values(place, here[begin:end], there[begin:end]))
            return


def _is_number(place: FieldPlace) -> bool:
    return place.size <= 8 and "buffer" not in place.kind


def _number(place: FieldPlace, value: bytes) -> int:
    little = place.kind.endswith(" le") or ".config[" in place.name
    return int.from_bytes(value, "little" if little else "big", signed=place.kind.startswith("int"))


def _values(place: FieldPlace, here: bytes, there: bytes) -> tuple[str, str]:
    """Both values as a reader wants them: numbers as numbers, of what is long the part that differs."""
    if len(here) != len(there):
        return f"{len(here)} bytes", f"{len(there)} bytes"
    if _is_number(place):
        one, other = _number(place, here), _number(place, there)
        if max(abs(one), abs(other)) > _LARGE:
            return f"{one:#x}", f"{other:#x}"
        return str(one), str(other)
    at = next(offset for offset in range(len(here)) if here[offset] != there[offset])
    piece = slice(at, at + _SHOWN)
    return f"[{at}] {here[piece].hex()}", f"[{at}] {there[piece].hex()}"
