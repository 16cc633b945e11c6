# SPDX-License-Identifier: GPL-2.0-or-later
"""What a scenario demands of an answer of QEMU's."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from harness.scenario.actions.answers import Wanted, unmet

ANSWER = {
    "status": "active",
    "ram": {"remaining": 4096, "mbps": 1.5, "multifd": True},
    "vcpus": [{"cpu": 0, "halted": False}, {"cpu": 1}],
    "error-desc": None,
}


@pytest.mark.parametrize(
    "wanted",
    [
        {"status": "active"},
        {"ram.remaining": {"min": 4096, "max": 4096}, "ram.mbps": {"min": 1}},
        {"ram": {"remaining": 4096}},
        {"vcpus.1.cpu": 1, "vcpus.2": {"absent": True}, "vcpus.0": {"absent": False}},
        {"status": {"not": "failed", "has": "ctiv", "lacks": "x"}},
        {"no.such.thing": {"absent": True}},
        {"nothing": {"lacks": "x"}},
        {"status": {"matches": "^a.*e$"}, ".": {"matches": r'"cpu": \d'}},
        {".": {"has": '"remaining": 4096'}},
        {"error-desc": None},
    ],
)
def test_met(wanted: dict[str, Any]) -> None:
    assert unmet(ANSWER, TypeAdapter(Wanted).validate_python(wanted)) is None


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"status": "failed"}, 'status: expected "failed", got "active"'),
        ({"ram.remaining": {"max": 4095}}, "ram.remaining: expected at most 4095, got 4096"),
        ({"ram.remaining": {"min": 1, "not": 4096}}, "ram.remaining: expected anything but 4096, got 4096"),
        ({"status": {"min": 1}}, 'status: expected at least 1, got "active"'),
        ({"ram.multifd": 1}, "ram.multifd: expected 1, got true"),
        ({"ram.multifd": {"min": 1}}, "ram.multifd: expected at least 1, got true"),
        ({"ram": {"remaining": 1}}, 'ram: expected {"remaining": 1}, got {"remaining"'),
        ({"vcpus.7.cpu": 1}, "vcpus.7.cpu: expected 1, got nothing"),
        ({"status": {"matches": "^a.*x$"}}, 'status: expected what "^a.*x$" matches, got "active"'),
        ({"status": {"absent": True}}, 'status: expected nothing, got "active"'),
        ({"none": {"absent": False}}, "none: expected something, got nothing"),
        ({"none": {"has": "x"}}, 'none: expected "x" in it, got nothing'),
        ({".": {"lacks": "remaining"}}, 'expected no "remaining" in it, got {'),
    ],
)
def test_unmet(wanted: dict[str, Any], words: str) -> None:
    text = unmet(ANSWER, TypeAdapter(Wanted).validate_python(wanted))
    assert text is not None
    assert text.startswith(words)


def test_what_hmp_says_is_one_text() -> None:
    assert unmet("Status: completed\r\n", {".": {"has": "completed", "lacks": "Error"}}) is None


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"a": {"min": "3"}}, "a: expected a number for min, got '3'"),
        ({"a": {"has": 3}}, "a: expected text for has, got 3"),
        ({"a": {"matches": "("}}, "a: no regular expression: '('"),
        ({"a": {"absent": "yes"}}, "a: expected true or false for absent"),
        ({"a..b": 1}, "should match pattern"),
        ({"": 1}, "should match pattern"),
    ],
)
def test_what_nothing_could_meet_is_refused(wanted: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(Wanted).validate_python(wanted)
    assert words in str(caught.value)
