# SPDX-License-Identifier: GPL-2.0-or-later
"""A git tree of QEMU with a fault in one of 16 commits, and one commit that does not compile: which is it?"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.events import EventStream
from harness.invoke import invoke
from harness.toolchain import Toolchain
from harness.toolchain.cache import Cache
from harness.toolchain.qemu import FAULTS
from harness.toolchain.source import find_source
from harness.toolchain.worktree import WorkTree

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3 * 3600)]

#: Which of the commits, from 1.
CULPRIT, BROKEN = 11, 8

_RIGHT = "    if (!buffer_is_zero(p, TARGET_PAGE_SIZE)) {\n        return 0;\n    }\n\n    stat64_add"
_WRONG = _RIGHT.replace("(!buffer", "((offset >> TARGET_PAGE_BITS) % 64 && !buffer")
_HALF = '\n#error "half of a change"\n'

FILES = (
    "migration/migration.c",
    "migration/savevm.c",
    "migration/options.c",
    "migration/qemu-file.c",
    "util/bufferiszero.c",
)


def _without_firmware(folder: str, names: list[str]) -> list[str]:
    """Sources of firmware, which no QEMU is built from."""
    here = Path(folder)
    return [name for name in names if here.name == "roms" and (here / name).is_dir()]


def git(tree: Path, *words: str) -> str:
    identity = ("-c", "user.name=Tester", "-c", "user.email=tester@example.org", "-c", "commit.gpgsign=false")
    # The same commits each time: what was built of them is in the cache.
    env = {**os.environ, "GIT_AUTHOR_DATE": "@1700000000 +0000", "GIT_COMMITTER_DATE": "@1700000000 +0000"}
    command = ["git", "-C", str(tree), *identity, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout.strip()


@pytest.fixture(scope="module")
def tree() -> Iterator[Path]:
    """Debian's source, unpatched, with 16 commits on top."""
    cache = Cache(None, EventStream())
    source = find_source(cache, None)
    root = cache.folder("work", source.tree)
    tree = cache.folder("work", "bisect-test") / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    with cache.lock(f"work-{source.tree}", "QEMU's source"):
        work = WorkTree(root)
        source.prepare(work, cache)
        work.become(())
        shutil.copytree(work.source, tree, symlinks=True, ignore=_without_firmware)
    git(tree, "init", "--quiet", "--initial-branch=main")
    git(tree, "add", "--all", "--force", ".")
    git(tree, "commit", "--quiet", "--message=as released")
    git(tree, "tag", "c0")
    ram = tree / "migration" / "ram.c"
    for number in range(1, 17):
        text = ram.read_text()
        if number == CULPRIT:
            assert _RIGHT in text
            ram.write_text(text.replace(_RIGHT, _WRONG))
        elif number == BROKEN:
            ram.write_text(text + _HALF)
        elif number == BROKEN + 1:
            ram.write_text(text.replace(_HALF, ""))
        else:
            file = tree / FILES[number % len(FILES)]
            file.write_text(file.read_text() + f"\n/* note {number} */\n")
        git(tree, "commit", "--quiet", "--all", f"--message=change {number}")
        git(tree, "tag", f"c{number}")
    yield tree
    shutil.rmtree(tree)


_CONFIGURE = """\
#!/bin/sh
src=$(dirname "$0")
cat > build.ninja <<E
rule make
  command = sh $src/make.sh \\$in \\$out
build qemu-system-x86_64: make $src/migration/ram.c
E
"""
_MAKE = """\
if grep -q half "$1"; then echo "$1:1:1: error: half of a change"; exit 1; fi
fault=; grep -q wrong "$1" && fault="-global virtio-balloon-device.x-fault=page-tail-lost"
printf '#!/bin/sh\\nexec {qemu} %s "$@"\\n' "$fault" > "$2"
"""


