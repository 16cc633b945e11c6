# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds commits, one after the other, in one lasting tree: each compiles what differs from the one before.

What was built is kept in the cache under the commit's name: its runs can be replayed.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from harness.bisect.git import Git
from harness.bisect.search import DoesNotBuild
from harness.bisect.span import CommitSpan
from harness.errors import InputError
from harness.plan.plan import Tools
from harness.run.one_run import MadeRun, run_as_command
from harness.scenario.load import Scenario
from harness.toolchain.cache import Cache, key_of
from harness.toolchain.kernel import named_kernel
from harness.toolchain.kernel_tree import tree_kernel
from harness.toolchain.module import build_module
from harness.toolchain.qemu import PATCHED, STOCK, QemuBuilder
from harness.toolchain.run import ProgramFailed
from harness.toolchain.source import checked_out
from harness.toolchain.sources import sources

_SUBPROJECTS: Final = "subprojects"
#: Of a name, for folders and for people.
SHORT: Final = 12


def work_name(tree: Path) -> str:
    """What the work tree of a user's tree is called in the cache."""
    return f"bisect-{key_of(path=str(tree))}"


def clone_of(span: CommitSpan, cache: Cache) -> Git:
    """Our clone of the user's tree, in which commits are checked out."""
    return Git.clone(span.tree, cache.folder("work", work_name(span.tree)) / "clone")


class Runs:
    """Makes the runs of a search: ``scenarios``: the files of each commit's first run, second run, ..."""

    def __init__(self, folder: Path, scenarios: tuple[Path, ...]) -> None:
        self._folder = folder
        self._scenarios = scenarios
        self._commits: list[str] = []

    def of(self, commit: str, tools: Tools) -> Callable[[int], MadeRun]:
        """What makes the commit's runs."""
        if commit not in self._commits:
            self._commits.append(commit)
        place = self._folder / f"{self._commits.index(commit) + 1:02d}-{commit[:SHORT]}"
        place.mkdir(exist_ok=True)

        def make(number: int) -> MadeRun:
            scenario = self._scenarios[number - 1]
            return run_as_command(scenario, place / f"run-{number}", tools.options())

        return make


class QemuCommits:
    """Builds a QEMU of each commit, for both sides."""

    def __init__(
        self, span: CommitSpan, clone: Git, cache: Cache, scenario: Scenario, tools: Tools, runs: Runs
    ) -> None:
        self._span = span
        self._clone = clone
        self._cache = cache
        self._arm = scenario.arm
        self._tools = tools
        self._runs = runs

    def build(self, commit: str) -> Callable[[int], MadeRun]:
        """Raises :class:`DoesNotBuild` for what neither configures nor compiles."""
        self._clone.check_out(commit)
        self._add_subprojects()
        with _failing_means_does_not_build():
            source = checked_out(self._clone.path, commit, work_name(self._span.tree))
            # The series is for what needs it: upstream's commits are searched as they are.
            flavour = PATCHED if source.has_feature or self._arm == "info" else STOCK
            qemu = QemuBuilder(self._cache, source, sources() / "qemu-patches").get(flavour)
        program = str(qemu.path)
        return self._runs.of(commit, replace(self._tools, source_qemu=program, destination_qemu=program))

    def _add_subprojects(self) -> None:
        """What the user's tree has fetched of subprojects, which no commit has, need not be fetched again."""
        there = self._span.tree / _SUBPROJECTS
        for folder in sorted(there.iterdir()) if there.is_dir() else ():
            target = self._clone.path / _SUBPROJECTS / folder.name
            if folder.is_dir() and not folder.is_symlink() and not target.exists():
                shutil.copytree(folder, target, symlinks=True, ignore=shutil.ignore_patterns(".git"))


class KernelCommits:
    """Builds a kernel of each commit, for the guest, with its modules and ours."""

    def __init__(self, clone: Git, cache: Cache, scenario: Scenario, tools: Tools, runs: Runs) -> None:
        self._clone = clone
        self._cache = cache
        self._configuration = scenario.guest.kernel_config
        self._tools = tools
        self._runs = runs

    def build(self, commit: str) -> Callable[[int], MadeRun]:
        """Raises :class:`DoesNotBuild` for what does not compile, or for which our module does not."""
        self._clone.check_out(commit)
        with _failing_means_does_not_build():
            kernel = tree_kernel(self._cache, self._clone.path, self._configuration)
            # The cache's own copy: the clone is another commit's by the time that somebody replays the run.
            folder = kernel.vmlinuz.parents[1]
            build_module(self._cache, named_kernel(folder), sources() / "guest-module")
        return self._runs.of(commit, replace(self._tools, kernel=str(folder)))


@contextlib.contextmanager
def _failing_means_does_not_build() -> Iterator[None]:
    """What neither configures nor compiles is the commit's; an end that somebody has made is not."""
    try:
        yield
    except ProgramFailed as error:
        if error.status < 0:
            raise
        raise DoesNotBuild(_first_complaint(error)) from error
    except InputError as error:
        raise DoesNotBuild(error.message) from error


def _first_complaint(error: ProgramFailed) -> str:
    """The first line that says what is wrong, of all that a build says."""
    wrong = [line.strip() for line in error.lines if "error:" in line or line.startswith("ERROR")]
    return wrong[0] if wrong else error.message.splitlines()[0]
