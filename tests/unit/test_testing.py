# SPDX-License-Identifier: GPL-2.0-or-later
"""The pytest plugin, in sessions of its own.  In place of the command is one that ends as it is told."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

# Imported here: sessions in this process forget what they have imported, and numpy comes but once.
import harness.report.result  # noqa: F401
from harness import invoke
from harness.testing.options import RunOptions, merged, option_words

pytest_plugins = ["pytester"]

#: A run's result, with all that the format demands.
RESULT = {
    "verdict": "pass",
    "reason": "memory is right",
    "scenario": "freed",
    "arm": "info",
    "accelerator": "tcg",
    "accelerator_reason": "asked for",
    "seed": 1,
    "strict": True,
    "memory_bytes": 1 << 29,
    "pages": {
        "total": 10,
        "equal": 4,
        "skipped": 6,
        "explained": {},
        "wrong": 0,
        "skipped_percent": 60.0,
    },
    "findings": [],
    "wrong_pages": [],
    "observed": {},
    "not_compared": [],
    "protocol": {
        **dict.fromkeys(
            ("requests", "responses", "stale", "invalid", "chunks", "reported", "skipped", "sent_before"), 0
        ),
        "fetched": 0,
        "dropped": 0,
        "bad_pages": 0,
        "refused": "",
    },
    "bytes": {
        **dict.fromkeys(("sent", "full_pages", "zero_pages", "floor", "head", "rest"), 0),
        "floor_by": "none",
        "floor_at": "start",
        "sent_over_floor": None,
        "again": None,
        "unreported": None,
    },
    "time": {"total_ms": 1, "downtime_ms": 1, "setup_ms": 1, "held_ms": 0},
    "rounds": 2,
    "guest": {},
    "phases": {},
    "versions": {},
    "replay": "freepage run freed",
}

#: Ends with the exit status that the scenario is named after, and says its words.
FAKE = """
import json, sys
words = sys.argv[1:]
print("  ... boot", file=sys.stderr)
if words[0] == "echo":
    print(words)
    sys.exit(0)
status = int(words[1])
if status in (0, 1, 4):
    result = json.load(open({result!r}))
    result["verdict"] = {{0: "pass", 1: "fail", 4: "inconclusive"}}[status]
    result["reason"] = " ".join(words)
    print(json.dumps(result))
else:
    print("freepage: the guest was lost\\nhint: look at its console", file=sys.stderr)
sys.exit(status)
"""

CONFTEST = """
import sys
# Imported here: sessions in this process forget what they have imported, and numpy comes but once.
import harness.report.result  # noqa: F401
from harness import invoke
invoke.command_line = lambda words: [sys.executable, {fake!r}, *map(str, words)]
"""


@pytest.fixture
def session(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A folder in which the command is a fake."""
    result = pytester.path / "result.json"
    result.write_text(json.dumps(RESULT))
    fake = pytester.path / "fake.py"
    fake.write_text(FAKE.format(result=str(result)))
    monkeypatch.setattr(invoke, "command_line", lambda words: [sys.executable, str(fake), *map(str, words)])
    return pytester


def run(session: pytest.Pytester, test: str, *options: str) -> pytest.RunResult:
    session.makepyfile(test)
    return session.runpytest("-p", "harness.testing.plugin", "-p", "no:cacheprovider", *options)


def test_a_run_has_a_typed_result(session: pytest.Pytester) -> None:
    done = run(
        session,
        """
        def test_it(freepage):
            run = freepage.run("0", memory="512MiB", set={"guest.vhost": True}, strict=False)
            assert (run.verdict, run.exit_code, run.result.pages.skipped) == ("pass", 0, 6)
            assert "--memory 512MiB --no-strict --set guest.vhost=true" in run.result.reason
            assert f"--out {run.folder}" in run.result.reason
            assert "... boot" in run.stderr
            assert freepage.run("1").verdict == "fail"
            assert freepage.command("echo", "a").stdout == "['echo', 'a']\\n"
        """,
    )
    done.assert_outcomes(passed=1)


def test_a_lost_guest_is_an_error_and_a_wrong_verdict_a_failure(session: pytest.Pytester) -> None:
    done = run(
        session,
        """
        import pytest

        def test_lost(freepage):
            freepage.run("3")

        def test_killed(freepage):
            freepage.run("130")

        def test_verdict(freepage):
            assert freepage.run("1").verdict == "pass"

        def test_input(freepage):
            freepage.run("2")

        @pytest.mark.xfail
        def test_lost_and_expected_to_fail(freepage):
            freepage.run("3")

        def test_asked_for(freepage):
            assert freepage.start("3").end().exit_code == 3
        """,
        "--junitxml=report.xml",
    )
    done.assert_outcomes(passed=1, failed=2, errors=3)
    done.stdout.fnmatch_lines_random(
        [
            "ERROR *::test_lost*",
            "E *NoVerdict: no verdict (exit status 3): the guest was lost",
            "FAILED *::test_input*",
            "E *WrongInput: the guest was lost",
        ]
    )
    report = (session.path / "report.xml").read_text()
    assert 'errors="3" failures="2"' in report


