# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs again and again, one run once more, and what would be started: what of it needs no guest."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import ExitCode, InputError
from harness.plan.plan import Tools
from harness.report.finished import FinishedRun, outcome_of
from harness.run.odds import at_least, least_rate, missed, most_rate, runs_to_tell
from harness.run.one_run import one_run
from harness.run.print_command import StartOfGuest, as_document, as_text
from harness.run.replay import other_programs
from harness.run.replay_command import parse_options, recorded_run
from harness.suite.until_failure import Repeated
from tests.unit.test_result import passing, result


def ended(number: int, status: int) -> FinishedRun:
    return FinishedRun(
        name="some",
        scenario="some",
        repeat=number,
        # One that has a verdict left a result, which is not looked into here.
        outcome=outcome_of(status, result(passing()) if status in (0, 1, 4) else None),
        exit_status=status,
        reason="words",
        seed=number,
        began=datetime.now(UTC),
        seconds=1.0,
        folder=f"run-{number}",
    )


def ends(*statuses: int, interrupted: bool = False) -> Repeated:
    return Repeated("some", 9, tuple(ended(*one) for one in enumerate(statuses, 1)), interrupted)


# --- the arithmetic


def test_bounds_are_those_of_clopper_and_pearson() -> None:
    scipy = pytest.importorskip("scipy.stats")
    for failed, runs in ((1, 1), (1, 5), (3, 3), (7, 20), (20, 20)):
        assert least_rate(failed, runs) == pytest.approx(
            scipy.beta.ppf(0.05, failed, runs - failed + 1), rel=1e-9
        )
        assert most_rate(failed, runs) == pytest.approx(
            1.0 if failed == runs else scipy.beta.ppf(0.95, failed + 1, runs - failed), rel=1e-9
        )


def test_without_a_failure_the_bounds_say_what_is_known() -> None:
    assert least_rate(0, 10) == 0.0
    assert most_rate(0, 0) == 1.0
    # The rule of three, exactly: 1 - 0.05^(1/100).
    assert most_rate(0, 100) == pytest.approx(1 - 0.05**0.01)


@given(st.integers(1, 40), st.data())
def test_a_bound_is_where_the_chance_is_one_in_twenty(runs: int, data: st.DataObject) -> None:
    failed = data.draw(st.integers(1, runs))
    assert at_least(failed, runs, least_rate(failed, runs)) == pytest.approx(0.05, rel=1e-6)
    assert least_rate(failed, runs) <= failed / runs <= most_rate(failed, runs)


@given(st.floats(0.01, 0.99), st.floats(0.001, 0.5))
def test_so_many_runs_tell(rate: float, risk: float) -> None:
    runs = runs_to_tell(rate, risk)
    assert missed(rate, runs) <= risk * (1 + 1e-9)
    assert runs == 1 or missed(rate, runs - 1) > risk * (1 - 1e-9)


def test_numbers_that_cannot_be_are_refused() -> None:
    for failed, runs in ((3, 2), (-1, 2)):
        with pytest.raises(ValueError):
            least_rate(failed, runs)
    for rate, risk in ((0.0, 0.1), (0.5, 0.0), (0.5, 1.0)):
        with pytest.raises(ValueError):
            runs_to_tell(rate, risk)


# --- until a failure


def test_it_ends_with_the_first_failure_and_its_status() -> None:
    repeated = ends(0, 4, 0, 1)
    assert repeated.exit_status == ExitCode.FAIL
    text = "\n".join(repeated.lines())
    assert "run 4 of at most 9: fail: words" in text
    assert "2 passed, 1 inconclusive" in text
    assert "seed        4" in text


def test_an_error_ends_it_as_well_and_is_no_verdict() -> None:
    assert ends(0, 3).exit_status == ExitCode.ERROR


def test_none_that_fails_says_how_much_that_tells() -> None:
    repeated = ends(*[0] * 8, 4)
    assert repeated.exit_status == ExitCode.PASS
    assert repeated.lines()[0] == "none of 8 runs failed, 1 inconclusive"
    assert "fewer than 31 %" in repeated.lines()[1]
    assert json.loads(repeated.document())["rate_below"] == pytest.approx(1 - 0.05 ** (1 / 8))


