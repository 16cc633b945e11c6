# SPDX-License-Identifier: GPL-2.0-or-later
"""Device state: split into sections, described field by field, compared."""

from __future__ import annotations

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.devicestate.compare import compare_sections
from harness.devicestate.expected import ExpectedDifference, SavedMachine, reason_for
from harness.devicestate.fields import fields_of
from harness.devicestate.hints import hints_taken
from harness.devicestate.parts import split_at_subsections
from harness.devicestate.sections import Section, read_description, read_sections
from harness.devicestate.virtio import virtio_fields
from harness.errors import MachineryError
from harness.evidence.device_state import SavedState, compare_states
from harness.verdict.case import JudgeInput
from harness.verdict.context import Analyses, Context
from harness.verdict.finding import Finding
from harness.verdict.rules.devices import device_state_differs

HEADER = b"QEVM\0\0\0\3"


def section(number: int, device: str, data: bytes, instance: int = 0, version: int = 1) -> bytes:
    name = device.encode()
    head = b"\x04" + struct.pack(">I", number) + bytes([len(name)]) + name
    return head + struct.pack(">II", instance, version) + data + b"\x7e" + struct.pack(">I", number)


def stream(*sections: bytes) -> bytes:
    return HEADER + b"".join(sections) + b"\0"


def test_sections_are_found_without_their_length() -> None:
    # The footer's bytes may stand in a device's state: there no section follows them.
    tricky = b"ab\x7e\0\0\0\1cd\x7e\0\0\0\1\x04\xff"
    found = read_sections(stream(section(1, "timer", tricky), section(2, "cpu", b"\7" * 8, instance=1)))
    assert found == (Section("timer", 0, 1, tricky), Section("cpu", 1, 1, b"\7" * 8))


@given(st.lists(st.tuples(st.text("abc/:.0", min_size=1, max_size=20), st.binary(max_size=64)), max_size=6))
def test_whatever_is_written_is_read_back(devices: list[tuple[str, bytes]]) -> None:
    made = stream(*(section(n + 1, name, data) for n, (name, data) in enumerate(devices)))
    assert [(found.device, found.data) for found in read_sections(made)] == devices


@given(st.binary(max_size=200))
def test_what_is_no_stream_is_refused_in_words(data: bytes) -> None:
    try:
        read_sections(HEADER + data)
    except MachineryError as error:
        assert "unknown form" in error.message


def test_a_stream_that_is_cut() -> None:
    whole = stream(section(1, "timer", b"12345678"))
    for end in range(8, len(whole)):
        with pytest.raises(MachineryError):
            read_sections(whole[:end])


def test_the_description_at_the_end_of_a_whole_stream() -> None:
    text = json.dumps({"devices": [], "page_size": 4096}).encode()
    whole = b"QEVM....\x06\0\0\0\2{}" + b"\0" + b"\x06" + struct.pack(">I", len(text)) + text
    assert read_description(whole)["page_size"] == 4096
    with pytest.raises(MachineryError, match="no description"):
        read_description(b"QEVM\x06\0\0\0\2{}")


DESCRIPTION = {
    "name": "cpu",
    "instance_id": 0,
    "fields": [
        {"name": "regs", "array_len": 2, "type": "uint64", "size": 8},
        {
            "name": "bus",
            "index": 0,
            "type": "struct",
            "size": 1,
            "struct": {"fields": [_unit := {"name": "unit", "type": "uint8", "size": 1}]},
        },
        {"name": "bus", "type": "struct", "size": 1, "struct": {"fields": [_unit]}},
        {"name": "tmp", "type": "tmp", "size": 2, "fields": [{"name": "mant", "type": "int16", "size": 2}]},
    ],
    "subsections": [{"vmsd_name": "cpu/xcr", "fields": [{"name": "xcr0", "type": "uint64", "size": 8}]}],
}
DATA = struct.pack(">QQBBh", 1, 2, 3, 4, -5) + b"\x05\x07cpu/xcr\0\0\0\1" + struct.pack(">Q", 9)


