# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of all rules, for docs/oracle.md, made of what the rules say of themselves.

    python -m harness.verdict.table docs/oracle.md      # writes it between the markers

A name that two kinds of findings have is in two rows.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from harness.verdict import rules  # noqa: F401 - they register
from harness.verdict.registry import page_rules, rows

TABLE_BEGIN: Final = "<!-- The rules, by harness.verdict.table: begin -->"
TABLE_END: Final = "<!-- The rules: end -->"


def rule_words(name: str) -> str:
    """What pages that break this rule have in common: "were sent, and differ"."""
    return next((rule.text for rule in page_rules() if rule.name == name), "break a rule")


def rule_table() -> str:
    """The rows, in Markdown."""
    lines = ["| rule | kind | found when |", "|---|---|---|"]
    lines += [f"| `{row.name}` | {row.kind} | {row.words} |" for row in rows()]
    return "\n".join(lines)


def inserted(text: str) -> str:
    """A document with the table between its markers."""
    before, _, rest = text.partition(TABLE_BEGIN)
    _, _, after = rest.partition(TABLE_END)
    return f"{before}{TABLE_BEGIN}\n\n{rule_table()}\n\n{TABLE_END}{after}"


if __name__ == "__main__":
    for name in sys.argv[1:]:
        path = Path(name)
        path.write_text(inserted(path.read_text(encoding="utf-8")), encoding="utf-8")
