# SPDX-License-Identifier: GPL-2.0-or-later
"""Exit status 1 is a verdict and nothing else: whatever goes wrong otherwise is 3."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness import cli
from harness.errors import ExitCode, InputError
from harness.events import EventStream
from harness.invoke import command_line
from harness.report.folder import INCOMPLETE_MARKER, RunFolder
from harness.run import supervise
from harness.terminal import TerminalProgress

LIST = command_line(["scenario", "list"])


def ended(monkeypatch: pytest.MonkeyPatch, app: Callable[[], None]) -> int:
    """The command's status when its application does this."""
    monkeypatch.setattr(cli, "carry_out_words", app)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert isinstance(end.value.code, int)
    return end.value.code


def test_a_fault_of_the_testbed_is_no_verdict(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fault() -> None:
        raise RuntimeError("a fault")

    assert ended(monkeypatch, fault) == ExitCode.ERROR
    assert "RuntimeError: a fault" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("code", "status"), [(None, 0), (1, 1), (2, 2), (4, 4), (130, 130), ("some words", 3)]
)
def test_what_a_command_ends_with(
    monkeypatch: pytest.MonkeyPatch, code: int | str | None, status: int
) -> None:
    def end() -> None:
        sys.exit(code)

    assert ended(monkeypatch, end) == status


