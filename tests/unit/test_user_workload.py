# SPDX-License-Identifier: GPL-2.0-or-later
"""A program of the user's as a workload: its protocol, and what is refused before a guest boots."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.arch import GUEST, HOST
from harness.errors import InputError
from harness.scenario.load import load_scenario
from harness.toolchain.user_program import demand_static_program
from tests.unit.guest_programs import made

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "user"
#: As little as a program can do.
SCRIPTED = """\
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
int main(int argc, char **argv)
{
	char line[64];

	(void)argc;
	setvbuf(stdout, NULL, _IOLBF, 0);
	puts(strcmp(argv[1], "1") ? "ready" : "steady");
	while (fgets(line, sizeof(line), stdin)) {
		if (!strcmp(line, "write\\n")) {
			puts("work 7");
			continue;
		}
		if (!strcmp(argv[1], "2"))
			exit(3);
		if (!strcmp(argv[1], "3"))
			puts("nonsense");
		if (!strcmp(argv[1], "4"))
			puts("wrong page 5");
		else
			puts("right");
	}
	return 0;
}
"""


def compiled(source: Path, target: Path, *words: str) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    subprocess.run(["gcc", "-O1", "-Wall", "-Werror", *words, "-o", target, source], check=True)
    return target


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("user")


@pytest.fixture(scope="module")
def workload(place: Path) -> Path:
    source = place / "scripted.c"
    source.write_text(SCRIPTED)
    compiled(source, place / "program")
    made(place / "made", "workload", defines={"USER_PROGRAM": str(place / "program")}, sanitized=True)
    return place / "made" / "workload"


def answers(program: Path, seed: int, *commands: str) -> Iterator[dict[str, Any]]:
    words: list[str | Path] = [program, "load", "user", str(seed), "0", "keep=65536"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())
        for command in commands:
            process.stdin.write(f"{command}\n")
            process.stdin.flush()
            yield json.loads(process.stdout.readline())
        process.stdin.close()
    assert process.returncode == 0


def test_a_program_that_is_right(workload: Path) -> None:
    loaded, stopped, verified = answers(workload, 5, "stop", "verify")
    assert loaded["pages"] == 16
    assert (stopped["live_bad"], verified["live_bad"]) == (0, 0)
    assert verified["bad"] == 0
    assert verified["steps"] == 7
    assert verified["live_checked"] == 2


@pytest.mark.parametrize(("seed", "what"), [(2, "ends"), (3, "says nonsense"), (4, "finds something wrong")])
def test_what_is_wrong_is_counted(workload: Path, seed: int, what: str) -> None:
    _, _, verified = answers(workload, seed, "stop", "verify")
    assert verified["live_bad"] >= 1, what


def test_a_program_that_is_not_ready_is_no_workload(workload: Path) -> None:
    words: list[str | Path] = [workload, "load", "user", "1", "0", "keep=4096"]
    ended = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert "expected 'ready', got 'steady'" in ended.stdout + ended.stderr


def test_the_example_keeps_to_the_protocol(place: Path) -> None:
    program = compiled(EXAMPLE / "counter.c", place / "counter")
    with subprocess.Popen(
        [program, "9"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.stdin.write("write\n")
        process.stdin.flush()
        assert process.stdout.readline() == "work 1\n"
        process.stdin.write("check\n")
        process.stdin.flush()
        line = "work 1\n"
        while line == "work 1\n":
            line = process.stdout.readline()
        assert line == "right\n"
        process.stdin.close()
    assert process.returncode == 0


def test_the_example_is_a_scenario() -> None:
    scenario = load_scenario(str(EXAMPLE / "user.yaml"))
    assert scenario.workload.own_program == Path("counter")
    assert scenario.workload.load_words(7, 0)[:3] == ("user", "7", "0")


def test_only_what_a_guest_can_start_is_taken(place: Path) -> None:
    source = place / "empty.c"
    source.write_text("int main(void) { return 0; }\n")
    if GUEST is HOST:
        demand_static_program(compiled(source, place / "static", "-static"))
    with pytest.raises(InputError, match=r"no program for a guest|loader and libraries"):
        demand_static_program(compiled(source, place / "shared"))
    for name, content, words in (
        ("text", b"#!/bin/sh\n" * 20, "expected an ELF file"),
        ("short", b"\x7fELF", "expected an ELF file"),
        ("cut", (place / "shared").read_bytes()[:64], r"no program"),
        ("other", b"\x7fELF\x01\x01" + bytes(100), "no program for a guest"),
    ):
        path = place / name
        path.write_bytes(content)
        with pytest.raises(InputError, match=words):
            demand_static_program(path)
    for path in (place / "missing", place):
        with pytest.raises(InputError, match="there is no program"):
            demand_static_program(path)
