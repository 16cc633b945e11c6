# SPDX-License-Identifier: GPL-2.0-or-later
"""What is wrong with a scenario, in words: pydantic's errors, each with its place and a suggestion."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from harness.scenario import located
from harness.scenario.located import LocatedTree, Problem, dotted
from harness.scenario.model import Expect, Guest, Leg, Measure, Migration, Scenario
from harness.scenario.script import ACTIONS, Entry
from harness.scenario.workloads import WORKLOADS


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A suggestion with a blank behind it, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}? " if close else ""


def _models(tree: LocatedTree) -> dict[located.Path, type[BaseModel]]:
    """Which keys exist where, for suggestions."""
    models: dict[located.Path, type[BaseModel]] = {
        (): Scenario,
        ("guest",): Guest,
        ("migration",): Migration,
        ("measure",): Measure,
        ("expect",): Expect,
    }
    kind = tree.value(("workload", "kind"))
    if isinstance(kind, str) and kind in WORKLOADS:
        models["workload",] = WORKLOADS[kind]
    moves, script = tree.value(("moves",)), tree.value(("script",))
    for index in range(len(moves) if isinstance(moves, list) else 0):
        models["moves", index] = Leg
    for index in range(len(script) if isinstance(script, list) else 0):
        models["script", index] = Entry
        actions = tree.value(("script", index, "do"))
        for at in range(len(actions) if isinstance(actions, list) else 0):
            word = tree.value(("script", index, "do", at, "action"))
            if isinstance(word, str) and word in ACTIONS:
                models["script", index, "do", at] = ACTIONS[word]
    return models


def _unknown_key(path: located.Path, tree: LocatedTree) -> str:
    models = _models(tree)
    key = str(path[-1])
    known = list(models[path[:-1]].model_fields) if path[:-1] in models else []
    elsewhere = [(*where, key) for where, model in models.items() if key in model.model_fields]
    kind = f" of workload {tree.value(('workload', 'kind'))!r}" if path[:-1] == ("workload",) else ""
    advice = f"did you mean {dotted(elsewhere[0])!r}? " if elsewhere else did_you_mean(key, known)
    return f"unknown key; {advice}the keys{kind} here are {', '.join(known)}"


def _literal(value: object, expected: str) -> str:
    words = expected.replace(" or ", ", ").replace("'", "").split(", ")
    advice = did_you_mean(value, words).strip() if isinstance(value, str) else ""
    return f"expected {expected}, got {value!r}" + (f"; {advice}" if advice else "")


def problem_of(detail: ErrorDetails, tree: LocatedTree) -> Problem:
    """One of pydantic's errors in our words, with its place."""
    context: Mapping[str, object] = detail.get("ctx", {})
    path = _without_kinds(detail["loc"])
    given = detail["input"]
    match detail["type"]:
        case "extra_forbidden":
            text = _unknown_key(path, tree)
        case "missing":
            text = "missing"
            if path == ("name",):
                text = "missing; expected a name of small letters, digits and dashes"
        case "literal_error":
            # In the words of YAML.
            expected = str(context["expected"]).replace("True", "true").replace("False", "false")
            text = _literal(given, expected)
        case "union_tag_invalid" | "union_tag_not_found":
            word, known = (
                ("action", tuple(ACTIONS)) if path[:1] == ("script",) else ("kind", tuple(WORKLOADS))
            )
            path = (*path, word)
            text = _literal(tree.value(path), ", ".join(map(repr, known)))
        case "int_type" | "int_from_float":
            text = f"expected a whole number, got {given!r}"
        case "float_type":
            text = f"expected a number, got {given!r}"
        case "bool_type":
            text = f"expected true or false, got {given!r}"
        case "string_type":
            text = f"expected text, got {given!r}"
        case "string_too_short":
            text = "expected text, got nothing"
        case "too_short":
            text = (
                "expected text, got nothing" if isinstance(given, str) else "expected at least one, got none"
            )
        case "too_long":
            text = f"expected at most {context['max_length']}"
        case "tuple_type":
            text = f"expected a list, got {given!r}"
        case "string_pattern_mismatch":
            text = f"expected small letters, digits and dashes (at most 40), got {given!r}"
        case "model_type" | "model_attributes_type":
            text = f"expected keys of its own, got {given!r}"
        case "greater_than" | "greater_than_equal" | "less_than" | "less_than_equal":
            limit = next(iter(context.values()))
            words = {"greater_than": "more than", "less_than": "less than"}
            at = {"greater_than_equal": "at least", "less_than_equal": "at most"}
            text = f"expected {(words | at)[detail['type']]} {limit}, got {given!r}"
        case "value_error":
            text = str(context["error"])
        case "at" | "in-entry":
            found = context["path"]
            inside = path if detail["type"] == "in-entry" else ()
            path = (*inside, *found) if isinstance(found, tuple) else ()
            text = detail["msg"]
        case _:
            text = f"{detail['msg']}, got {given!r}"
    return Problem(tree.place(path), dotted(path), text)


def _without_kinds(path: located.Path) -> located.Path:
    """Pydantic puts the word that chooses a kind into the path; no file has it there."""
    if path[:1] == ("workload",) and len(path) > 1 and path[1] in WORKLOADS:
        return (path[0], *path[2:])
    if path[:1] == ("script",) and len(path) > 4 and path[4] in ACTIONS:
        return (*path[:4], *path[5:])
    return path
