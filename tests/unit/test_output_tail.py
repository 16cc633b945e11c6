# SPDX-License-Identifier: GPL-2.0-or-later
"""What is kept of a program that talks, and what a run says of one that has ended by itself."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.events import EventStream
from harness.hosts.output_tail import OutputTail
from harness.report.folder import RunFolder
from harness.run.arrival import DeviceLook, with_ends
from harness.run.helpers import DeviceHelpers
from harness.scenario.devices import HelperProgram


def said_by(path: Path, program: str) -> str:
    words = OutputTail(path)
    with path.open("ab") as out:
        process = subprocess.Popen([sys.executable, "-c", program], stdout=out, stderr=out)
    words.begun()
    process.wait()
    return words.text()


def test_only_the_end_is_kept(tmp_path: Path) -> None:
    text = said_by(
        tmp_path / "pipe", "print('x' * 79 + '\\n' * 1, end='') or [print('y' * 79) for _ in range(5000)]"
    )
    assert "x" not in text
    assert text.endswith("y\n")
    assert len(text) == 1 << 16
    assert list(tmp_path.iterdir()) == []


def test_one_that_says_nothing_has_no_words(tmp_path: Path) -> None:
    assert said_by(tmp_path / "pipe", "pass") == ""


class HostOfThisMachine:
    """As a lab's host, without namespaces."""

    name = "destination"

    def start_program(
        self, command: Sequence[str], inherited: int | None, log: Path
    ) -> subprocess.Popen[bytes]:
        with log.open("ab") as out:
            return subprocess.Popen(
                command, stdout=out, stderr=out, pass_fds=[inherited] if inherited else []
            )


@pytest.fixture
def helpers(tmp_path: Path) -> DeviceHelpers:
    (tmp_path / "run").mkdir()
    folder = SimpleNamespace(file=lambda name: tmp_path / "run" / name)
    return DeviceHelpers({"bridge": [sys.executable, "-c"]}, _as_folder(folder), EventStream())


def _as_folder(folder: Any) -> RunFolder:
    found: RunFolder = folder
    return found


def served(helpers: DeviceHelpers, host: Any, tmp_path: Path, program: str, *, talks: bool) -> None:
    """A new QEMU, one device of which that program serves."""
    helper = HelperProgram("bridge", (program,), tmp_path / f"socket-{talks}", talks=talks)
    device = SimpleNamespace(
        device="nic",
        provide=lambda _: None,
        make_ready=lambda *_, **__: None,
        echoes=lambda _: (),
        helpers=lambda _: (helper,),
    )
    added: Any = SimpleNamespace(device=device, number=7, context=SimpleNamespace(shared=tmp_path / "shared"))
    helpers.arrive(host, [added])


@pytest.mark.parametrize("talks", [True, False])
def test_a_program_that_ends_by_itself_is_told_with_its_last_word(
    helpers: DeviceHelpers, tmp_path: Path, talks: bool
) -> None:
    host: Any = HostOfThisMachine()
    program = "import sys; print('a packet'); print('PANIC: no fd'); print('and so on'); sys.exit(3)"
    with helpers:
        served(helpers, host, tmp_path, program, talks=talks)
        for one in helpers._running:
            one.process.wait()
        assert helpers.ended(host) == {7: "bridge, which serves it, has ended with status 3: PANIC: no fd"}
        assert helpers.unserved(host) == frozenset()
    assert "a packet" in (tmp_path / "run" / "bridge-7-1.log").read_text()


def test_one_that_a_script_has_killed_is_nobodys_fault(helpers: DeviceHelpers, tmp_path: Path) -> None:
    host: Any = HostOfThisMachine()
    with helpers:
        served(helpers, host, tmp_path, "import time; time.sleep(600)", talks=True)
        assert helpers.ended(host) == {}
        helpers.kill("nic", host)
        assert helpers.ended(host) == {}
        assert helpers.unserved(host) == {"nic"}


def test_the_device_that_it_served_is_wrong() -> None:
    looks = [DeviceLook("nic", ("ping",), (), 1), DeviceLook("nic", (), (), 2)]
    (nic, other) = with_ends(looks, {1: "bridge, which serves it, has ended with status 3: PANIC"})
    assert [finding.rule for finding in nic.findings] == ["device-wrong"]
    assert nic.wrong == ("nic: bridge, which serves it, has ended with status 3: PANIC",)
    assert other == looks[1]
