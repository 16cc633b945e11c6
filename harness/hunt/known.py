# SPDX-License-Identifier: GPL-2.0-or-later
"""Which failures are known: those that are described (``known.yaml``), and those that a hunt found before.

A failure is known by its signature *and* by what it needs: two failures of one rule are told apart by the
parts of the language without which they do not come.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import yaml

from harness.hunt.coverage import feature_keys, features


@dataclass(frozen=True, slots=True)
class KnownFailure:
    """One of them."""

    signature: str
    """With * for anything."""
    needs: frozenset[str]
    """Keys that a scenario has to have, as :func:`harness.hunt.coverage.feature_keys` words them."""
    where: str
    """Who describes it: a document, or the scenario file that was kept."""
    accelerator: str = ""
    """The only one under which it comes; empty: any."""

    def explains(self, tree: Mapping[str, Any], signature: str, accelerator: str = "") -> bool:
        """Whether a scenario that failed by this signature, under this accelerator, has failed by this."""
        return (
            fnmatch.fnmatchcase(signature, self.signature)
            and self.needs <= feature_keys(features(tree))
            and self.accelerator in ("", accelerator)
        )


def described_failures(*, patched: bool) -> tuple[KnownFailure, ...]:
    """Those that the testbed knows of.  ``patched``: of QEMUs with the series, which mends some of them."""
    text = resources.files("harness.hunt").joinpath("known.yaml").read_text("utf-8")
    return tuple(
        KnownFailure(
            entry["signature"],
            frozenset(entry.get("needs", ())),
            entry["where"],
            entry.get("accelerator", ""),
        )
        for entry in yaml.safe_load(text) or ()
        if not (patched and entry.get("mended_by_series", False))
    )


def found_failure(tree: Mapping[str, Any], signature: str, where: str) -> KnownFailure:
    """One that was found, by the smallest scenario that shows it."""
    escaped = signature.replace("[", "[[]").replace("*", "[*]").replace("?", "[?]")
    return KnownFailure(escaped, feature_keys(features(tree)), where)


def explanation(
    known: Iterable[KnownFailure], tree: Mapping[str, Any], signature: str, accelerator: str = ""
) -> KnownFailure | None:
    """The failure that explains this one; None: it is new."""
    return next((one for one in known if one.explains(tree, signature, accelerator)), None)
