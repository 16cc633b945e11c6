# SPDX-License-Identifier: GPL-2.0-or-later
"""The search for a change: with git itself, on small trees, and with runs that are made up."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from harness.bisect.command import as_lines, bisect_document
from harness.bisect.git import Git, GitFailed, Next
from harness.bisect.judged import JudgedCommit, Sureness, judge_commit
from harness.bisect.search import DoesNotBuild, Search
from harness.bisect.span import CommitSpan, look_at_span
from harness.errors import InputError
from harness.run.one_run import MadeRun

RULE = "differs-though-sent"
PASS = MadeRun(Path("run"), 0, "all is right")
FAIL = MadeRun(Path("run"), 1, "24 pages differ", rules=(RULE,))
OTHER = MadeRun(Path("run"), 1, "it did not converge", rules=("converged",))
ERROR = MadeRun(Path("run"), 3, "no guest")
UNCLEAR = MadeRun(Path("run"), 4, "nothing was tried")


def git(tree: Path, *words: str) -> str:
    identity = ("-c", "user.name=Tester", "-c", "user.email=tester@example.org", "-c", "commit.gpgsign=false")
    return subprocess.run(
        ["git", "-C", str(tree), *identity, *words], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is taken for a QEMU, with 16 commits on top of the first one."""
    tree = tmp_path_factory.mktemp("tree")
    for name in ("configure", "VERSION", "migration/ram.c"):
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).write_text("10.0.0\n")
    git(tree, "init", "--quiet", "--initial-branch=main")
    git(tree, "add", ".")
    git(tree, "commit", "--quiet", "--message=the first")
    git(tree, "tag", "c0")
    for number in range(1, 17):
        (tree / "migration" / "ram.c").write_text(f"{number}\n")
        git(tree, "commit", "--quiet", "--all", f"--message=change {number}")
        git(tree, "tag", f"c{number}")
    return tree


class Made:
    """Builds by looking at what is checked out; ``runs`` says what a number's runs come to."""

    def __init__(self, clone: Git, runs: Callable[[int, int], MadeRun], broken: Iterable[int] = ()) -> None:
        self.clone = clone
        self.runs = runs
        self.broken = frozenset(broken)
        self.built: list[int] = []

    def build(self, commit: str) -> Callable[[int], MadeRun]:
        self.clone.check_out(commit)
        text = (self.clone.path / "migration" / "ram.c").read_text()
        number = 0 if text.startswith("10.0") else int(text)
        self.built.append(number)
        if number in self.broken:
            raise DoesNotBuild("ram.c:1: error: expected ';'")
        return lambda run: self.runs(number, run)


@pytest.fixture
def span(tree: Path) -> CommitSpan:
    return look_at_span(tree, "qemu", "c0", "c16")


def from_(culprit: int) -> Callable[[int, int], MadeRun]:
    return lambda number, _: FAIL if number >= culprit else PASS


# --- finding


@pytest.mark.parametrize("culprit", range(1, 17))
def test_the_commit_is_found(tree: Path, span: CommitSpan, tmp_path: Path, culprit: int) -> None:
    clone = Git.clone(tree, tmp_path / "clone")
    made = Made(clone, from_(culprit))
    found = Search(made, clone, 2).find(span.good, span.bad)
    assert found.commits == (git(tree, "rev-parse", f"c{culprit}"),)
    # Both ends, and no more than a search by halves takes.
    assert made.built[:2] == [16, 0]
    assert len(made.built) <= 2 + 5
    assert git(tree, "status", "--porcelain") == ""
    assert git(tree, "rev-parse", "HEAD") == git(tree, "rev-parse", "c16")
    assert not (tree / ".git" / "BISECT_LOG").exists(), "the user's tree is not touched"


def test_what_does_not_build_is_skipped(tree: Path, span: CommitSpan, tmp_path: Path) -> None:
    clone = Git.clone(tree, tmp_path / "clone")
    made = Made(clone, from_(11), broken={8, 9, 12})
    found = Search(made, clone, 1).find(span.good, span.bad)
    assert found.commits == (git(tree, "rev-parse", "c11"),)
    skipped = [one for one in found.looked_at if one.word == "skip"]
    assert skipped
    assert all(one.why == "it does not build: ram.c:1: error: expected ';'" for one in skipped)


