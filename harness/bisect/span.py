# SPDX-License-Identifier: GPL-2.0-or-later
"""The user's tree, which is only read: what is wrong with it, or with the revisions, is said first."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

from harness.bisect.git import Git, GitFailed
from harness.errors import InputError

TreeKind: TypeAlias = Literal["qemu", "kernel"]

#: What a tree of each kind has, by which it is known.
_MARKS: Final[dict[TreeKind, tuple[str, ...]]] = {
    "qemu": ("configure", "VERSION", "migration/ram.c"),
    "kernel": ("Kbuild", "MAINTAINERS", "mm/page_alloc.c"),
}
_NAMES: Final[dict[TreeKind, str]] = {"qemu": "QEMU", "kernel": "Linux"}
#: So many changed files are named.
_SHOWN: Final = 3


@dataclass(frozen=True, slots=True)
class CommitSpan:
    """From a good commit to a bad one; both by their full names."""

    tree: Path
    kind: TreeKind
    good: str
    bad: str
    #: Commits of which one may be to blame: those that are in ``bad``'s history and not in ``good``'s.
    commits: int


def look_at_span(tree: Path, kind: TreeKind, good: str, bad: str) -> CommitSpan:
    """Raises :class:`InputError` for a tree or revisions that cannot be searched."""
    tree = tree.absolute()
    if not tree.is_dir():
        raise InputError(f"there is no tree at {tree}")
    git = Git(tree)
    _demand_tree(git, tree)
    ends = {name: _commit(git, name, text) for name, text in (("--good", good), ("--bad", bad))}
    for end in ends.values():
        for mark in _MARKS[kind]:
            if not git.has_file(end, mark):
                raise InputError(f"{tree} at {end[:12]} is no source of {_NAMES[kind]}: it has no {mark}")
    if ends["--good"] == ends["--bad"]:
        raise InputError(f"--good {good} and --bad {bad} are one commit: {ends['--good'][:12]}")
    if not git.is_ancestor(ends["--good"], ends["--bad"]):
        turned = git.is_ancestor(ends["--bad"], ends["--good"])
        raise InputError(
            f"--good {good} ({ends['--good'][:12]}) is no ancestor of --bad {bad} ({ends['--bad'][:12]})",
            hint="it is the other way round: what is sought is what broke, and not what mended"
            if turned
            else f"name a common ancestor that is good: git merge-base {good} {bad}",
        )
    commits = git.count(ends["--good"], ends["--bad"])
    return CommitSpan(tree, kind, ends["--good"], ends["--bad"], commits)


def _demand_tree(git: Git, tree: Path) -> None:
    try:
        top = git.top()
    except GitFailed as error:
        raise InputError(f"{tree} is no git tree: {error.words}") from error
    if top.resolve() != tree.resolve():
        raise InputError(f"{tree} is a folder in a git tree, and not its top", hint=f"the top is {top}")
    changed = git.changed_files()
    if changed:
        more = f" and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
        raise InputError(
            f"{tree} has changes that are in no commit ({', '.join(changed[:_SHOWN])}{more}): "
            "none of them would be built",
            hint="commit them, or put them away (git stash)",
        )


def _commit(git: Git, option: str, text: str) -> str:
    commit = git.commit(text)
    if commit is None:
        raise InputError(f"{option} {text}: there is no such commit in {git.path}")
    return commit
