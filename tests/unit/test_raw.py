# SPDX-License-Identifier: GPL-2.0-or-later
"""What a scenario writes out for libvirt and QEMU: what it may say, and what becomes of the domain."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from pydantic import ValidationError

from harness.guest.domain import destination_xml, domain_xml
from harness.guest.xml_edits import EditError, edit
from harness.scenario.guest import Guest
from harness.scenario.model import Scenario
from harness.scenario.raw import XmlEdit, words_for
from tests.unit.test_domain import arguments, make

DOMAIN = "<domain><clock offset='utc'/><devices><disk a='1'/><disk a='2'/></devices></domain>"


def edited(*edits: dict[str, object]) -> str:
    root = ET.fromstring(DOMAIN)
    edit(root, [XmlEdit.model_validate(one) for one in edits])
    return ET.tostring(root, encoding="unicode").replace('"', "'").replace(" />", "/>")


def test_each_kind_of_edit() -> None:
    assert "<disk a='2'/><x><y/></x></devices>" in edited({"at": "devices", "add": "<x><y/></x>"})
    assert "<devices><z/><z/></devices>" in edited({"at": "devices/disk", "replace": "<z/>"})
    assert "<disk a='9'/><disk a='2'/>" in edited({"at": "devices/disk[@a='1']", "set": {"a": "9"}})
    assert "<disk/><disk/>" in edited({"at": "/domain/devices/disk", "set": {"a": None}})
    assert "<clock offset='utc'>x</clock>" in edited({"at": "clock", "text": "x"})
    assert "<devices><disk a='1'/></devices>" in edited({"at": ".//disk[2]", "remove": True})
    # One after the other; the domain itself may be given something.
    assert "<u><v/></u></domain>" in edited({"at": "/domain", "add": "<u/>"}, {"at": "u", "add": "<v/>"})


@pytest.mark.parametrize("one", [{"at": "gone", "remove": True}, {"at": ".", "remove": True}])
def test_an_edit_that_cannot_be_made(one: dict[str, object]) -> None:
    with pytest.raises(EditError) as caught:
        edited({"at": "clock", "text": "x"}, one)
    assert caught.value.number == 1


@pytest.mark.parametrize(
    ("one", "words"),
    [
        ({"at": "devices"}, "expected one of add, replace"),
        ({"at": "devices", "remove": True, "text": "x"}, "expected one of add, replace"),
        ({"at": "devices[", "remove": True}, "expected an XPath"),
        ({"at": "devices", "add": "<a>"}, "expected one XML element"),
        ({"at": "devices", "add": "<a/><b/>"}, "expected one XML element"),
        ({"at": "devices", "add": "<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>"}, "without comments"),
        ({"at": "devices", "add": "<a xmlns='http://libvirt.org/schemas/domain/qemu/1.0'/>"}, "qemu_args"),
        ({"at": "devices", "set": {"a b": "c"}}, "the name of an attribute"),
        ({"at": "devices", "text": "\x01"}, "expected no character"),
    ],
)
def test_what_is_no_edit(one: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        XmlEdit.model_validate(one)


@pytest.mark.parametrize(
    "guest",
    [
        {"globals": ["virtio-rng"]},
        {"globals": ["virtio-rng=x"]},
        {"globals": [".x=y"]},
        {"qemu_args": ["a\0b"]},
        {"qemu_args": "one"},
    ],
)
def test_what_is_no_word_for_qemu(guest: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Guest.model_validate(guest)


def test_words_are_the_last_and_the_same_on_both_hosts() -> None:
    there = make(words=("-global", "a.b=c", "-device", "pvpanic"))
    assert arguments(domain_xml(there))[-4:] == ["-global", "a.b=c", "-device", "pvpanic"]
    moved = destination_xml(domain_xml(there), there)
    assert arguments(moved)[-4:] == ["-global", "a.b=c", "-device", "pvpanic"]
    assert words_for(("x@HOST@,y=@HOST@", "z"), "source") == ("xsource,y=source", "z")


def test_what_was_written_out_is_known_by_its_key() -> None:
    guest = {"qemu_args": ["-S", "-x"], "xml": [{"at": "os", "remove": True}], "globals": ["a.b=c"]}
    scenario = Scenario.model_validate({"name": "a", "guest": guest})
    assert scenario.guest.as_written == {
        "guest.xml.0": "os",
        "guest.qemu_args.0": "-S",
        "guest.qemu_args.1": "-x",
        "guest.globals.0": "a.b=c",
    }
    # The resolved scenario is written to the run folder, and read back.
    assert Scenario.model_validate_json(scenario.model_dump_json()) == scenario
