# SPDX-License-Identifier: GPL-2.0-or-later
"""Devices that were told to change while they should have stood still: no loss, and none hidden by it."""

from __future__ import annotations

import pytest

from harness.devicestate.acted import ActedUpon
from harness.devicestate.sections import Section
from harness.events import EventStream
from harness.evidence.acted_upon import acted_upon
from harness.evidence.device_state import SavedState, compare_states
from harness.migration.acting import may_change_machine
from harness.verdict.case import JudgeInput
from harness.verdict.context import Analyses, Context
from harness.verdict.rules.devices import device_state_differs, devices_acted_upon

NIC = "0000:00:02.0/virtio-net"
DESCRIPTION = {
    "devices": [
        {"name": name, "instance_id": 0, "fields": [{"name": "isr", "type": "uint8", "size": 1}]}
        for name in (NIC, "apic")
    ]
}
AT_SOURCE = ActedUpon(source=("set_link",))
AT_DESTINATION = ActedUpon(destination=("qom-set",))
NOBODY = ActedUpon()


def state(nic: int, apic: int = 0) -> tuple[Section, ...]:
    return Section(NIC, 0, 1, bytes([nic])), Section("apic", 0, 1, bytes([apic]))


def judged(
    source: tuple[Section, ...],
    destination: tuple[Section, ...],
    acted: ActedUpon,
    sent: tuple[Section, ...] | None,
) -> tuple[list[str], str | None]:
    """What fails, and what is in doubt."""
    found = compare_states(
        SavedState(source), SavedState(destination), lambda: DESCRIPTION, "tcg", acted, sent
    )
    assert not isinstance(found, str)
    case = JudgeInput(arm="off", blocks=())
    context = Context(Analyses(case), (found,))
    failures = [finding.text for finding in device_state_differs(case, context)]
    return failures, devices_acted_upon(case, context)


def test_a_cable_that_was_moved_after_the_devices_had_left() -> None:
    assert judged(state(3), state(1), AT_SOURCE, sent=state(1)) == ([], None)


def test_a_destination_that_was_told_to_change() -> None:
    assert judged(state(1), state(3), AT_DESTINATION, sent=state(1)) == ([], None)


def test_an_interrupt_that_came_too_late_to_be_sent_is_lost() -> None:
    failures, doubt = judged(state(3), state(1), NOBODY, sent=state(1))
    assert (failures, doubt) == ([f"{NIC}: isr 3 -> 1 (not what was sent: the source's)"], None)


@pytest.mark.parametrize("acted", [NOBODY, AT_SOURCE])
def test_a_state_that_is_loaded_wrongly(acted: ActedUpon) -> None:
    failures, _ = judged(state(3), state(1), acted, sent=state(3))
    assert failures == [f"{NIC}: isr 3 -> 1 (not what was sent: the destination's)"]


def test_what_one_command_did_excuses_nothing_of_the_other_side() -> None:
    failures, _ = judged(state(3, apic=9), state(1), AT_SOURCE, sent=state(1, apic=9))
    assert failures == ["apic: isr 9 -> 0 (not what was sent: the destination's)"]


def test_a_field_that_both_have_changed() -> None:
    failures, _ = judged(state(3), state(7), AT_SOURCE, sent=state(1))
    assert failures == [f"{NIC}: isr 3 -> 7 (not what was sent: the source and destination's)"]
    both = ActedUpon(("set_link",), ("qom-set",))
    assert judged(state(3), state(7), both, sent=state(1)) == ([], None)


def test_without_a_tap_it_cannot_be_told() -> None:
    failures, doubt = judged(state(3), state(1), AT_SOURCE, sent=None)
    assert failures == []
    assert doubt is not None
    assert f"{NIC}: isr 3 -> 1" in doubt
    assert "without a tap" in doubt


def test_without_a_tap_and_a_command_it_is_a_failure() -> None:
    assert judged(state(3), state(1), NOBODY, sent=None) == ([f"{NIC}: isr 3 -> 1"], None)


