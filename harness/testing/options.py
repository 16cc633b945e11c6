# SPDX-License-Identifier: GPL-2.0-or-later
"""The options of ``freepage run`` as keyword arguments, and as words of a command line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, TypedDict


class RunOptions(TypedDict, total=False):
    """What a run is told; what is left out is the scenario's."""

    arm: str
    """``off``, ``hint`` or ``info``."""
    accel: str
    """``auto``, ``kvm`` or ``tcg``."""
    machine: str
    """QEMU's machine type, such as ``q35``."""
    memory: str
    """The guest's, such as ``512MiB``."""
    seed: int
    """What all random choices start from."""
    strict: bool
    """Hold the guest at each request, to prove that skipped pages did not change."""
    set: Mapping[str, object]
    """Any key of a scenario, such as ``{"migration.multifd": 2}``; None is YAML's null."""
    qemu: str | Path
    """A QEMU for both sides."""
    source_qemu: str | Path
    """A QEMU for the source."""
    destination_qemu: str | Path
    """A QEMU for the destination."""
    kernel: str | Path
    """A guest kernel: a name that the testbed knows, or a path."""
    fault: str
    """A deliberate fault, to see it caught."""
    trace: str
    """``pages``: keep which page was sent in which round."""


#: Options that need another word than ``--NAME VALUE``.
_OTHERS: Final = ("set", "strict", "machine")
#: Where one of these is given, a QEMU for both sides that was only a default is not.
_QEMUS: Final = ("qemu", "source_qemu", "destination_qemu")


def option_words(options: RunOptions) -> list[str]:
    """The options as words of a command line.  Raises TypeError for a name that is none."""
    given: Mapping[str, object] = {key: value for key, value in options.items() if value is not None}
    unknown = sorted(set(given) - set(RunOptions.__annotations__))
    if unknown:
        known = ", ".join(RunOptions.__annotations__)
        raise TypeError(f"a run has no option {unknown[0]!r}; there are {known}")
    words: list[str] = []
    for name, value in given.items():
        if name not in _OTHERS:
            words += [f"--{name.replace('_', '-')}", str(value)]
    if "strict" in given:
        words.append("--strict" if given["strict"] else "--no-strict")
    return [*words, *_settings(options)]


def _settings(options: RunOptions) -> Iterator[str]:
    keys: dict[str, object] = {}
    if options.get("machine") is not None:
        keys["guest.machine"] = options["machine"]
    keys |= options.get("set") or {}
    for key, value in keys.items():
        yield from ("--set", f"{key}={yaml_of(value)}")


def yaml_of(value: object) -> str:
    """A value as it is written behind ``--set KEY=``."""
    if value is None:
        return "null"
    if isinstance(value, dict | list | tuple):
        # JSON is YAML.
        return json.dumps(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def merged(defaults: RunOptions, given: RunOptions, words: Sequence[str]) -> RunOptions:
    """The defaults, but for what is given by name or as words of a command line.

    Keys of a scenario (``set``) are joined: one that is given wins.
    """
    named = {word.removeprefix("--").replace("-", "_") for word in words if word.startswith("--")}
    if "no_strict" in named:
        named.add("strict")
    taken = named | {key for key, value in given.items() if value is not None}
    if taken & {*_QEMUS, "qemu_source"}:
        taken.add("qemu")
    kept = {key: value for key, value in defaults.items() if key == "set" or key not in taken}
    settings = {**(defaults.get("set") or {}), **(given.get("set") or {})}
    result = RunOptions(**{**kept, **given})  # type: ignore[typeddict-item]
    if settings:
        result["set"] = settings
    return result