@pytest.fixture
def quick_tree(toolchain: Toolchain, folder: Path) -> Path:
    """As :func:`tree`, but a build makes a script that starts the QEMU with faults, with one or none."""
    tree = folder / "tree"
    ram = tree / "migration" / "ram.c"
    ram.parent.mkdir(parents=True)
    (tree / "VERSION").write_text("10.0.13\n")
    (tree / "configure").write_text(_CONFIGURE)
    (tree / "configure").chmod(0o755)
    (tree / "make.sh").write_text(_MAKE.format(qemu=toolchain.qemu(FAULTS).path))
    ram.write_text("right\n")
    git(tree, "init", "--quiet", "--initial-branch=main")
    git(tree, "add", ".")
    git(tree, "commit", "--quiet", "--message=as released")
    git(tree, "tag", "c0")
    for number in range(1, 17):
        changes = {CULPRIT: ("right", "wrong"), BROKEN: ("", "half\n"), BROKEN + 1: ("half\n", "")}
        old, new = changes.get(number, ("", f"note {number}\n"))
        ram.write_text(ram.read_text().replace(old, new, 1))
        git(tree, "commit", "--quiet", "--all", f"--message=change {number}")
        git(tree, "tag", f"c{number}")
    return tree


def test_a_search_from_the_command_to_the_commit(quick_tree: Path, folder: Path) -> None:
    options = ("--arm", "off", "--memory", "512MiB", "--repeat", "1", "--out", folder / "bisect")
    done = invoke(["bisect", "--qemu-tree", quick_tree, "--good", "c0", "--bad", "c16", "idle", *options])
    assert done.exit_code == 0, str(done)
    assert f"change {CULPRIT}\n" in done.stdout
    document = json.loads((folder / "bisect" / "bisect.json").read_text())
    words = {one["commit"]: one for one in document["looked_at"]}
    broken = words[git(quick_tree, "rev-parse", f"c{BROKEN}")]
    assert (broken["word"], "half of a change" in broken["why"]) == ("skip", True)
    assert document["sureness"]["of"] == 1


def test_the_commit_is_found(tree: Path, folder: Path) -> None:
    options = ("--arm", "off", "--memory", "512MiB", "--repeat", "1", "--json", "--out", folder / "bisect")
    done = invoke(["bisect", "--qemu-tree", tree, "--good", "c0", "--bad", "c16", "idle", *options])
    assert done.exit_code == 0, str(done)
    document = json.loads(done.stdout)
    assert [one["subject"] for one in document["commits"]] == [f"change {CULPRIT}"]
    assert document == json.loads((folder / "bisect" / "bisect.json").read_text())
    words = {one["commit"]: one for one in document["looked_at"]}
    broken = words[git(tree, "rev-parse", f"c{BROKEN}")]
    assert broken["word"] == "skip"
    assert "half of a change" in broken["why"]
    found = words[document["commits"][0]["commit"]]
    assert "differs-though-sent" in found["runs"][-1]["rules"]
    assert git(tree, "status", "--porcelain") == ""
    # A run is kept, with the QEMU that it was made with.
    run = Path(found["runs"][-1]["folder"])
    again = invoke(["replay", run, "--out", folder / "again"])
    assert again.exit_code == 1, str(again)
    assert "the verdict is the same" in again.stderr


def test_ends_that_are_wrong_are_said(tree: Path, folder: Path) -> None:
    """Nothing is built for what can be said without."""
    for good, bad, words in (
        ("c16", "c0", "is no ancestor"),
        ("c0", "v99", "no such commit"),
        ("c3", "c3", "are one commit"),
    ):
        done = invoke(["bisect", "--qemu-tree", tree, "--good", good, "--bad", bad, "idle"])
        assert done.exit_code == 2
        assert words in done.stderr
    done = invoke(["bisect", "--qemu-tree", folder, "--good", "a", "--bad", "b", "idle"])
    assert (done.exit_code, "is no git tree" in done.stderr) == (2, True)
