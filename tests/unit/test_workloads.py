# SPDX-License-Identifier: GPL-2.0-or-later
"""The workloads that are programs of their own: they find what a broken migration would have done to them."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.memory import formula
from harness.scenario.workloads.disk import Dma, PageCache
from harness.scenario.workloads.programs import Compile, Database
from harness.toolchain.cache import Cache
from harness.toolchain.disk import build_formula_disk
from tests.unit.guest_programs import made

PAGE = formula.PAGE


def compiled(folder: Path, *words: str, **defines: str) -> Path:
    """The guest's program, for this machine; ``words``: what else make is told."""
    return made(folder / "made", "workload", defines=defines, words=words) / "workload"


class Talk:
    """A workload that speaks a line of JSON for each line that it reads."""

    def __init__(self, *words: str | Path) -> None:
        self.process = subprocess.Popen(
            [str(word) for word in words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found

    def say(self, line: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.hear()


@pytest.fixture
def talk() -> Iterator[Callable[..., Talk]]:
    begun: list[Talk] = []

    def begin(*words: str | Path) -> Talk:
        begun.append(Talk(*words))
        return begun[-1]

    yield begin
    for one in begun:
        one.process.kill()
        one.process.communicate()


# --- pagecache


def test_the_disk_holds_the_formula(tmp_path: Path) -> None:
    from harness.events import EventStream

    disk = build_formula_disk(Cache(tmp_path, EventStream()), 9 * PAGE)
    words = np.fromfile(disk, "<u8").reshape(9, -1)
    for page in (0, 4, 8):
        assert (words[page] == formula.page_words(formula.DISK_SEED, page, 0)).all()


def test_pagecache_reads_what_the_host_expects(tmp_path: Path, talk: Callable[..., Talk]) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(formula.disk_content(0, 40).tobytes())
    program = compiled(tmp_path, DISK=str(disk))
    cache = talk(program, "load", "pagecache", "7", str(40 * PAGE), "rate=100000")
    expected = PageCache().expected(7, 40 * PAGE)
    loaded = cache.hear()
    assert (loaded["pages"], loaded["checksum"], loaded["bad"]) == (40, expected.checksum, 0)
    verified = cache.say("verify")
    assert (verified["pages"], verified["checksum"], verified["bad"]) == (40, expected.checksum, 0)


def test_pagecache_notices_a_wrong_page(tmp_path: Path, talk: Callable[..., Talk]) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(formula.disk_content(0, 40).tobytes())
    program = compiled(tmp_path, DISK=str(disk))
    cache = talk(program, "load", "pagecache", "7", str(40 * PAGE), "rate=1000000")
    assert cache.hear()["bad"] == 0
    with disk.open("r+b") as file:  # the same page cache
        file.seek(17 * PAGE + 8 * 5)
        file.write(b"\0" * 8)
    verified = cache.say("verify")
    assert verified["bad"] == 1
    assert (verified["first_bad"]["page"], verified["first_bad"]["word"]) == (17, 5)
    stopped: dict[str, Any] = {"live_checked": 0}
    while stopped["live_checked"] < 2000:  # of 40 pages; it goes on between two answers
        stopped = cache.say("verify")
    assert stopped["live_bad"] > 0


def test_pagecache_refuses_a_disk_that_is_another(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(b"\0" * 4 * PAGE)
    program = compiled(tmp_path, DISK=str(disk))
    done = subprocess.run(
        [program, "load", "pagecache", "7", str(4 * PAGE)], capture_output=True, text=True, check=False
    )
    assert done.stdout == "error the disk does not hold what it must: 4 pages are wrong\n"


# --- dma


def test_dma_holds_what_the_host_expects(tmp_path: Path, talk: Callable[..., Talk]) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(formula.disk_content(0, 64).tobytes())
    program = compiled(tmp_path, DISK=str(disk))
    dma = talk(program, "load", "dma", "7", str(70 * PAGE), "rate=100000")
    loaded = dma.hear()
    # Whole pieces only.
    assert (loaded["pages"], loaded["bad"]) == (64, 0)
    assert loaded["checksum"] == Dma().expected(7, 70 * PAGE).checksum
    stopped: dict[str, Any] = {"steps": 0}
    while stopped["steps"] < 50:
        stopped = dma.say("verify")
    stopped = dma.say("stop")
    verified = dma.say("verify")
    assert verified["steps"] == stopped["steps"] >= 50
    expected = Dma().expected(7, 70 * PAGE, verified["steps"])
    assert (verified["pages"], verified["checksum"]) == (64, expected.checksum)
    assert (verified["bad"], verified["live_bad"]) == (0, 0)
    assert expected != Dma().expected(7, 70 * PAGE)


def test_dma_notices_a_page_that_is_not_what_was_read(tmp_path: Path, talk: Callable[..., Talk]) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(formula.disk_content(0, 64).tobytes())
    program = compiled(tmp_path, DISK=str(disk))
    dma = talk(program, "load", "dma", "7", str(64 * PAGE), "rate=100000")
    assert dma.hear()["bad"] == 0
    with disk.open("r+b") as file:  # as if the device had written its first pages only
        for piece in range(4):
            file.seek((16 * piece + 15) * PAGE)
            file.write(b"\0" * PAGE)
    stopped: dict[str, Any] = {"live_checked": 0}
    while stopped["live_checked"] < 50:
        stopped = dma.say("verify")
    assert stopped["bad"] > 0
    assert stopped["live_bad"] > 0
    assert stopped["first_bad"]["page"] % 16 == 15


# --- compile

#: "Compiles" by copying, with the flags in front.
FAKE_COMPILER = """#!/bin/sh
for word; do last=$word; done
while [ "$1" != -o ]; do shift; done
cat "$last" > "$2"
"""


@pytest.fixture
def build(tmp_path: Path) -> Path:
    (tmp_path / "src").mkdir()
    for number in range(6):
        (tmp_path / "src" / f"{number}.c").write_text(f"int x{number};\n")
    (tmp_path / "list").write_text("".join(f"{number}.c\n" for number in range(6)))
    (tmp_path / "flags").write_text("-O2\n-Iinclude\n")
    compiler = tmp_path / "cc"
    compiler.write_text(FAKE_COMPILER)
    compiler.chmod(0o755)
    return compiled(tmp_path, COMPILER=str(compiler), BUILD=str(tmp_path), PLACE=str(tmp_path))


def steps_of(one: Talk, least: int) -> dict[str, Any]:
    found: dict[str, Any] = {"live_checked": -1}
    while found["live_checked"] < least:
        found = one.say("verify")
    return found


def test_compile_builds_the_same_again(build: Path, talk: Callable[..., Talk]) -> None:
    one = talk(build, "load", "compile", "5", "0", "jobs=3", "files=4", f"keep={3 * PAGE}")
    loaded = one.hear()
    expected = Compile(keep=3 * PAGE).expected(5, 0)
    assert (loaded["pages"], loaded["checksum"], loaded["steps"]) == (3, expected.checksum, 4)
    found = steps_of(one, 10)
    assert (found["bad"], found["live_bad"]) == (0, 0)
    stopped = one.say("stop")
    assert one.say("verify")["steps"] == stopped["steps"]


def test_compile_notices_an_object_that_came_out_differently(
    build: Path, tmp_path: Path, talk: Callable[..., Talk]
) -> None:
    one = talk(build, "load", "compile", "5", "0", "files=6")
    one.hear()
    (tmp_path / "src" / "2.c").write_text("int y;\n")
    assert steps_of(one, 40)["live_bad"] > 0


def test_compile_notices_a_compiler_that_dies(build: Path, tmp_path: Path, talk: Callable[..., Talk]) -> None:
    one = talk(build, "load", "compile", "5", "0", "files=6")
    one.hear()
    (tmp_path / "src" / "2.c").unlink()
    assert steps_of(one, 40)["live_bad"] > 0


def test_compile_says_what_does_not_compile_at_all(build: Path, tmp_path: Path) -> None:
    (tmp_path / "src" / "2.c").unlink()
    done = subprocess.run(
        [build, "load", "compile", "5", "0", "files=6"], capture_output=True, text=True, check=False
    )
    assert "2.c did not compile" in done.stdout


# --- database

#: What somebody else does to the table behind the program's back, and what of it is counted.
DAMAGE = {
    "a row's text": ("UPDATE account SET text = zeroblob(384) WHERE id = 7", 1),
    "a row's version": ("UPDATE account SET version = version + 1 WHERE id = 7", 1),
    "a short text": ("UPDATE account SET text = substr(text, 1, 380) WHERE id = 7", 1),
    "money": ("UPDATE account SET balance = balance + 1 WHERE id = 7", 1),
    # All that follow are not where they are expected, and one is missing.
    "a row": ("DELETE FROM account WHERE id = 97", 4),
}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    if not Path("/usr/include/sqlite3.h").exists():
        pytest.skip("SQLite's header is not installed")
    return compiled(
        tmp_path,
        "WORKLOAD_FLAGS=-DWITH_SQLITE",
        "WORKLOAD_LIBS=-lsqlite3 -lm",
        FILE_NAME=str(tmp_path / "base"),
    )


def at_rest(base: Path, talk: Callable[..., Talk]) -> Talk:
    """A database of 100 accounts in which at least 50 transactions were made."""
    one = talk(base, "load", "database", "5", str(100 * 424), f"keep={3 * PAGE}")
    loaded = one.hear()
    assert (loaded["pages"], loaded["checksum"]) == (
        3,
        Database(keep=3 * PAGE).expected(5, 0).checksum,
    )
    steps_of(one, 100)
    stopped = one.say("stop")
    assert (stopped["bad"], stopped["live_bad"]) == (0, 0)
    assert stopped["live_checked"] == 2 * stopped["steps"]
    return one


def test_a_database_is_right(base: Path, talk: Callable[..., Talk]) -> None:
    one = at_rest(base, talk)
    found = one.say("verify")
    assert (found["bad"], found["live_bad"]) == (0, 0)
    assert one.say("verify")["steps"] == found["steps"]


@pytest.mark.parametrize("what", DAMAGE)
def test_a_database_notices_damage(base: Path, tmp_path: Path, talk: Callable[..., Talk], what: str) -> None:
    one = at_rest(base, talk)
    statement, counted = DAMAGE[what]
    with sqlite3.connect(tmp_path / "base") as other:
        assert other.execute(statement).rowcount == 1
    other.close()
    found = one.say("verify")
    # What the money that is gone with a row adds up to depends on chance.
    assert found["live_bad"] - counted in ((0, 1) if what == "a row" else (0,))


def test_a_database_at_work_notices_a_row_before_it_changes_it(
    base: Path, tmp_path: Path, talk: Callable[..., Talk]
) -> None:
    # The first transaction is due after a second, and waits: SQLite would refuse two at once.
    one = talk(base, "load", "database", "5", str(100 * 424), "rate=1")
    one.hear()
    one.process.send_signal(signal.SIGSTOP)
    with sqlite3.connect(tmp_path / "base") as other:
        other.execute("UPDATE account SET text = zeroblob(384)")
    other.close()
    one.process.send_signal(signal.SIGCONT)
    asked = 0
    found = {"live_checked": 0}
    while not found["live_checked"]:
        found, asked = one.say("verify"), asked + 1
    # Each look at all rows finds a hundred; the rest was found by the transactions.
    assert found["live_bad"] - 100 * asked == found["live_checked"]