def test_a_full_device_is_no_verdict() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(LIST, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == ExitCode.ERROR
    # Said once, whichever write has failed.
    assert done.stderr.count("No space left on device") == 1
    assert "Traceback" not in done.stderr


@contextlib.contextmanager
def nobody() -> Iterator[int]:
    """The writing end of a pipe whose reader is gone."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        yield writing
    finally:
        os.close(writing)


@pytest.mark.parametrize(
    "words",
    [
        ["scenario", "list"],
        ["scenario", "schema"],
        # What Rich writes, it would end with 1.
        ["--help"],
        ["run", "--help"],
        ["--version"],
    ],
)
def test_a_reader_that_is_gone_is_no_verdict(words: list[str]) -> None:
    with nobody() as writing:
        done = subprocess.run(
            command_line(words), stdout=writing, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == ExitCode.ERROR
    assert "Traceback" not in done.stderr


def test_nobody_reads_what_is_wrong_with_the_words() -> None:
    with nobody() as writing:
        done = subprocess.run(
            command_line(["nosuch"]), stdout=subprocess.DEVNULL, stderr=writing, check=False
        )
    assert done.returncode in (ExitCode.INPUT, ExitCode.ERROR)


def test_a_run_goes_on_when_nobody_reads_its_progress() -> None:
    """Its result is on stdout; Rich would end the run with 1, and stdout with it."""
    events = EventStream()
    with nobody() as writing, os.fdopen(os.dup(writing), "w") as stderr:
        with contextlib.suppress(OSError), TerminalProgress(events, file=stderr):
            with events.step("boot"):
                pass
            with events.step("migrate"):
                pass
        steps = [event.data["step"] for event in events.history() if event.kind == "step-stop"]
        assert steps == ["boot", "migrate"]
        with contextlib.suppress(OSError):
            stderr.close()


def test_a_fault_during_a_run_is_3_and_stands_in_its_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(*_: object) -> int:
        raise RuntimeError("a fault")

    folder = RunFolder.create(tmp_path / "run", "idle", "info")
    status = supervise._supervise(SimpleNamespace(), folder, EventStream(), work)  # type: ignore[arg-type]
    assert status == ExitCode.ERROR
    assert "RuntimeError: a fault" in capsys.readouterr().err
    assert "fault of the testbed itself" in folder.file(INCOMPLETE_MARKER).read_text()


def test_a_result_that_nobody_can_read_is_no_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """stdout is noticed to be full when the result is printed, not when nobody can say so any more."""
    from harness.run import carry_out

    full = Path("/dev/full").open("w")  # noqa: SIM115 - to close it would write once more

    def work(*_: object) -> int:
        monkeypatch.setattr(sys, "stdout", full)
        try:
            carry_out.print_result(SimpleNamespace(to_json=lambda: "{}\n"), as_json=True)  # type: ignore[arg-type]
        finally:
            monkeypatch.undo()
        return ExitCode.FAIL

    folder = RunFolder.create(tmp_path / "run", "idle", "info")
    status = supervise._supervise(SimpleNamespace(), folder, EventStream(), work)  # type: ignore[arg-type]
    with contextlib.suppress(OSError):
        full.close()
    assert status == ExitCode.ERROR
    assert "No space left on device" in capsys.readouterr().err


def test_a_run_folder_that_exists_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="exists already"):
        supervise.demand_new(tmp_path)
    supervise.demand_new(tmp_path / "new")
    supervise.demand_new(None)


class _Full:
    """A disk on which nothing has room any more, but for what makes room first."""

    def __init__(self, folder: RunFolder, *, for_ever: bool) -> None:
        self._folder, self._for_ever = folder, for_ever

    def write_whole(self, name: str, text: str) -> Path:
        if self._for_ever or self._folder.file("pages.npz").exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
        return self._folder.write_whole(name, text)

    def __getattr__(self, name: str) -> object:
        return getattr(self._folder, name)


RESULT = SimpleNamespace(
    to_json=lambda: '{"verdict": "pass"}\n', verdict="pass", reason="all right", as_expected=True
)


@pytest.mark.parametrize("for_ever", [False, True])
def test_a_full_disk_does_not_cost_the_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], for_ever: bool
) -> None:
    from harness.run.carry_out import put_down

    folder = RunFolder.create(tmp_path / "run", "idle", "info")
    folder.file("pages.npz").write_bytes(b"much")

    def work(*_: object) -> int:
        put_down(RESULT, _Full(folder, for_ever=for_ever), EventStream(), as_json=True)  # type: ignore[arg-type]
        return ExitCode.PASS

    status = supervise._supervise(SimpleNamespace(), folder, EventStream(), work)  # type: ignore[arg-type]
    said = capsys.readouterr()
    if for_ever:
        assert status == ExitCode.ERROR
        assert said.out == RESULT.to_json()
        assert "the verdict is 'pass' (all right)" in said.err
        assert "the verdict is 'pass' (all right)" in folder.file(INCOMPLETE_MARKER).read_text()
    else:
        assert status == ExitCode.PASS
        assert folder.has_verdict


def test_a_result_that_cannot_be_printed_is_still_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder has a verdict and no marker, and the marker does not come back."""
    from harness.run.carry_out import put_down

    folder = RunFolder.create(tmp_path / "run", "idle", "info")

    def work(*_: object) -> int:
        put_down(RESULT, folder, EventStream(), as_json=True)  # type: ignore[arg-type]
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    status = supervise._supervise(SimpleNamespace(), folder, EventStream(), work)  # type: ignore[arg-type]
    assert status == ExitCode.ERROR
    assert folder.has_verdict
    assert f"the verdict is kept: {folder.file('result.json')}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("closed", "status"),
    # Without stdout nobody has the list.
    [("<&-", 0), (">&-", ExitCode.ERROR), ("2>&-", 0), ("<&- >&- 2>&-", ExitCode.ERROR)],
)
def test_streams_that_are_closed(closed: str, status: int) -> None:
    words = [sys.executable, "-P", "-m", "harness", "scenario", "list"]
    done = subprocess.run(["sh", "-c", f'exec "$@" {closed}', "sh", *words], capture_output=True, check=False)
    assert done.returncode == status
    assert b"Traceback" not in done.stderr


def test_ctrl_c_is_said_and_is_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> list[object]:
        raise KeyboardInterrupt

    monkeypatch.setattr("harness.scenario.load.list_scenarios", interrupted)
    monkeypatch.setattr(sys, "argv", ["freepage", "scenario", "list"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 130
    assert "freepage: interrupted" in capsys.readouterr().err