def test_the_folder_is_named_and_survives(session: pytest.Pytester) -> None:
    done = run(
        session,
        """
        def test_fails(freepage):
            freepage.run("0")
            freepage.start("4").end()
            assert freepage.run("1").verdict == "pass"

        def test_passes(freepage):
            pass

        def test_without_runs(freepage_folder):
            (freepage_folder / "kept").write_text("")
            assert False
        """,
        "--freepage-out=kept",
    )
    done.assert_outcomes(passed=1, failed=2)
    text = done.stdout.str()
    assert text.count("folder of this test: ") == 2
    (place, _) = re.findall(r"folder of this test: (.*)", text)
    assert Path(place).is_dir()
    assert Path(place).name == "test_fails"
    assert Path(place).parents[2] == session.path / "kept"
    done.stdout.fnmatch_lines(
        [
            "*  run-1-0: pass: *",
            "*    freepage run 0 --json --out *",
            "*  run-2-4: inconclusive: *",
            "*  run-3-1: fail: *",
        ]
    )
    assert list(session.path.glob("kept/*/*/test_without_runs/kept"))


def test_dimensions_are_in_the_ids(session: pytest.Pytester) -> None:
    done = run(
        session,
        """
        import pytest

        pytestmark = pytest.mark.freepage(machine="q35", arm=["hint"])

        @pytest.mark.freepage(arm=["off", "info"])
        def test_marked(freepage, freepage_arm):
            words = freepage.run("0").result.reason
            assert f"--arm {freepage_arm}" in words
            assert "--set guest.machine=q35" in words
            assert "--accel tcg" in words
            assert "--arm hint" in freepage.run("0", arm="hint").result.reason

        def test_outer(freepage):
            assert "--arm hint" in freepage.run("0").result.reason
            assert "--qemu /opt/own/qemu" in freepage.run("0").result.reason
            assert "--qemu" not in freepage.run("0", source_qemu="/x").result.reason

        def test_without():
            pass
        """,
        "-v",
        "--freepage-accel=tcg",
        "--freepage-qemu=/opt/own/qemu",
    )
    done.assert_outcomes(passed=4)
    done.stdout.fnmatch_lines_random(
        [
            "*::test_marked?arm=off-accel=tcg-machine=q35-qemu=qemu? PASSED*",
            "*::test_marked?arm=info-accel=tcg-machine=q35-qemu=qemu? PASSED*",
            "*::test_outer?arm=hint-accel=tcg-machine=q35-qemu=qemu? PASSED*",
            "*::test_without PASSED*",
        ]
    )


def test_an_option_given_twice_repeats_each_test(session: pytest.Pytester) -> None:
    test = """
        def test_it(freepage):
            freepage.run("0")
    """
    done = run(session, test, "--freepage-arm=off", "--freepage-arm=info", "-v")
    done.assert_outcomes(passed=2)


def test_a_dimension_that_is_none(session: pytest.Pytester) -> None:
    done = run(
        session,
        """
        import pytest

        @pytest.mark.freepage(colour="red")
        def test_it(freepage):
            pass
        """,
    )
    assert done.ret != 0
    done.stdout.fnmatch_lines(["*the marker freepage has no dimension 'colour'*"])


def test_workers_share_the_session_folder(session: pytest.Pytester) -> None:
    test = """
        import pytest

        @pytest.mark.parametrize("number", range(4))
        def test_it(freepage, number):
            freepage.run("0")
    """
    # Workers are processes of their own, in which nothing is replaced but by this.
    session.makeconftest(CONFTEST.format(fake=str(session.path / "fake.py")))
    run(session, test, "-n", "2").assert_outcomes(passed=4)
    (folder,) = (session.path / "freepage-results").iterdir()
    assert len(list(folder.glob("*/test_it-*"))) == 4


def test_what_still_runs_ends_with_the_test(session: pytest.Pytester) -> None:
    (session.path / "fake.py").write_text("import time; time.sleep(1000)\n")
    done = run(
        session,
        """
        import psutil

        def test_it(freepage):
            freepage.start("0")

        def test_then():
            assert not psutil.Process().children()
        """,
    )
    done.assert_outcomes(passed=2)


def test_options_become_words() -> None:
    assert option_words({"seed": 7, "trace": "pages", "machine": "q35", "strict": True}) == [
        *("--seed", "7", "--trace", "pages", "--strict", "--set", "guest.machine=q35")
    ]
    assert option_words({"set": {"expect.skipped_percent_min": None}}) == [
        "--set",
        "expect.skipped_percent_min=null",
    ]
    with pytest.raises(TypeError, match="no option 'colour'"):
        option_words({"colour": "red"})  # type: ignore[typeddict-unknown-key]


@pytest.mark.parametrize(
    ("given", "words", "wanted"),
    [
        ({}, (), {"memory": "512MiB", "qemu": "/q", "set": {"a": 1}}),
        ({"memory": "1GiB"}, (), {"memory": "1GiB", "qemu": "/q", "set": {"a": 1}}),
        ({}, ("--memory", "1GiB"), {"qemu": "/q", "set": {"a": 1}}),
        ({}, ("--qemu-source", "/tree"), {"memory": "512MiB", "set": {"a": 1}}),
        ({"destination_qemu": "/d"}, (), {"memory": "512MiB", "destination_qemu": "/d", "set": {"a": 1}}),
        ({"set": {"a": 2, "b": 3}}, (), {"memory": "512MiB", "qemu": "/q", "set": {"a": 2, "b": 3}}),
    ],
)
def test_what_is_given_replaces_a_default(
    given: RunOptions, words: tuple[str, ...], wanted: RunOptions
) -> None:
    assert merged({"memory": "512MiB", "qemu": "/q", "set": {"a": 1}}, given, words) == wanted


def test_other_sessions_pay_nothing_for_it() -> None:
    """pytest loads it wherever the package is installed."""
    heavy = "{'libvirt', 'numpy', 'psutil', 'pydantic', 'typer', 'yaml'}"
    code = f"import sys, harness.testing.plugin; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