def test_fields_lie_where_qemu_says() -> None:
    found = {place.name: (place.offset, place.size) for place in fields_of(DESCRIPTION, DATA)}
    assert found == {
        "regs[0]": (0, 8),
        "regs[1]": (8, 8),
        "bus[0].unit": (16, 1),
        "bus[1].unit": (17, 1),
        "tmp.mant": (18, 2),
        "xcr.xcr0": (33, 8),
    }


def differences(other: bytes, **kwargs: object) -> list[str]:
    here, there = [Section("cpu", 0, 1, DATA)], [Section("cpu", 0, 1, other)]
    described = {"devices": [DESCRIPTION]} if kwargs.get("described", True) else None
    return [str(one) for one in compare_sections(here, there, described).wrong]


def test_the_same_is_the_same() -> None:
    assert differences(DATA) == []


@pytest.mark.parametrize(
    ("offset", "value", "words"),
    [
        (15, 7, "cpu: regs[1] 2 -> 7"),
        (17, 0, "cpu: bus[1].unit 4 -> 0"),
        (19, 0xFC, "cpu: tmp.mant -5 -> -4"),
        (40, 8, "cpu: xcr.xcr0 9 -> 8"),
    ],
)
def test_a_difference_bears_the_name_of_its_field(offset: int, value: int, words: str) -> None:
    other = bytearray(DATA)
    other[offset] = value
    assert differences(bytes(other)) == [words]
    # Without a description it has a place all the same.
    (found,) = differences(bytes(other), described=False)
    assert found.startswith(f"cpu: byte {offset} ")


def test_what_no_field_covers_is_compared_too() -> None:
    here = [Section("cpu", 0, 1, DATA + b"\1")]
    there = [Section("cpu", 0, 1, DATA + b"\2")]
    (found,) = compare_sections(here, there, {"devices": [DESCRIPTION]}).wrong
    assert str(found) == f"cpu: byte {len(DATA)} 01 -> 02"


def test_a_device_that_one_side_lacks() -> None:
    found = compare_sections([Section("rng", 0, 1, b"")], [Section("rng", 1, 1, b"")]).wrong
    assert [str(one) for one in found] == ["rng: section saved -> absent", "rng[1]: section absent -> saved"]


def test_versions_and_lengths() -> None:
    found = compare_sections([Section("hpet", 0, 1, b"1")], [Section("hpet", 0, 2, b"12")]).wrong
    assert [str(one) for one in found] == ["hpet: version 1 -> 2", "hpet: length 1 bytes -> 2 bytes"]


def test_a_reason_is_for_a_field_and_an_accelerator() -> None:
    rows = (ExpectedDifference("hpet", "counter", "it goes on", "kvm"),)
    assert reason_for("hpet", "counter", SavedMachine("kvm"), None, rows) == "it goes on"
    assert reason_for("hpet", "counter", SavedMachine("tcg"), None, rows) is None
    assert reason_for("hpet", "config", SavedMachine("kvm"), None, rows) is None


@pytest.mark.parametrize(("here", "there", "fine"), [(0, 16, True), (16, 0, False), (0, 32, False)])
def test_an_igb_that_nobody_has_used(here: int, there: int, fine: bool) -> None:
    place = "0000:00:08.0:00.0/igb", "core.rx_desc_len", SavedMachine()
    assert (reason_for(*place, (here, there)) is not None) == fine


WITH_GENERATION = SavedMachine("tcg", frozenset({"vmgenid", "apic"}))


