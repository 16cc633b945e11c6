# SPDX-License-Identifier: GPL-2.0-or-later
"""What the end of a run means for a hunt, and what tells one failure from another.  Pure.

A failure has a signature: the rule that was broken, the device or the words that it is about, the stack where
a QEMU crashed.  Numbers, addresses and paths are taken out, so that the same failure has the same signature.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from harness.errors import ExitCode

if TYPE_CHECKING:
    from harness.report.judged_pages import FoundRule
    from harness.report.result import Result

EndWord: TypeAlias = Literal["right", "inconclusive", "refused", "failed", "error", "cut"]

#: So many functions of a stack tell it from others.
FRAMES: Final = 4
#: Errors of the machine by which a guest or a QEMU is lost: those are failures of what is under test.
_LOST: Final = ("GuestLost", "HostLost", "LostError")
#: A migration that makes progress, and does not come to an end in its time: the draw's own doing.
_OUT_OF_TIME: Final = "OutOfTimeError"
#: What a machine that others use has too little of; another time the draw may be possible.
_TRANSIENT: Final = ("does not fit: source and destination together",)

#: A QEMU that does not start, and says why.
_SAID_NO: Final = re.compile(r"cannot start the guest: .*qemu-system\S*: (.+)")
#: A guest that has no room for its workload, beside all that was drawn for it.
_NO_ROOM: Final = re.compile(r"the guest cannot load (\w+) .*: this needs \d+ bytes")

_PATH: Final = re.compile(r"(?<![\w.])/[\w./@+-]+")
_PLACE: Final = re.compile(r"\S+\.yaml:\d+:\d+: ")
_HEX: Final = re.compile(r"\b0x[0-9a-f]+\b|\b[0-9a-f]{12,}\b")
_NUMBER: Final = re.compile(r"\d+(?:\.\d+)*")


@dataclass(frozen=True, slots=True)
class RunEnding:
    """How a run ended, as far as a hunt is concerned."""

    word: EndWord
    #: What tells the failure, or the refusal, from others.
    signature: str = ""
    #: In words.
    text: str = ""
    #: A failure that is one even if it does not repeat.
    certain: bool = False


def plain(text: str) -> str:
    """Words without what differs from run to run."""
    text = _PLACE.sub("", text.strip().splitlines()[0] if text.strip() else "")
    for pattern, stands in ((_PATH, "PATH"), (_HEX, "N"), (_NUMBER, "N")):
        text = pattern.sub(stands, text)
    return text[:160]


def judge_ending(
    status: int, result: Result | None, said: str, error_type: str = "", stack: Sequence[str] = ()
) -> RunEnding:
    """What a run's end means.

    ``said`` is its last message, ``error_type`` the class of the error that ended it, ``stack`` the functions
    in which a QEMU crashed, the innermost first.
    """
    if result is None:
        return _without_verdict(status, said, error_type, stack)
    if result.verdict == "pass":
        return RunEnding("right", text=result.reason)
    if result.verdict == "inconclusive":
        return RunEnding("inconclusive", text=result.reason)
    gravest = result.findings[0]
    if {one.rule for one in result.findings} == {"migration-ended"}:
        return _ended_otherwise(result, gravest)
    return RunEnding("failed", _signature(result, gravest, stack), gravest.text, certain=True)


def _without_verdict(status: int, said: str, error_type: str, stack: Sequence[str]) -> RunEnding:
    words = plain(said)
    if status == ExitCode.INPUT:
        if any(one in said for one in _TRANSIENT):
            return RunEnding("cut", text=said)
        return RunEnding("refused", words, said)
    if (no := _SAID_NO.search(said)) is not None and not stack:
        return RunEnding("refused", plain(no[1]), said)
    if (full := _NO_ROOM.search(said)) is not None and not stack:
        return RunEnding("refused", f"there is no room for {full[1]}", said)
    if error_type == _OUT_OF_TIME:
        return RunEnding("inconclusive", text=said)
    if error_type in _LOST or stack:
        return RunEnding("failed", _join(error_type or "lost", words, *stack[:FRAMES]), said)
    return RunEnding("error", _join(error_type or f"status {status}", words), said)


def _ended_otherwise(result: Result, finding: FoundRule) -> RunEnding:
    """A migration that ended in another way than its script wanted, and nothing else is wrong."""
    last = result.moves[-1]
    if last.ended == "failed":
        # Given up by a QEMU, in words, with a guest that is whole: it was not to be.
        return RunEnding("refused", plain(last.reason), last.reason)
    # The script came too late to end it, or another way around.
    return RunEnding("inconclusive", text=finding.text)


def _signature(result: Result, finding: FoundRule, stack: Sequence[str]) -> str:
    if finding.rule == "device-state-differs" and result.devices is not None:
        fields = {
            _join(plain(one.device), plain(one.field))
            for one in result.devices.differences
            if one.reason is None
        }
        return _join(finding.rule, *sorted(fields)[:3])
    if finding.kind == "memory":
        return _join(finding.rule, finding.block or "")
    return _join(finding.rule, plain(finding.text), *stack[:FRAMES])


def _join(*parts: str) -> str:
    return "/".join(part for part in parts if part)