def test_between_skipped_commits_all_are_named(tree: Path, span: CommitSpan, tmp_path: Path) -> None:
    clone = Git.clone(tree, tmp_path / "clone")
    found = Search(Made(clone, from_(11), broken={10, 11, 12}), clone, 1).find(span.good, span.bad)
    wanted = {git(tree, "rev-parse", f"c{number}") for number in (10, 11, 12, 13)}
    assert set(found.commits) == wanted
    commits = [clone.describe(name) for name in found.commits]
    assert as_lines(found, commits, Path("runs"))[0].startswith("one of these 4 commits")


def test_a_failure_of_another_kind_is_not_the_one_sought(
    tree: Path, span: CommitSpan, tmp_path: Path
) -> None:
    """From the fourth on to the sixth everything fails, for something that was mended."""

    def runs(number: int, _: int) -> MadeRun:
        return OTHER if 4 <= number <= 6 else FAIL if number >= 13 else PASS

    clone = Git.clone(tree, tmp_path / "clone")
    found = Search(Made(clone, runs), clone, 1).find(span.good, span.bad)
    assert found.commits == (git(tree, "rev-parse", "c13"),)


def test_a_flaky_failure_is_found_where_it_is_run_often_enough(
    tree: Path, span: CommitSpan, tmp_path: Path
) -> None:
    dice = random.Random(5)

    def runs(number: int, _: int) -> MadeRun:
        return FAIL if number >= 7 and dice.random() < 0.4 else PASS

    clone = Git.clone(tree, tmp_path / "clone")
    found = Search(Made(clone, runs), clone, 20).find(span.good, span.bad)
    assert found.commits == (git(tree, "rev-parse", "c7"),)
    assert found.sureness.runs == 20
    assert found.sureness.risk(found.sureness.seen) < 0.01
    bad = [one for one in found.looked_at[1:] if one.word == "bad"]
    assert all(one.failed == 1 for one in bad), "a commit that has failed is not run again"


def test_one_commit_after_the_other_needs_no_search(tree: Path, tmp_path: Path) -> None:
    clone = Git.clone(tree, tmp_path / "clone")
    span = look_at_span(tree, "qemu", "c3", "c4")
    assert span.commits == 1
    found = Search(Made(clone, from_(4)), clone, 1).find(span.good, span.bad)
    assert found.commits == (span.bad,)
    assert [one.word for one in found.looked_at] == ["bad", "good"]


def test_a_clone_that_was_left_in_a_search_is_taken_again(
    tree: Path, span: CommitSpan, tmp_path: Path
) -> None:
    clone = Git.clone(tree, tmp_path / "clone")
    assert isinstance(clone.begin(span.good, span.bad), Next)
    again = Git.clone(tree, tmp_path / "clone")
    assert Search(Made(again, from_(2)), again, 1).find(span.good, span.bad).commits == (
        git(tree, "rev-parse", "c2"),
    )
    assert "git bisect start" in again.bisect_log()


# --- ends that are not what they are said to be


@pytest.mark.parametrize(
    ("runs", "words", "built"),
    [
        (lambda _, __: PASS, "the failure does not repeat", [16]),
        (lambda number, _: ERROR if number == 16 else PASS, "none of 3 runs failed", [16]),
        (lambda _, __: FAIL, "is not good: 3 of 3 runs did not pass", [16, 0]),
        (lambda number, run: FAIL if number == 16 or run == 2 else PASS, "1 of 3 runs did not pass", [16, 0]),
        (lambda number, _: FAIL if number == 16 else UNCLEAR, "is not good", [16, 0]),
    ],
    ids=["passes", "error", "fails", "fails-once", "unclear"],
)
def test_wrong_ends_are_said_before_anything_between_them_is_built(
    tree: Path,
    span: CommitSpan,
    tmp_path: Path,
    runs: Callable[[int, int], MadeRun],
    words: str,
    built: list[int],
) -> None:
    clone = Git.clone(tree, tmp_path / "clone")
    made = Made(clone, runs)
    with pytest.raises(InputError, match=words):
        Search(made, clone, 3).find(span.good, span.bad)
    assert made.built == built


def test_an_end_that_does_not_build_is_said(tree: Path, span: CommitSpan, tmp_path: Path) -> None:
    clone = Git.clone(tree, tmp_path / "clone")
    with pytest.raises(InputError, match=r"the good end .* cannot be run: ram\.c:1"):
        Search(Made(clone, from_(3), broken={0}), clone, 1).find(span.good, span.bad)