@pytest.mark.parametrize(
    ("device", "field", "source", "destination", "fine"),
    [
        ("0000:00:01.3/piix4_pm", "ar.gpe.sts", 0, 32, True),
        ("0000:00:01.3/piix4_pm", "ar.gpe.sts", 32, 0, False),
        ("0000:00:01.3/piix4_pm", "ar.gpe.sts", 0, 33, False),
        ("i8259", "irr", 17, 19, True),
        ("i8259", "irr", 17, 21, False),
        ("ioapic", "ioredtbl[9]", 0x8821, 0xC821, True),
        ("ioapic", "ioredtbl[4]", 0x8821, 0xC821, False),
        ("apic", "irr[1]", 1024, 1026, True),
        ("apic", "irr[1]", 1026, 1024, False),
        ("apic", "irr[1]", 0, 3, False),
    ],
)
def test_a_guest_with_a_generation_id_is_told(
    device: str, field: str, source: int, destination: int, fine: bool
) -> None:
    assert (reason_for(device, field, WITH_GENERATION, (source, destination)) is not None) == fine
    # A machine without the device is told nothing.
    assert reason_for(device, field, SavedMachine("tcg"), (source, destination)) is None


def test_the_time_in_the_clock_is_the_hosts() -> None:
    field = {"name": "cmos_data", "type": "buffer", "size": 128}
    described = {"devices": [{"name": "mc146818rtc", "instance_id": 0, "fields": [field]}]}

    def compare(register: int) -> tuple[int, int]:
        other = bytearray(128)
        other[register] = 0x59
        here = [Section("mc146818rtc", 0, 3, bytes(128))]
        found = compare_sections(here, [Section("mc146818rtc", 0, 3, bytes(other))], described)
        return len(found.differences), len(found.wrong)

    assert compare(0) == compare(4) == compare(0x32) == (1, 0)
    # An alarm, a status register, and memory of the firmware's are the guest's.
    assert compare(1) == compare(0x0B) == compare(0x33) == (1, 1)


def test_states_of_different_lengths_differ_first_somewhere() -> None:
    here, there = [Section("cpu", 0, 1, DATA)], [Section("cpu", 0, 1, DATA[:8] + DATA[16:])]
    found = [str(one) for one in compare_sections(here, there, {"devices": [DESCRIPTION]}).wrong]
    assert found[0] == "cpu: length 41 bytes -> 33 bytes"
    assert len(found) == 2
    assert found[1].startswith("cpu: regs[1] 0x2 -> ")


# --- virtio


def virtio_state(last_avail: int = 17, used: int = 5, msix: bool = True) -> bytes:
    config = bytearray(256)
    if msix:
        config[0x34], config[0x40], config[0x42] = 0x40, 0x11, 1  # two vectors
    data = struct.pack("<i", 2) + bytes(config) + bytes(16)
    if msix:
        data += bytes(32) + b"\0" + struct.pack(">H", 1)
    data += struct.pack(">BBHI", 0xF, 1, 0, 0x10) + struct.pack(">I", 4) + b"conf" + struct.pack(">I", 1)
    data += struct.pack(">IQH", 256, 0x1000, last_avail) + (struct.pack(">H", 1) if msix else b"")
    data += b"own"
    data += (
        b"\x05\x17virtio/64bit_features".replace(b"\x17", bytes([21]))
        + b"\0\0\0\1"
        + struct.pack(">Q", 1 << 32)
    )
    rings = struct.pack(">QQ", 0x2000, used) + bytes(16)
    return data + bytes([5, 17]) + b"virtio/virtqueues" + b"\0\0\0\1" + rings


@pytest.mark.parametrize("msix", [True, False])
def test_the_fields_of_a_virtio_device(msix: bool) -> None:
    data = virtio_state(msix=msix)
    found = {name: data[at : at + size] for name, at, size in virtio_fields(data)}
    assert found["status"] == b"\x0f"
    assert found["vq[0].last_avail_idx"] == struct.pack(">H", 17)
    assert found["device"] == b"own"
    assert found["guest_features"] == struct.pack(">Q", 1 << 32)
    assert found["vq[0].used"] == struct.pack(">Q", 5)
    assert ("msix.table[1]" in found) == msix


