# SPDX-License-Identifier: GPL-2.0-or-later
"""The command's surface: what it accepts, and how it says no."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness import cli
from harness.errors import InputError
from harness.scenario.load import Override


def call(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str
) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of the command, as its entry point gives them."""
    monkeypatch.setattr(sys, "argv", ["freepage", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    code = ended.value.code
    assert isinstance(code, int)
    return code, out, err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "nope"], "no such scenario: 'nope'"),
        (["run", "idle", "--memory", "5GB"], "--memory 5GB: guest.memory"),
        (["run", "idle", "--memory", "-5MiB"], "negative"),
        (["run", "idle", "--memory", "16TiB"], "does not fit"),
        (["run", "idle", "--arm", "both"], "--arm both"),
        (["run", "idle", "--accel", "xen"], "--accel xen"),
        (["run", "idle", "--set", "guset.memory=1GiB"], "did you mean 'guest'"),
        (["run", "idle", "--set", "memory"], "expected key=value"),
        (["run", "idle", "--out", "/"], "exists already"),
        (["run", "idle", "--qemu", "/nowhere/qemu"], "there is no QEMU at /nowhere/qemu"),
        (["shell", "nope"], "no such scenario"),
        (["scenario", "check", "/nowhere.yaml"], "/nowhere.yaml"),
        (["run"], "SCENARIO"),
        (["walk"], "walk"),
        (["run", "idle", "--seed", "many"], "--seed"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_said_and_ends_with_2(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    words: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = call(capsys, monkeypatch, *words)
    assert code == 2
    assert out == ""
    assert said in err
    assert "Traceback" not in err
    # Nothing was started, and nothing was made.
    assert not list(tmp_path.iterdir())


def test_all_of_a_files_faults_are_located(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("name: mine\nguest:\n  memory: 1GB\n  vcpu: 2\n")
    code, _, err = call(capsys, monkeypatch, "run", str(file))
    assert code == 2
    assert f"{file}:3" in err
    assert f"{file}:4" in err


def test_scenarios_are_listed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, _ = call(capsys, monkeypatch, "scenario", "list")
    assert code == 0
    names = [line.split()[0] for line in out.splitlines()]
    assert names == sorted(names)
    assert {"churn", "compile", "fragmented", "freed", "idle", "pagecache"} <= set(names)
    code, out, _ = call(capsys, monkeypatch, "scenario", "list", "--json")
    assert {"churn", "idle"} <= {entry["name"] for entry in json.loads(out)}


def test_a_shown_scenario_is_a_scenario(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _, out, _ = call(capsys, monkeypatch, "scenario", "show", "freed", "--set", "guest.memory=2GiB")
    file = tmp_path / "shown.yaml"
    file.write_text(out)
    code, out, _ = call(capsys, monkeypatch, "scenario", "check", str(file))
    assert (code, out) == (0, f"{file}: ok (freed)\n")


def test_the_schema_is_json(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    _, out, _ = call(capsys, monkeypatch, "scenario", "schema")
    assert json.loads(out)["properties"]["arm"]


def test_options_become_changes_of_the_scenario_and_set_wins() -> None:
    changes = cli.overrides("off", "tcg", "2GiB", 7, False, ["arm=hint"])
    shown = [change.shown if isinstance(change, Override) else change for change in changes]
    assert shown == ["--arm off", "--accel tcg", "--memory 2GiB", "--seed 7", "--no-strict", "arm=hint"]
    assert cli.overrides() == []


def test_an_error_shows_its_hint(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise InputError("what is wrong", hint="what to do")

    monkeypatch.setattr(cli, "carry_out_words", fail)
    code, out, err = call(capsys, monkeypatch)
    assert (code, out) == (2, "")
    assert err == "freepage: what is wrong\nhint: what to do\n"


def test_loading_the_command_loads_nothing_heavy() -> None:
    """``freepage run`` is measured from its first instruction."""
    heavy = {"numpy", "paramiko", "libvirt", "pyroute2", "pydantic", "qemu", "yaml", "cryptography"}
    code = f"import sys, harness.cli; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