# --- trees that cannot be searched


@pytest.mark.parametrize(
    ("good", "bad", "words"),
    [
        ("nowhere", "c16", "--good nowhere: there is no such commit"),
        ("c0", "--help", "--bad --help: there is no such commit"),
        ("c3", "c3", "are one commit"),
        ("c16", "c0", "is no ancestor"),
    ],
)
def test_wrong_revisions_are_said(tree: Path, good: str, bad: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        look_at_span(tree, "qemu", good, bad)


def test_ends_that_are_the_wrong_way_round_are_said(tree: Path) -> None:
    with pytest.raises(InputError) as caught:
        look_at_span(tree, "qemu", "c16", "c0")
    assert caught.value.hint is not None
    assert "the other way round" in caught.value.hint


def test_trees_that_are_none_are_said(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no tree at"):
        look_at_span(tmp_path / "none", "qemu", "a", "b")
    with pytest.raises(InputError, match="is no git tree"):
        look_at_span(tmp_path, "qemu", "a", "b")
    with pytest.raises(InputError, match="not its top"):
        look_at_span(tree / "migration", "qemu", "c0", "c1")
    with pytest.raises(InputError, match="is no source of Linux: it has no Kbuild"):
        look_at_span(tree, "kernel", "c0", "c1")


def test_a_tree_with_changes_is_refused(tree: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    subprocess.run(["git", "clone", "--quiet", str(tree), str(other)], check=True)
    (other / "migration" / "ram.c").write_text("mine\n")
    with pytest.raises(InputError, match=r"changes that are in no commit \(migration/ram\.c\)"):
        look_at_span(other, "qemu", "c0", "c16")
    git(other, "checkout", "--quiet", "--", ".")
    # What git does not know is in no commit and in no build.
    (other / "notes").write_text("mine\n")
    assert look_at_span(other, "qemu", "c0", "c16").commits == 16


def test_git_that_says_no_is_an_error(tree: Path, tmp_path: Path) -> None:
    clone = Git.clone(tree, tmp_path / "clone")
    with pytest.raises(GitFailed):
        clone.check_out("nowhere")
    with pytest.raises(GitFailed, match="git bisect goes no further"):
        clone.tell("good")


# --- what a commit is, and how sure the answer


def test_a_commit_is_good_by_passing_alone() -> None:
    rules = frozenset({RULE})
    words = {
        "good": [[PASS], [PASS, PASS]],
        "bad": [[FAIL], [PASS, FAIL], [ERROR, FAIL], [OTHER, FAIL]],
        "skip": [[], [OTHER], [PASS, ERROR], [UNCLEAR], [PASS, OTHER]],
    }
    for word, cases in words.items():
        assert [judge_commit("c", runs, rules).word for runs in cases] == [word] * len(cases)
    # A failure that no rule has found is told from no other.
    assert judge_commit("c", [OTHER], frozenset()).word == "bad"


def test_the_arithmetic_is_that_of_independent_runs() -> None:
    sure = Sureness(1, 2, (3, 3, 4))
    assert sure.risk(0.5) == pytest.approx(1 - (1 - 1 / 8) ** 2 * (1 - 1 / 16))
    assert sure.risk(1.0) == 0.0
    enough = Sureness(1, 2, (sure.enough(),) * 3)
    assert enough.risk(sure.least) <= 0.05
    fewer = Sureness(1, 2, (sure.enough() - 1,) * 3)
    assert fewer.risk(sure.least) > 0.05
    text = "\n".join(sure.lines())
    assert "failed in 1 of 2 runs: a rate of 50 %" in text
    assert f"--repeat {sure.enough()}" in text


def test_what_was_found_is_written_down(tree: Path, span: CommitSpan, tmp_path: Path) -> None:
    import json

    clone = Git.clone(tree, tmp_path / "clone")
    told: list[JudgedCommit] = []
    found = Search(Made(clone, from_(5)), clone, 2, told.append).find(span.good, span.bad)
    assert tuple(told) == found.looked_at
    commits = [clone.describe(name) for name in found.commits]
    document = json.loads(bisect_document(span, "some", found, commits, tmp_path))
    assert document["commits"][0]["subject"] == "change 5"
    assert document["between"] == 16
    assert document["looked_at"][0]["runs"][0]["rules"] == [RULE]
    assert "Tester <tester@example.org>" in as_lines(found, commits, tmp_path)[1]
