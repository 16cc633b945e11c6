# SPDX-License-Identifier: GPL-2.0-or-later
"""The module is built without a warning, by compiler and sparse, for the kernels of every suite."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from harness.errors import InputError, MachineryError
from harness.scenario.values import KERNELS
from harness.toolchain import Kernel, Toolchain
from harness.toolchain.debian_archive import DebianArchive, Package
from harness.toolchain.module import VARIANTS, build_module, builder_for

SUITES = [KERNELS[0], *(pytest.param(name, marks=pytest.mark.slow) for name in ("trixie", "newest"))]

#: What a compiler or sparse says of a file of ours.
_SAID = re.compile(r"^(?:\S*/)?(?P<file>\w+\.[ch]):(?P<line>\d+):\d+: (?P<kind>warning|error): (?P<text>.*)")


def kernel_of(toolchain: Toolchain, name: str) -> Kernel:
    try:
        return toolchain.kernel(name)
    except (InputError, MachineryError) as error:
        if name == KERNELS[0]:
            raise
        pytest.skip(f"no kernel {name}: {error}")


def complaints(log: Path, sources: Path) -> list[str]:
    """What was said about our own files, the headers' own troubles left out."""
    found = []
    for line in log.read_text("utf-8").splitlines():
        match = _SAID.match(line)
        if not match or not (sources / match["file"]).exists():
            continue
        said = (sources / match["file"]).read_text("utf-8").splitlines()[int(match["line"]) - 1]
        # Debian's sparse is older than what the newest headers make of these macros.
        if match["text"] == "bad constant expression" and said.startswith(("MODULE_", "module_param")):
            continue
        found.append(line)
    return found


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", SUITES)
def test_no_warning(toolchain: Toolchain, repository: Path, name: str, variant: str) -> None:
    kernel = kernel_of(toolchain, name)
    sources = repository / "guest-module"
    module = build_module(toolchain.cache, kernel, sources, variant)
    assert not complaints(module.with_name("build.log"), sources)


@pytest.mark.parametrize("mistake", ["unused", "undeclared"])
def test_a_warning_is_noticed(toolchain: Toolchain, repository: Path, tmp_path: Path, mistake: str) -> None:
    sources = tmp_path / "guest-module"
    shutil.copytree(repository / "guest-module", sources)
    line = {
        "unused": "static int nobody;\n",
        "undeclared": "int nobody(void) { return 0; }\n",
    }[mistake]
    with (sources / "stats.c").open("a") as file:
        file.write(line)
    module = build_module(toolchain.cache, toolchain.kernel(), sources)
    assert complaints(module.with_name("build.log"), sources)


@pytest.mark.slow
@pytest.mark.parametrize("name", KERNELS[:-1])
def test_sparse_has_nothing_to_say(toolchain: Toolchain, repository: Path, name: str) -> None:
    """For every kernel with the same sparse and compiler: those of the suite that has the newer ones."""
    tools = toolchain.recipe.kernels["trixie"].tools
    kernel = dataclasses.replace(kernel_of(toolchain, name), tools=tools, compiler="gcc-14")
    builder = builder_for(toolchain.cache, kernel)
    # Below the cache: nothing else is seen from inside.
    work = toolchain.cache.folder("work", f"sparse-{name}") / "guest-module"
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(repository / "guest-module", work)
    log = work.parent / "build.log"
    log.unlink(missing_ok=True)
    # (As C=2, for which headers of some suites lack a script.)
    options = ["W=1", "KBUILD_CHECKSRC=2", "FREEPAGE_TEST=1", "CF=-D__typeof_unqual__=__typeof__"]
    assert kernel.headers is not None
    builder.make(kernel.headers, work, options, log)
    checked = re.findall(r"^  CHECK   \S*?(\w+\.c)$", log.read_text("utf-8"), re.MULTILINE)
    assert set(checked) == {path.name for path in (repository / "guest-module").glob("*.c")}
    assert not complaints(log, work)


def newest_source(toolchain: Toolchain) -> tuple[DebianArchive, Package]:
    """Where the source of the newest kernel at hand comes from, and its package."""
    for suite in (toolchain.recipe.kernels["newest"].suite, toolchain.recipe.suite):
        pool = DebianArchive(toolchain.cache, suite)
        try:
            (meta,) = pool.packages(["linux-source"])
            (package,) = pool.packages([name for name in meta.depends if name.startswith("linux-source-")])
        except MachineryError:
            continue
        return pool, package
    pytest.skip("no source of any kernel")


@pytest.mark.slow
def test_checkpatch_has_nothing_to_say(toolchain: Toolchain, repository: Path) -> None:
    """The newest kernel's own: what it has learned since is asked of patches today."""
    pool, package = newest_source(toolchain)

    def unpack(folder: Path) -> None:
        pool.unpack([package], folder)
        (archive,) = folder.rglob("linux-source-*.tar.xz")
        wanted = [f"{package.name}/scripts/{name}" for name in ("checkpatch.pl", "spelling.txt")]
        wanted.append(f"{package.name}/scripts/const_structs.checkpatch")
        subprocess.run(["tar", "-xf", archive, *wanted], cwd=folder, check=True)
        shutil.rmtree(folder / "usr")

    folder = toolchain.cache.get("checkpatch", package.sha256[:32], unpack, what="checkpatch")
    (script,) = folder.rglob("checkpatch.pl")
    sources = sorted((repository / "guest-module").rglob("*.[ch]"))
    ignored = "EMBEDDED_FILENAME"  # compat.h and test.c name files in prose
    command = ["perl", script, "--no-tree", "--strict", "--terse", "--ignore", ignored, "-f", *sources]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = [line for line in done.stdout.splitlines() if not line.startswith("total:")]
    # What travels is one header for kernel and QEMU, and that has no BIT().
    said = [line for line in said if "free_page_info.h" not in line or "BIT macro" not in line]
    assert not said, "\n".join(said)