def test_a_command_that_changed_nothing_is_no_doubt() -> None:
    assert judged(state(1), state(1), AT_SOURCE, sent=None) == ([], None)


# --- who was told what, and when


def test_what_came_before_the_devices_left_was_sent() -> None:
    events = EventStream()

    def source(status: str) -> None:
        events.emit("MIGRATION", source="source.qmp", data={"status": status})

    def told(side: str, command: str) -> None:
        events.emit("qmp-acted", source=f"{side}.qmp", command=command)

    told("source", "of-an-earlier-migration")
    since = len(events.history())
    source("active")
    events.emit("STOP", source="source.qmp", data={})
    source("pre-switchover")
    told("source", "in-time")
    told("destination", "qom-set")
    source("device")
    told("source", "set_link")
    source("completed")
    assert acted_upon(events.history(), since=since) == ActedUpon(("set_link",), ("qom-set",))


def test_a_qemu_that_does_not_say_when_its_devices_leave() -> None:
    events = EventStream()
    events.emit("qmp-acted", source="source.qmp", command="stop")
    events.emit("STOP", source="source.qmp", data={})
    events.emit("qmp-acted", source="source.qmp", command="set_link")
    assert acted_upon(events.history(), since=0).source == ("set_link",)


def test_what_qemu_takes_notice_of_in_its_own_time() -> None:
    events = EventStream()
    events.emit("qmp-acted", source="source.qmp", command="backend-kill", lingers=True)
    events.emit("MIGRATION", source="source.qmp", data={"status": "device"})
    assert acted_upon(events.history(), since=0).source == ("backend-kill",)


@pytest.mark.parametrize(
    ("command", "arguments", "may"),
    [
        ("set_link", {"name": "net0", "up": False}, True),
        ("qom-set", {"path": "/machine", "property": "requested-size"}, True),
        ("a-command-of-tomorrow", {}, True),
        ("human-monitor-command", {"command-line": "system_reset"}, True),
        ("human-monitor-command", {"command-line": "info registers -a"}, False),
        ("human-monitor-command", {"command-line": ""}, False),
        ("qom-set", {"path": "/machine", "property": "x-free-page-info-release"}, False),
        ("query-status", {}, False),
        ("x-query-ramblock", {}, False),
        ("migrate-set-parameters", {"max-bandwidth": 1}, False),
        ("xen-save-devices-state", {"filename": "x"}, False),
    ],
)
def test_which_commands_may_change_a_machine(command: str, arguments: dict[str, object], may: bool) -> None:
    assert may_change_machine(command, arguments) is may


def test_a_primary_that_qemu_unplugged_is_plugged_in_anew() -> None:
    primary = Section("0000:00:08.0:00.0/e1000e", 0, 1, b"x")
    events = EventStream()
    events.emit("UNPLUG_PRIMARY", source="source.qmp", data={"device-id": "primary"})
    events.emit("UNPLUG_PRIMARY", source="destination.qmp", data={"device-id": "primary"})
    acted = acted_upon(events.history(), since=0)
    assert acted.unplugged == ("primary",)
    assert judged(state(1), (*state(1), primary), acted, None)[0] == []
    assert judged(state(1), (*state(1), primary), acted, None)[1] is None
    assert len(judged(state(1), (*state(1), primary), NOBODY, None)[0]) == 1
    # What else differs on the destination may be of that, where the stream was heard; else it is in doubt.
    assert judged(state(1, 0), (*state(1, 2), primary), acted, state(1, 0)) == ([], None)
    found, doubt = judged(state(1, 0), (*state(1, 2), primary), acted, None)
    assert (found, doubt is not None) == ([], True)
    # What the source has not as it sent it is wrong.
    assert len(judged(state(1, 2), (*state(1, 0), primary), acted, state(1, 0))[0]) == 1
