# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands of a scenario: in the guest, by QMP, and what is waited for."""

from __future__ import annotations

import pytest

from harness.testing import Freepage

SMALL = {"guest.memory": "256MiB"}
RNG = "<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>"


def test_what_commands_say_is_in_the_result(freepage: Freepage) -> None:
    script = [
        {
            "at": "start",
            "do": [
                {"action": "device-add", "xml": RNG},
                {"action": "guest-run", "run": ["sh", "-c", "echo start >&2"], "output": "start"},
            ],
        },
        {
            "at": "active",
            "do": [
                {"action": "nic-down"},
                {
                    "action": "qmp",
                    "command": "device_add",
                    "arguments": {"driver": "virtio-rng-pci"},
                    "refused": "not allowed while migrating",
                },
                {"action": "wait", "event": "MIGRATION", "fields": {"status": "active"}},
                {"action": "nic-up"},
            ],
        },
        {
            "at": "resumed",
            "do": [
                {"action": "qmp", "command": "query-status", "side": "destination"},
                {"action": "guest-run", "run": ["cat", "/sys/bus/virtio/drivers/virtio_balloon/nothing"]},
            ],
        },
    ]
    after = [
        {"run": ["sh", "-c", "seq 1 2000"], "output": "\n2000\n"},
        {"run": ["sh", "-c", "exit 3"], "status": 3},
        {"run": ["sleep", "3600"], "within_s": 1},
    ]
    ending = freepage.start("idle", set={**SMALL, "script": script, "guest.commands.after": after}).end()
    result = ending.result
    # Each of the two that should not be as they are is told by its rule.
    assert sorted(found.rule for found in result.findings) == ["command-status", "command-status"]
    said = {" ".join(one.words): one for one in result.commands}
    assert said["sh -c echo start >&2"].output == "start\n"
    assert said["sh -c seq 1 2000"].output == "".join(f"{number}\n" for number in range(1, 2001))
    assert said["sh -c exit 3"].status == 3
    assert said["sleep 3600"].late
    refused, running = result.qmp
    assert refused.error is not None
    assert running.answer == {"status": "running", "running": True}
    # What was plugged in before the migration has arrived with the guest.
    assert (
        "virtio-rng" in (ending.folder / "destination.xml").read_text()
        or "<rng" in (ending.folder / "destination.xml").read_text()
    )


def test_an_event_that_never_comes_is_told(freepage: Freepage) -> None:
    wait = {"action": "wait", "event": "MIGRATION", "fields": {"status": "cancelled"}, "within_s": 1}
    result = freepage.start("idle", set={**SMALL, "script": [{"at": "active", "do": [wait]}]}).end().result
    assert [found.rule for found in result.findings] == ["event-missing"]


@pytest.mark.parametrize(
    ("action", "words"),
    [
        ({"action": "qmp", "command": "query-statuss"}, "did you mean query-status"),
        ({"action": "device-add", "xml": "<rng"}, "libvirt refuses it"),
    ],
)
def test_what_cannot_be_done_is_bad_input(freepage: Freepage, action: dict[str, str], words: str) -> None:
    ending = freepage.start("idle", set={**SMALL, "script": [{"at": "start", "do": [action]}]}).end()
    assert ending.exit_code == 2, str(ending)
    assert words in ending.stderr