def test_a_lost_request_has_a_name() -> None:
    described = {
        "devices": [
            {
                "name": "0000:00:04.0/virtio-blk",
                "instance_id": 0,
                "fields": [{"name": "virtio", "type": "virtio", "size": len(virtio_state())}],
            }
        ]
    }
    here = [Section("0000:00:04.0/virtio-blk", 0, 2, virtio_state())]
    there = [Section("0000:00:04.0/virtio-blk", 0, 2, virtio_state(last_avail=16))]
    comparison = compare_sections(here, there, described)
    assert [str(one) for one in comparison.wrong] == [
        "0000:00:04.0/virtio-blk: vq[0].last_avail_idx 17 -> 16"
    ]
    case = JudgeInput(arm="off", blocks=())
    (finding,) = device_state_differs(case, Context(Analyses(case), (comparison,)))
    assert isinstance(finding, Finding)
    assert (finding.rule, finding.kind, finding.count) == ("device-state-differs", "device", 1)


@given(st.binary(max_size=600))
def test_a_virtio_state_of_any_bytes_is_covered_once(data: bytes) -> None:
    places = virtio_fields(data)
    end = 0
    for _, at, size in places:
        assert at >= end
        end = at + size
    assert end <= len(data)


# --- both sides


def test_two_sides() -> None:
    here = SavedState((Section("cpu", 0, 1, DATA),))
    asked: list[int] = []

    def describe() -> dict[str, object]:
        asked.append(1)
        return {"devices": [DESCRIPTION]}

    same = compare_states(here, here, describe, "tcg")
    assert not isinstance(same, str)
    assert (same.devices, same.wrong, asked) == (1, (), [])
    other = SavedState((Section("cpu", 0, 1, DATA[:-1] + b"\0"),))
    found = compare_states(here, other, describe, "tcg")
    assert not isinstance(found, str)
    assert [str(one) for one in found.wrong] == ["cpu: xcr.xcr0 9 -> 0"]
    assert asked == [1]


def test_the_clocks_time_needs_no_description() -> None:
    def clock(second: int) -> SavedState:
        return SavedState((Section("mc146818rtc", 0, 3, bytes([second]) + bytes(200)),))

    def describe() -> dict[str, object]:
        raise AssertionError("nobody has to be asked")

    found = compare_states(clock(1), clock(2), describe, "tcg")
    assert not isinstance(found, str)
    assert (len(found.differences), found.wrong) == (1, ())


def test_a_description_that_does_not_come_hides_nothing() -> None:
    def describe() -> dict[str, object]:
        raise MachineryError("no")

    found = compare_states(
        SavedState((Section("cpu", 0, 1, b"1"),)), SavedState((Section("cpu", 0, 1, b"2"),)), describe, "tcg"
    )
    assert not isinstance(found, str)
    assert len(found.wrong) == 1


def test_a_qemu_that_does_not_save_is_no_difference() -> None:
    said = compare_states(SavedState(missing="no such command"), SavedState(), dict, "tcg")
    assert said == "the source's QEMU does not save its devices: no such command"


def subsection(name: str, data: bytes) -> bytes:
    return bytes([5, len(name)]) + name.encode() + (1).to_bytes(4, "big") + data


BETWEEN = ("7.2.22", "10.0.13")


def test_a_state_is_cut_at_its_subsections() -> None:
    data = b"main\x05\x03abc" + subsection("rng/one", b"12") + subsection("rng/one/inner", b"3")
    parts = split_at_subsections(data + subsection("rng/one", b"45"))
    # A mark in the data is none without a name that belongs to it.
    assert {name: part.data for name, part in parts.items()} == {
        "": b"main\x05\x03abc",
        "rng/one": b"12",
        "rng/one/inner": b"3",
        "rng/one#1": b"45",
    }
    assert all(data[part.offset :].startswith(part.data) for name, part in parts.items() if "#" not in name)


