# SPDX-License-Identifier: GPL-2.0-or-later
"""The cache: one maker, whole entries, nothing left behind by a failure."""

from __future__ import annotations

import errno
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.errors import MachineryError
from harness.events import EventStream
from harness.toolchain.cache import Cache, cache_root, key_of
from harness.toolchain.run import run_program


@pytest.fixture
def events() -> EventStream:
    return EventStream()


@pytest.fixture
def cache(tmp_path: Path, events: EventStream) -> Cache:
    return Cache(tmp_path / "cache", events)


def fill(folder: Path) -> None:
    (folder / "it").write_text("content")


def test_key_depends_on_every_input_and_on_nothing_else() -> None:
    key = key_of(source="a", patches=["x", "y"])
    assert key == key_of(patches=["x", "y"], source="a")
    assert key != key_of(source="a", patches=["y", "x"])
    assert key != key_of(source="b", patches=["x", "y"])
    code = "from harness.toolchain.cache import key_of; print(key_of(source='a', patches=['x', 'y']))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == key


def test_builds_once(cache: Cache) -> None:
    first = cache.get("kind", "key", fill, what="it")

    def never(folder: Path) -> None:
        pytest.fail("built twice")

    assert cache.get("kind", "key", never, what="it") == first
    assert (first / "it").read_text() == "content"


def test_finished_entry_needs_no_write_permission(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    place = cache.get("kind", "key", fill, what="it")
    monkeypatch.setattr(Path, "mkdir", lambda *_a, **_k: pytest.fail("made a folder"))
    assert cache.get("kind", "key", fill, what="it") == place


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MachineryError("no"), RuntimeError()])
def test_failed_build_leaves_nothing(cache: Cache, error: BaseException) -> None:
    def fail(folder: Path) -> None:
        fill(folder)
        raise error

    with pytest.raises(type(error)):
        cache.get("kind", "key", fail, what="it")
    assert list((cache.root / "store" / "kind").iterdir()) == []
    assert (cache.get("kind", "key", fill, what="it") / "it").exists()


def test_sweeps_what_a_killed_run_left(cache: Cache) -> None:
    leftover = cache.folder("store", "kind", ".key.abc")
    other = cache.folder("store", "kind", ".yek.abc")
    cache.get("kind", "key", fill, what="it")
    assert not leftover.exists()
    assert other.exists()  # another key's: somebody may be filling it


def test_two_at_once_build_once(cache: Cache, events: EventStream) -> None:
    inside, go = threading.Event(), threading.Event()
    built = []

    def slow(folder: Path) -> None:
        inside.set()
        assert go.wait(20)
        built.append(folder)
        fill(folder)

    threads = [threading.Thread(target=cache.get, args=("kind", "key", slow), kwargs={"what": "it"})]
    threads[0].start()
    assert inside.wait(20)
    second = Cache(cache.root, events)
    threads.append(threading.Thread(target=second.get, args=("kind", "key", slow), kwargs={"what": "it"}))
    waiting = threading.Event()
    events.subscribe(lambda event: waiting.set() if event.kind == "message" else None)
    threads[1].start()
    assert waiting.wait(20)
    go.set()
    for thread in threads:
        thread.join(20)
    assert len(built) == 1
    assert "another run is at it" in str(
        next(e for e in events.history() if e.kind == "message").data["text"]
    )


def test_full_disk_is_said_before_the_build(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")._replace(free=10 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    with pytest.raises(
        MachineryError, match=r"no disk space for it: 10 MiB free at .*, 50 MiB are needed"
    ) as caught:
        cache.get("kind", "key", fill, what="it", space=50 << 20)
    assert "FREEPAGE_CACHE" in (caught.value.hint or "")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_disk_that_fills_up_during_a_build(cache: Cache, number: int) -> None:
    def fail(folder: Path) -> None:
        raise OSError(number, os.strerror(number))

    with pytest.raises(MachineryError, match="no disk space for it"):
        cache.get("kind", "key", fail, what="it")


def test_cache_that_cannot_be_made(tmp_path: Path, events: EventStream) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MachineryError, match="cannot write to the cache"):
        Cache(tmp_path / "file" / "cache", events).get("kind", "key", fill, what="it")


def test_facts(cache: Cache) -> None:
    assert cache.recall("fact") is None
    cache.remember("fact", {"a": [1]})
    assert cache.recall("fact") == {"a": [1]}
    (cache.root / "facts" / "fact.json").write_text("{broken")
    assert cache.recall("fact") is None
    cache.forget("fact")
    cache.forget("fact")


def test_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FREEPAGE_CACHE", str(tmp_path / "named"))
    assert cache_root() == tmp_path / "named"
    assert cache_root(tmp_path / "given") == tmp_path / "given"
    monkeypatch.delenv("FREEPAGE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_root() == tmp_path / "xdg" / "freepage-testbed"


def test_what_a_failed_build_said_stays(cache: Cache) -> None:
    """The error names a file that is still there when somebody reads it."""

    def fail(folder: Path) -> None:
        run_program(["sh", "-c", "echo much; exit 1"], what="build it", log=folder / "build.log")

    with pytest.raises(MachineryError) as caught:
        cache.get("kind", "key", fill_and(fail), what="it")
    named = caught.value.message.rpartition("the whole output: ")[2]
    assert Path(named).read_text() == "much\n"
    assert not Path(named).is_relative_to(cache.root / "store")
    # The next attempt's takes its place.
    with pytest.raises(MachineryError):
        cache.get("kind", "key", fail, what="it")
    assert Path(named).read_text() == "much\n"


def fill_and(then: Callable[[Path], None]) -> Callable[[Path], None]:
    def both(folder: Path) -> None:
        fill(folder)
        then(folder)

    return both


def test_an_editor_finds_what_a_compiler_complains_about(tmp_path: Path) -> None:
    sources, work, build = tmp_path / "module", tmp_path / "copy", tmp_path / "build"
    for folder in (sources, work, build):
        folder.mkdir()
    (work / "a.c").write_text("int x")
    lines = (f"{work}/a.c:1:2: error: no", "../copy/a.c:1:2: error: no", "at 12:30:45, x.c:1: none")
    script = f"printf '%s\\n' {shlex.join(lines)}; exit 1"
    with pytest.raises(MachineryError) as caught:
        run_program(["sh", "-c", script], what="build", cwd=build, told={work: sources})
    said = caught.value.message
    assert f"| {sources}/a.c:1:2: error: no\n  | {sources}/a.c:1:2: error: no\n" in said
    assert "| at 12:30:45, x.c:1: none" in said
    with pytest.raises(MachineryError, match=re.escape(f"| {work}/a.c:1:2: error: no\n  | {work}/a.c:1:2")):
        run_program(["sh", "-c", script], what="build", cwd=build)
