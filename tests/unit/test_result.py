# SPDX-License-Identifier: GPL-2.0-or-later
"""The result document and its summary."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from harness.errors import InputError
from harness.report.judged_pages import FoundRule, NotCompared, Pages, wrong_pages_of
from harness.report.migration import Bytes, Protocol, Time
from harness.report.result import GuestReport, Result, result_schema
from harness.report.summary import print_summary
from harness.verdict.floor import Account
from harness.verdict.judge import JudgeInput, Judgement, judge
from tests.unit.test_verdict import ALL_WELL, info, state

COUNTERS = {
    "requests": 2, "answers": 1, "chunks": 3, "reported": 900, "skipped": 800, "sent-before": 100, "stale": 1,
    "invalid": 0, "dropped": 0, "bad-pages": 4, "refused": "", "armings": 2,
}  # fmt: skip
ACCOUNT = Account(10_000, 8_000, "module", "request", 1_000, None, None, 1_000)


def result(judgement: Judgement, **changes: object) -> Result:
    fields: dict[str, object] = {
        "verdict": judgement.verdict,
        "reason": judgement.reason,
        "scenario": "freed",
        "arm": "info",
        "accelerator": "tcg",
        "accelerator_reason": "no /dev/kvm",
        "seed": 2**63 - 1,
        "strict": True,
        "memory_bytes": 2**31,
        "pages": Pages.of(judgement.pages),
        "findings": [FoundRule.of(finding) for finding in judgement.findings],
        "wrong_pages": wrong_pages_of(judgement),
        "observed": dict(judgement.observed),
        "not_compared": [NotCompared(name="pc.bios", bytes=262144, reason="anonymous memory")],
        "protocol": Protocol.of(COUNTERS),
        "bytes": Bytes.of(ACCOUNT, full_pages=2, zero_pages=9),
        "time": Time(total_ms=1200, downtime_ms=40, setup_ms=5, held_ms=100),
        "rounds": 3,
        "guest": GuestReport(
            verify_pages=10, verify_bad=0, exercise_pages=20, exercise_bad=0, kernel_warnings=[]
        ),
        "phases": {"boot": 2.0, "migrate": 1.2},
        "versions": {"source_qemu": {"sha256": "ab"}},
        "replay": "freepage run runs/x/scenario.yaml",
        "folder": "runs/x",
        **changes,
    }
    return Result.model_validate(fields)


def shown(document: Result) -> str:
    file = io.StringIO()
    print_summary(document, Console(file=file))
    return file.getvalue()


def passing() -> Judgement:
    return judge(info(), ALL_WELL)


def failing() -> Judgement:
    broken = state([1, 2, 7], [1, 0, 8], sent=[1, 0, 1])
    return judge(info(blocks=(broken,), unchanged={5: {"pc.ram": np.zeros(3, np.bool_)}}))


def test_a_log_has_no_blanks_at_the_ends_of_its_lines() -> None:
    lines = shown(result(passing())).splitlines()
    assert len(lines) > 5
    assert [line for line in lines if line != line.rstrip()] == []


def test_round_trip() -> None:
    document = result(passing())
    assert Result.from_json(document.to_json()) == document
    plain = json.loads(document.to_json())
    assert plain["version"] == 1
    assert plain["verdict"] == "pass"
    assert plain["seed"] == 2**63 - 1
    assert plain["pages"] == {
        "total": 3, "equal": 2, "skipped": 1, "explained": {}, "wrong": 0, "skipped_percent": 33.333,
    }  # fmt: skip
    assert plain["protocol"]["responses"] == 1
    assert plain["protocol"]["sent_before"] == 100
    assert plain["bytes"]["floor_by"] == "module"
    assert plain["bytes"]["sent_over_floor"] == 1.125
    assert plain["bytes"]["again"] is None
    assert plain["findings"] == plain["wrong_pages"] == []


def test_wrong_pages_are_listed() -> None:
    document = result(failing())
    plain = json.loads(document.to_json())
    assert plain["pages"]["wrong"] == 2
    first, second = plain["wrong_pages"]
    assert (first["page"], first["rule"], first["request"]) == (1, "skipped-but-changed-since-request", "0x5")
    assert (second["page"], second["rule"], second["request"]) == (2, "differs-though-sent", None)
    assert (second["zero_on_source"], second["sent"], second["frame"]) == (False, True, None)
    assert [found["kind"] for found in plain["findings"]] == ["memory", "memory"]


def test_no_floor_no_ratio() -> None:
    account = Account(10, 0, "none", "switch-over", 0, None, None, 10)
    assert Bytes.of(account, full_pages=0, zero_pages=0).sent_over_floor is None


def test_other_documents_are_refused() -> None:
    text = result(passing()).to_json()
    with pytest.raises(InputError, match=r"result.json is not a result of version 1: version"):
        Result.from_json(text.replace('"version": 1', '"version": 2'))
    with pytest.raises(InputError, match="not a result of version 1"):
        Result.from_json("{")


def test_summary_of_a_pass() -> None:
    lines = shown(result(passing())).splitlines()
    assert lines[0] == "PASS  freed, arm info, tcg, 2.00 GiB, seed 9223372036854775807"
    text = "\n".join(lines)
    for words in (
        "3: 2 equal, 1 skipped (33.3 %), 0 wrong",
        "2 requests, 1 answers, 1 stale, 0 invalid",
        "sent less those is 1.12 times the floor",
        "1200 ms in 3 rounds, of which 100 ms held for digests; down for 40 ms",
        "0 of its 10 pages wrong, 0 of 20 exercised pages wrong, 0 kernel warnings",
        "pc.bios (anonymous memory)",
        "freepage run runs/x/scenario.yaml",
    ):
        assert words in text


def test_summary_of_a_failure() -> None:
    text = shown(result(failing(), expected="pass"))
    assert text.startswith("FAIL  freed")
    assert "pc.ram page 0x1 (no frame): skipped-but-changed-since-request, request 0x5" in text
    assert "this scenario expects the verdict 'pass'" in text
    many = judge(JudgeInput("off", (state(range(1, 31), [0] * 30),)))
    assert "... 20 more; result.json lists the first 100" in shown(result(many, arm="off"))


def test_summary_of_a_device_that_refused() -> None:
    refused = Protocol.of({**COUNTERS, "refused": "postcopy-ram is enabled"})
    text = shown(result(passing(), protocol=refused, guest=GuestReport()))
    assert "not asked: postcopy-ram is enabled" in text
    assert "guest         not asked" in text


def test_schema_and_docs_name_every_field(repository: Path) -> None:
    schema = result_schema()
    text = (repository / "docs" / "result.md").read_text(encoding="utf-8")
    for part in (schema, *schema["$defs"].values()):  # type: ignore[attr-defined]
        for key, value in part["properties"].items():
            assert f"`{key}`" in text, key
            assert value.get("description") or "$ref" in value, key
