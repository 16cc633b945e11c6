# SPDX-License-Identifier: GPL-2.0-or-later
"""A QEMU that takes a mode and has another one on."""

from __future__ import annotations

import pytest

from harness.verdict.modes import ModesAsked, modes_findings

ASKED = ModesAsked(("multifd", "zero-copy-send"), {"multifd-channels": 4, "mode": "normal", "x-new": 1})
ON = ["events", "multifd", "zero-copy-send"]


def test_what_is_on_as_asked_is_no_finding() -> None:
    assert modes_findings(ASKED, "source", ON, {"multifd-channels": 4, "mode": "normal", "other": 7}) == []


@pytest.mark.parametrize(
    ("on", "parameters", "words"),
    [
        (["multifd"], {}, "on the source's QEMU zero-copy-send is off, and was to be on"),
        (ON, {"multifd-channels": 1}, "multifd-channels is 1, and was to be 4"),
        (ON, {"multifd-channels": True}, "multifd-channels is True, and was to be 4"),
        ([], {"mode": "cpr-reboot"}, "zero-copy-send is off, and was to be on; mode is 'cpr-reboot'"),
    ],
)
def test_what_is_otherwise_is_told(on: list[str], parameters: dict[str, object], words: str) -> None:
    [finding] = modes_findings(ASKED, "source", on, parameters)
    assert finding.rule == "modes-differ"
    assert words in finding.text


def test_what_a_script_changes_is_not_held_against_the_scenario() -> None:
    less = ASKED.without({"multifd-channels", "multifd"})
    assert modes_findings(less, "source", ["zero-copy-send"], {"multifd-channels": 1}) == []
