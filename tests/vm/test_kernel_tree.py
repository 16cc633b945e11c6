# SPDX-License-Identifier: GPL-2.0-or-later
"""``--kernel TREE``: Debian's kernel source as a tree of a user's, built, changed, and broken."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.events import EventStream
from harness.testing import Freepage
from harness.toolchain import Toolchain
from harness.toolchain.cache import Cache
from harness.toolchain.debian_archive import DebianArchive

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3 * 3600)]

#: A file of the source that everything needs, and a function of it.
_FILE = "mm/page_alloc.c"


@pytest.fixture(scope="module")
def tree() -> Iterator[Path]:
    """Where it was in the last night, too: what was built of it is still there."""
    cache = Cache(None, EventStream())
    pool = DebianArchive(cache, "bookworm")
    (package,) = pool.packages(["linux-source-6.1"])
    place = cache.folder("work", "test-kernel-tree")
    source = place / package.name
    with cache.lock("work-test-kernel-tree", "the kernel source of a test"):
        if not (source / "MAINTAINERS").exists():
            pool.unpack([package], place)
            archive = place / "usr" / "src" / f"{package.name}.tar.xz"
            subprocess.run(["tar", "-xf", archive, "-C", place], check=True)
        yield source


@pytest.fixture
def page_alloc(tree: Path) -> Iterator[Path]:
    """That file, which is put back."""
    file = tree / _FILE
    content = file.read_bytes()
    yield file
    file.write_bytes(content)


def test_a_tree_is_built_and_boots(freepage: Freepage, tree: Path) -> None:
    before = set(tree.iterdir())
    run = freepage.run(
        "freed", "--kernel-config", "tinyconfig", kernel=str(tree), memory="512MiB", timeout=3600
    )
    assert run.verdict == "pass", run
    assert run.result.pages.skipped > 0.6 * run.result.pages.total
    witnesses = run.result.witnesses
    assert witnesses is not None and witnesses.agreement is not None
    assert set(witnesses.agreement) == {"both"}
    # Nothing was written into it.
    assert set(tree.iterdir()) == before


def test_what_has_changed_is_compiled_and_nothing_else(tree: Path, page_alloc: Path) -> None:
    events, compiled = EventStream(), list[int]()
    events.subscribe(lambda event: compiled.append(event.data["done"]) if event.kind == "progress" else None)
    first = Toolchain(events=events).kernel(tree, "tinyconfig")
    again = Toolchain(events=events).kernel(tree, "tinyconfig")
    assert again.digest == first.digest
    compiled.clear()
    page_alloc.write_bytes(page_alloc.read_bytes() + b"\nint freepage_was_here = 1;\n")
    changed = Toolchain(events=events).kernel(tree, "tinyconfig")
    assert changed.digest != first.digest
    # That file, what is linked of it, and what says when it was linked.
    assert 0 < compiled[-1] < 60


def test_what_the_compiler_says_is_said_of_the_tree(freepage: Freepage, tree: Path, page_alloc: Path) -> None:
    content = page_alloc.read_text()
    line = content.count("\n") + 1
    page_alloc.write_text(content + "int freepage_was_here = nobody;\n")
    ended = freepage.start("idle", "--kernel-config", "tinyconfig", kernel=str(tree)).end(timeout=3600)
    assert ended.exit_code == 3
    assert f"{page_alloc}:{line}:" in ended.stderr
    assert "error:" in ended.stderr
    assert "nobody" in ended.stderr
    assert "Traceback" not in ended.stderr
