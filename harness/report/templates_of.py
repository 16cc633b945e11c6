# SPDX-License-Identifier: GPL-2.0-or-later
"""The templates of pages: all text is escaped, and a name that a template lacks is an error."""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("harness.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(template: str, **values: object) -> str:
    """A page from a template of this package."""
    return _environment().get_template(template).render(**values)