def test_between_versions_what_one_lacks_is_named_and_set_aside() -> None:
    old, new = b"1234", b"1234" + subsection("rng/new", b"9")
    for one, other, side in ((old, new, "source"), (new, old, "destination")):
        sections = [Section("rng", 0, 1, one)], [Section("rng", 0, 1, other)]
        found = compare_sections(*sections, versions=BETWEEN)
        assert found.wrong == ()
        assert [str(difference.field) for difference in found.differences] == ["rng/new"]
        assert side in str(found.differences[0].reason)
        # Of one version it is a fault.
        assert compare_sections(*sections).wrong
    gone = compare_sections([Section("rng", 0, 1, old), Section("hpet", 0, 1, b"1")], [], versions=BETWEEN)
    assert [difference.device for difference in gone.differences] == ["rng", "hpet"]
    assert gone.wrong == ()


def test_between_versions_what_both_have_is_compared() -> None:
    described = {
        "devices": [
            {
                "name": "rng",
                "instance_id": 0,
                "fields": [
                    {"name": "a", "size": 2, "type": "uint16"},
                    {"name": "b", "size": 2, "type": "uint16"},
                ],
                "subsections": [
                    {"vmsd_name": "rng/new", "fields": [{"name": "c", "size": 1, "type": "uint8"}]},
                    {"vmsd_name": "rng/both", "fields": [{"name": "d", "size": 1, "type": "uint8"}]},
                ],
            }
        ]
    }
    here = b"\0\1\0\2" + subsection("rng/both", b"\7")
    there = b"\0\1\0\3" + subsection("rng/new", b"\1") + subsection("rng/both", b"\6")
    sections = [Section("rng", 0, 1, here)], [Section("rng", 0, 1, there)]
    found = compare_sections(*sections, described, versions=BETWEEN)
    assert [str(one) for one in found.wrong] == ["rng: b 2 -> 3", "rng: both.d 7 -> 6"]
    undescribed = compare_sections(*sections, versions=BETWEEN)
    assert [one.field for one in undescribed.wrong] == ["byte 3", "byte 32"]


def test_the_run_state_of_older_qemus_has_room_for_newer_fields() -> None:
    described = {
        "devices": [
            {
                "name": "globalstate",
                "instance_id": 0,
                "fields": [
                    {"name": "size", "size": 4, "type": "uint32"},
                    {"name": "runstate", "size": 100, "type": "buffer"},
                ],
            }
        ]
    }
    old, new = bytearray(104), bytearray(104)
    old[4:11] = new[4:11] = b"running"
    new[36] = 1
    sections = [Section("globalstate", 0, 1, bytes(new))], [Section("globalstate", 0, 1, bytes(old))]
    assert compare_sections(*sections, described, versions=BETWEEN).wrong == ()
    assert [one.field for one in compare_sections(*sections, described).wrong] == ["has_vm_was_suspended"]
    old[4:11] = b"paused\0"
    sections = [Section("globalstate", 0, 1, bytes(new))], [Section("globalstate", 0, 1, bytes(old))]
    assert [one.field for one in compare_sections(*sections, described, versions=BETWEEN).wrong] == [
        "runstate"
    ]


def test_hints_that_a_balloon_has_taken() -> None:
    def balloon(*read: int) -> Section:
        data = struct.pack("<i", 2) + bytes(256 + 16)
        data += struct.pack(">BBHI", 0xF, 1, 0, 0x10) + struct.pack(">I", 0) + struct.pack(">I", len(read))
        data += b"".join(struct.pack(">IQH", 128, 0x1000, index) for index in read)
        return Section("0000:00:03.0/virtio-balloon", 0, 1, data)

    assert hints_taken([Section("rng", 0, 1, b""), balloon(1, 1, 1, 300)]) == 298
    # The driver has said where hints begin and end, and nothing between.
    assert hints_taken([balloon(1, 1, 1, 2)]) == 0
    assert hints_taken([balloon(1, 1, 1, 0)]) == 0
    assert hints_taken([balloon(1, 1, 1)]) is None
    assert hints_taken([]) is None
