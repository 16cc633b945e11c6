# SPDX-License-Identifier: GPL-2.0-or-later
"""The mutator as pure code: what it takes for code, what it makes of a line, what it draws, how it counts."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from harness.errors import ExitCode, MachineryError
from harness.mutants.ctext import code_only, functions_of
from harness.mutants.draw import Mutant, draw_mutants, mutants_of, narrowed
from harness.mutants.judged import JudgedMutant, counted, judge_mutant, run_word, score
from harness.mutants.named import EquivalentMutant, equivalent_mutants, named_functions
from harness.mutants.operators import OPERATORS, changed_lines
from harness.mutants.order import best_first
from harness.mutants.store import MUTANT_RUNS, MutantRun, RunStore

TEXT = """\
#include "x.h"
/* if (a) { */
static const char *words = "if (b)";

#define TWICE(a) \\
    if (a < b) { return 0; }

static int first(int a,
                 int b)
{
    if (a < b && words[0] != '<') { // never a < b
        return 0;
    }
    trace_first(a);
    take(a);
    return a + 1;
}

struct pair {
    int a;
};

int second(void)
{
    count = 0;
    for (;;) {
        break;
    }
    return 0;
}
"""


def made(line: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for operator, other in changed_lines(line, code_only(line)):
        found.setdefault(operator, []).append(other.strip())
    return found


def test_only_code_is_left_and_nothing_moves() -> None:
    code = code_only(TEXT)
    assert len(code) == len(TEXT)
    assert code.count("\n") == TEXT.count("\n")
    for word in ("include", "if (b)", "TWICE", "never", "'<'"):
        assert word not in code
    assert code.index("if (a < b") == TEXT.index("if (a < b && words")


def test_functions_are_found_by_their_braces() -> None:
    lines = TEXT.split("\n")
    found = {one.name: (lines[one.first].strip(), lines[one.last].strip()) for one in functions_of(TEXT)}
    assert found == {
        "first": ("if (a < b && words[0] != '<') { // never a < b", "return a + 1;"),
        "second": ("count = 0;", "return 0;"),
    }


@pytest.mark.parametrize(
    ("line", "operator", "other"),
    [
        ("if (a && f(b)) {", "condition-negated", "if (!(a && f(b))) {"),
        ("while (a <= b) {", "boundary-moved", "while (a < b) {"),
        ("x = a > b;", "boundary-moved", "x = a >= b;"),
        ("if (a == b) {", "comparison-turned", "if (a != b) {"),
        ("if (a && b) {", "connective-changed", "if (a || b) {"),
        ("x = a + b;", "arithmetic-changed", "x = a - b;"),
        ("x |= FLAG;", "arithmetic-changed", "x = FLAG;"),
        ("x = y >> 12;", "arithmetic-changed", "x = y << 12;"),
        ("x = f(0);", "constant-changed", "x = f(1);"),
        ("    set_bit(a, b);", "call-removed", ";"),
        ("    rs->last = 3;", "assignment-removed", ";"),
        ("    pages++;", "assignment-removed", ";"),
        ("return true;", "return-changed", "return false;"),
        ("return 0;", "return-changed", "return -1;"),
        ("continue;", "loop-left", "break;"),
    ],
)
def test_what_an_operator_makes(line: str, operator: str, other: str) -> None:
    assert other in made(line)[operator]
    assert operator in OPERATORS


@pytest.mark.parametrize(
    "line",
    [
        "    trace_something(a, b);",
        '    error_report("a < %d", 1);',
        "    assert(a < b);",
        "    g_assert(a == 0);",
        "/* a < b */",
        "    } else {",
    ],
)
def test_what_only_says_something_is_left_alone(line: str) -> None:
    assert not {"call-removed", "boundary-moved", "comparison-turned", "condition-negated"} & set(made(line))


def test_a_pointer_is_not_multiplied_and_a_text_not_counted() -> None:
    assert "arithmetic-changed" not in made("char *p = &x;")
    assert made('f("1 < 2");').get("boundary-moved") is None
    # An address such as 0x10 is no number to be off by one.
    assert "constant-changed" not in made("x = 0x10;")


def test_a_mutant_is_one_line_and_a_patch_that_applies(tmp_path: Path) -> None:
    mutants = list(mutants_of("dir/x.c", TEXT, ["*"]))
    assert len({one.id for one in mutants}) == len(mutants) > 10
    for mutant in mutants:
        before, after = TEXT.split("\n"), mutant.apply(TEXT).split("\n")
        changed = [at for at, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
        assert changed == [mutant.line - 1]
    (tmp_path / "dir").mkdir()
    file = tmp_path / "dir" / "x.c"
    file.write_text(TEXT)
    command = ["patch", "-p1", "-F0", "--batch", "-d", str(tmp_path)]
    subprocess.run(command, input=mutants[0].patch(TEXT), text=True, check=True, capture_output=True)
    assert file.read_text() == mutants[0].apply(TEXT)


def test_a_mutant_keeps_its_name_when_the_file_changes_above_it() -> None:
    before = {one.id for one in mutants_of("x.c", TEXT, ["second"])}
    assert before == {one.id for one in mutants_of("x.c", f"int a;\n\n{TEXT}", ["second"])}


def test_a_mutant_is_not_put_into_another_text() -> None:
    mutant = next(mutants_of("x.c", TEXT, ["first"]))
    with pytest.raises(ValueError, match="another one"):
        mutant.apply("something else\n" * 30)


def test_the_draw_is_of_its_seed_and_takes_a_line_once() -> None:
    mutants = list(mutants_of("x.c", TEXT, ["*"]))
    first = draw_mutants(mutants, 1, 5)
    assert first == draw_mutants(list(reversed(mutants)), 1, 5)
    assert first[:3] == draw_mutants(mutants, 1, 3)
    assert first != draw_mutants(mutants, 2, 5)
    everything = draw_mutants(mutants, 1, 1000)
    places = [(one.file, one.line) for one in everything]
    assert len(places) == len(set(places)) == len({one.line for one in mutants})


def test_patterns_narrow_the_named_functions() -> None:
    named = {"migration/ram.c": ["ram_save_*", "load_xbzrle"], "migration/xbzrle.c": ["xbzrle_*"]}
    assert narrowed(named, []) == {file: list(names) for file, names in named.items()}
    assert narrowed(named, ["migration/xbzrle.c"]) == {"migration/xbzrle.c": ["xbzrle_*"]}
    assert narrowed(named, ["load_*"]) == {"migration/ram.c": ["load_xbzrle"]}
    assert narrowed(named, ["migration/ram.c:other_*"]) == {"migration/ram.c": ["other_*"]}
    assert narrowed(named, ["nothing"]) == {}


def run(scenario: str, word: str, *, file: str = "a.c", rule: str = "", mutant: str = "m") -> MutantRun:
    return MutantRun("key", mutant, file, scenario, "text", word, rule, "why", 2.0)


def test_what_runs_make_of_a_mutant() -> None:
    mutant = Mutant("m", "a.c", "f", 1, "loop-left", "break;", "continue;")
    words = {
        "caught": ([run("a", "pass"), run("b", "fail", rule="differs-though-sent")], False),
        "survived": ([run("a", "pass")], True),
        "open": ([run("a", "none")], False),
        "noticed": ([run("a", "none"), run("b", "none")], False),
    }
    for word, (runs, complete) in words.items():
        assert judge_mutant(mutant, runs, complete=complete).word == word
    assert judge_mutant(mutant, [run("a", "none"), run("b", "pass")], complete=True).word == "noticed"
    caught = judge_mutant(mutant, words["caught"][0], complete=False)
    assert (caught.rule, caught.scenario, caught.runs, caught.seconds) == ("differs-though-sent", "b", 2, 4.0)
    counts = counted([caught, JudgedMutant(mutant, "survived"), JudgedMutant(mutant, "equivalent")])
    assert score(counts) == 50
    assert score(counted([JudgedMutant(mutant, "equivalent")])) is None


def test_only_a_verdict_is_one() -> None:
    assert run_word(ExitCode.PASS) == "pass"
    assert run_word(ExitCode.FAIL) == "fail"
    assert {run_word(one) for one in (ExitCode.INPUT, ExitCode.ERROR, ExitCode.INCONCLUSIVE)} == {"none"}


def test_the_best_scenario_is_the_one_that_catches_most_in_that_file() -> None:
    names = ["a", "b", "c"]
    assert best_first(names, "x.c", []) == names
    runs = [run("a", "pass"), run("b", "fail", file="y.c"), run("c", "fail", file="x.c")]
    assert best_first(names, "x.c", runs) == ["c", "b", "a"]
    assert best_first(names, "y.c", runs)[0] == "b"


def test_runs_are_kept_for_one_qemu(tmp_path: Path) -> None:
    store = RunStore(tmp_path, "key")
    store.add(run("a", "pass"))
    assert RunStore(tmp_path, "key").of("m") == [run("a", "pass")]
    assert RunStore(tmp_path, "other").all() == []
    with (tmp_path / MUTANT_RUNS).open("a") as file:
        file.write("nonsense\n")
    with pytest.raises(MachineryError, match="not a run of a mutant"):
        RunStore(tmp_path, "key")


def test_the_files_of_names_are_right() -> None:
    assert "migration/ram.c" in named_functions()
    for one in equivalent_mutants():
        assert one.before != one.after


def test_an_equivalent_mutant_is_known_by_its_lines() -> None:
    known = EquivalentMutant(
        file="a.c", function="f", before="break;", after="continue;", why="it is the last turn of the loop"
    )
    assert known.means(Mutant("m", "a.c", "f", 7, "loop-left", "break;", "continue;"))
    assert not known.means(Mutant("m", "a.c", "g", 7, "loop-left", "break;", "continue;"))
