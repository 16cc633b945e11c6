# SPDX-License-Identifier: GPL-2.0-or-later
"""Git, as a command: what is asked of a tree, and ``git bisect`` in a clone."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

from harness.errors import MachineryError
from harness.toolchain.run import find_program

#: How git tells the end: builtin/bisect.c in git's source.
_FOUND: Final = re.compile(r"^([0-9a-f]{40,64}) is the first bad commit$", re.M)
_ONLY_SKIPPED: Final = "only 'skip'ped commits left to test"
_NAME: Final = re.compile(r"^([0-9a-f]{40,64})\b", re.M)

Word: TypeAlias = Literal["good", "bad", "skip"]


class GitFailed(MachineryError):  # noqa: N818 - the name says what happened
    """Git says no; ``words``: its own."""

    def __init__(self, message: str, words: str) -> None:
        super().__init__(f"{message}: {words}")
        self.words = words


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit, for people."""

    name: str
    subject: str = ""
    author: str = ""
    date: str = ""


@dataclass(frozen=True, slots=True)
class Next:
    """What git wants to be told next; it is checked out."""

    commit: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The first bad commit; or several, of which each may be it: between them nothing could be told."""

    commits: tuple[str, ...]


class Git:
    """A repository at a path."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def top(self) -> Path:
        """The top of its checkout."""
        return Path(self._run("rev-parse", "--show-toplevel"))

    def commit(self, text: str) -> str | None:
        """The full name of the commit that a revision means; None: there is none."""
        found = self._try("rev-parse", "--verify", "--quiet", "--end-of-options", f"{text}^{{commit}}")
        return found.stdout.strip() if found.returncode == 0 else None

    def is_ancestor(self, old: str, new: str) -> bool:
        """Whether a commit is in another's history."""
        return self._try("merge-base", "--is-ancestor", old, new).returncode == 0

    def count(self, old: str, new: str) -> int:
        """How many commits are in the second one's history and not in the first one's."""
        return int(self._run("rev-list", "--count", f"{old}..{new}"))

    def has_file(self, commit: str, name: str) -> bool:
        """Whether a commit has a file of that name."""
        return self._try("cat-file", "-e", f"{commit}:{name}").returncode == 0

    def changed_files(self) -> list[str]:
        """Files that git knows, and that differ from what is committed."""
        return self._run("diff", "HEAD", "--name-only", "--ignore-submodules=all").splitlines()

    def describe(self, commit: str) -> Commit:
        """A commit in words."""
        form = "%H%x00%s%x00%an <%ae>%x00%aI"
        words = self._run("show", "--no-patch", f"--format={form}", commit).split("\0")
        return Commit(*words[:4])

    @classmethod
    def clone(cls, tree: Path, into: Path) -> Git:
        """A clone that shares the tree's objects, and nothing else of it; one that is there is used."""
        if into.exists() and cls(into)._try("cat-file", "-e", "HEAD^{tree}").returncode != 0:
            # The tree at that place is another one by now: what the clone has of it is not there any more.
            shutil.rmtree(into)
        if not (into / ".git").exists():
            into.parent.mkdir(parents=True, exist_ok=True)
            cls(tree)._run("clone", "--quiet", "--shared", "--no-checkout", "--", str(tree), str(into))
        git = cls(into)
        # What an earlier search has left, however it ended.
        git._try("bisect", "reset", "--quiet")
        return git

    def check_out(self, commit: str) -> None:
        """Have the files of a commit; those that do not differ keep their times."""
        self._run("checkout", "--quiet", "--force", "--detach", commit)

    # --- git bisect

    def begin(self, good: str, bad: str) -> Next | Ended:
        """``git bisect start``."""
        self._try("bisect", "reset")
        return self._step(self._try("bisect", "start", bad, good))

    def tell(self, word: Word) -> Next | Ended:
        """What the commit is that is checked out."""
        return self._step(self._try("bisect", word))

    def bisect_log(self) -> str:
        """What git was told, to be replayed with ``git bisect replay``."""
        return self._run("bisect", "log") + "\n"

    def _step(self, done: subprocess.CompletedProcess[str]) -> Next | Ended:
        said = f"{done.stdout}\n{done.stderr}"
        if (found := _FOUND.search(said)) is not None:
            return Ended((found[1],))
        if _ONLY_SKIPPED in said:
            return Ended(tuple(_NAME.findall(said)))
        if done.returncode != 0:
            raise GitFailed("git bisect goes no further", said.strip())
        return Next(self._run("rev-parse", "HEAD"))

    def _run(self, *words: str) -> str:
        done = self._try(*words)
        if done.returncode != 0:
            raise GitFailed(f"git {words[0]} in {self.path}", done.stderr.strip() or done.stdout.strip())
        return done.stdout.strip()

    def _try(self, *words: str) -> subprocess.CompletedProcess[str]:
        # Nothing of a hook that git was called from, no pager, no question, no translation.
        kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        env = {**kept, "LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_PAGER": "cat"}
        command: Sequence[str] = [str(find_program("git")), "-C", str(self.path), *words]
        return subprocess.run(
            command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
        )
