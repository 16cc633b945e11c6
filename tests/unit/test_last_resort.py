# SPDX-License-Identifier: GPL-2.0-or-later
"""Any exception becomes words and an exit status; the traceback of a fault of ours is kept in a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import ExitCode, InputError
from harness.last_resort import FAULT_TRACE, in_words


def test_our_own_errors_stay_what_they_are() -> None:
    error = InputError("no good")
    assert in_words(error) is error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PermissionError(13, "Permission denied", "/x/y"), "/x/y: Permission denied"),
        (PermissionError(13, "Permission denied", b"/x/y"), "/x/y: Permission denied"),
        (OSError("a word"), "a word"),
        (EOFError(), "stdin has ended"),
        (MemoryError(), "there is not enough memory"),
    ],
)
def test_the_machine_s_errors(error: BaseException, words: str) -> None:
    told = in_words(error)
    assert told.message == words
    assert told.exit_code == ExitCode.ERROR


def test_a_fault_of_ours_leaves_its_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        {}["nothing"]
    except KeyError as error:
        told = in_words(error, tmp_path)
    assert told.message == "a fault of the testbed itself: KeyError: 'nothing'"
    assert str(tmp_path / FAULT_TRACE) in told.render()
    assert "Traceback" in (tmp_path / FAULT_TRACE).read_text()
    assert "Traceback" not in capsys.readouterr().err


def test_a_traceback_that_cannot_be_kept_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = in_words(RuntimeError("x"), tmp_path / "none")
    assert told.hint is None
    assert "RuntimeError: x" in capsys.readouterr().err


def test_verbose_shows_it_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FREEPAGE_VERBOSITY", "verbose")
    in_words(RuntimeError("x"), tmp_path)
    assert "RuntimeError: x" in capsys.readouterr().err


def test_without_a_folder_it_goes_to_the_user_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    in_words(RuntimeError("x"))
    [file] = (tmp_path / "freepage-testbed" / "faults").iterdir()
    assert "RuntimeError: x" in file.read_text()