def test_runs_that_say_nothing_are_no_pass() -> None:
    repeated = ends(*[4] * 9)
    assert repeated.exit_status == ExitCode.INCONCLUSIVE
    assert json.loads(repeated.document())["rate_below"] is None


def test_an_interruption_keeps_what_there_is() -> None:
    assert ends(0, interrupted=True).exit_status == 130


def test_a_pass_without_a_result_is_an_error(tmp_path: Path) -> None:
    end = one_run(tmp_path / "none", 0, tmp_path / "none.log")
    assert end.exit_status == ExitCode.ERROR
    assert one_run(tmp_path / "none", -9, tmp_path / "none.log").reason == "it was killed by signal 9"
    (tmp_path / "some.log").write_text("ok\nfreepage: no such scenario\n")
    assert one_run(tmp_path / "some", 2, tmp_path / "some.log").reason == "no such scenario"


# --- replay


def test_what_a_run_writes_is_read() -> None:
    tools = Tools("stock", "/some/qemu", "trixie", Path("/tree"), "late-arming", warm=True)
    assert parse_options([*tools.options(), "--nested"], "here") == (tools, True)
    assert parse_options([], "here") == (Tools(), False)


@pytest.mark.parametrize("words", [["--out", "/etc"], ["idle"], ["--kernel"], ["--set", "arm=off"]])
def test_what_no_run_writes_is_refused(words: list[str]) -> None:
    with pytest.raises(InputError, match="no run writes there"):
        parse_options(words, "here")


def test_a_folder_says_how_its_run_was_made(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no scenario\.yaml"):
        recorded_run(tmp_path)
    (tmp_path / "scenario.yaml").write_text("name: x\n")
    with pytest.raises(InputError, match="nothing says how it was run"):
        recorded_run(tmp_path)
    (tmp_path / "result.json").write_text('{"replay": "freepage run /gone/scenario.yaml --kernel trixie"}')
    assert recorded_run(tmp_path).tools.kernel == "trixie"
    # The folder may have been moved: what lies in it counts, and not where it was.
    (tmp_path / "replay").write_text("'/a b/freepage' run '/gone away/scenario.yaml' --fault x --nested\n")
    recorded = recorded_run(tmp_path)
    assert (recorded.scenario, recorded.tools.fault, recorded.nested) == (
        tmp_path / "scenario.yaml",
        "x",
        True,
    )


@pytest.mark.parametrize("text", ["freepage 'run", "freepage run elsewhere.txt"])
def test_a_command_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "scenario.yaml").write_text("name: x\n")
    (tmp_path / "replay").write_text(text)
    with pytest.raises(InputError):
        recorded_run(tmp_path)


def test_other_programs_are_said() -> None:
    before = {"source_qemu": {"path": "/a", "sha256": "1"}, "libvirt": "9.0.0"}
    now = {"source_qemu": {"path": "/a", "sha256": "2"}, "libvirt": "9.0.0"}
    assert other_programs(before, before) == []
    assert other_programs(before, now) == ["the source's QEMU is another one: /a then, /a now"]
    assert other_programs(before, {**before, "libvirt": "10.0.0"}) == ["libvirt was 9.0.0, and is 10.0.0"]


# --- what would be started


def test_libvirts_words_are_taken_apart() -> None:
    native = (
        "LC_ALL=C \\\nHOME='/a b' \\\n/usr/bin/qemu \\\n-name guest=guest \\\n-object '{\"a\":1}' \\\n-S\n"
    )
    start = StartOfGuest.of("<domain>\n</domain>", native)
    assert start.environment == {"LC_ALL": "C", "HOME": "/a b"}
    assert start.command == ["/usr/bin/qemu", "-name", "guest=guest", "-object", '{"a":1}', "-S"]
    text = as_text({"source": start})
    assert "env LC_ALL=C 'HOME=/a b' /usr/bin/qemu \\\n    -name guest=guest" in text
    assert all(line.startswith("#") for line in text.splitlines() if "domain>" in line), (
        "the domain is a comment"
    )
    assert json.loads(as_document({"source": start}))["source"]["command"][0] == "/usr/bin/qemu"
