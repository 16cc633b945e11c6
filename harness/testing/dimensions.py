# SPDX-License-Identifier: GPL-2.0-or-later
"""What a test is repeated along, and how each repetition is named in the test's id.

A marker says so for a test, a class or a module (``pytestmark``)::

    @pytest.mark.freepage(arm=["off", "info"], machine=["pc", "q35"])
    def test_it_moves(freepage): ...            # test_it_moves[arm=off-machine=pc], ...

An option says so for all tests that have no such marker: ``--freepage-accel kvm``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest

PYTEST_MARKER: Final = "freepage"

#: Each is an option of a run; the fixture ``freepage_NAME`` holds the value, and an option sets it.
DIMENSIONS: Final[dict[str, str]] = {
    "arm": "which of the three a migration uses: off, hint, info",
    "accel": "how the guest's CPU is run: auto, kvm, tcg",
    "machine": "QEMU's machine type, such as pc or q35",
    "kernel": "the guest's kernel: default, trixie, newest, debug, or a path",
    "qemu": "a QEMU binary for both sides",
}


def add_options(group: pytest.OptionGroup) -> None:
    """An option for each dimension; given several times, tests are repeated."""
    for name, text in DIMENSIONS.items():
        group.addoption(
            f"--freepage-{name}",
            action="append",
            default=[],
            metavar=name.upper(),
            help=f"{text}; repeatable, and then each test is",
        )


def parametrise(metafunc: pytest.Metafunc) -> None:
    """Repeat a test along the dimensions that have values."""
    asked = _asked(metafunc)
    for name in DIMENSIONS:
        fixture = f"freepage_{name}"
        values = asked.get(name) or _optional(metafunc.config, name)
        if values and fixture in metafunc.fixturenames:
            ids = [f"{name}={_label(value)}" for value in values]
            metafunc.parametrize(fixture, values, ids=ids, scope="session")


def _asked(metafunc: pytest.Metafunc) -> dict[str, list[str]]:
    """By markers; of several for one dimension the closest to the test counts."""
    found: dict[str, list[str]] = {}
    for marker in metafunc.definition.iter_markers(PYTEST_MARKER):
        for name, values in marker.kwargs.items():
            if name not in DIMENSIONS:
                known = ", ".join(DIMENSIONS)
                raise pytest.UsageError(
                    f"{metafunc.definition.nodeid}: the marker freepage has no dimension {name!r}; "
                    f"there are {known}"
                )
            found.setdefault(name, [values] if isinstance(values, str) else [str(value) for value in values])
    return found


def _optional(config: pytest.Config, name: str) -> list[str]:
    values: list[str] = config.getoption(f"freepage_{name}")
    # A path is of the folder in which pytest was started; runs may start elsewhere.
    return [str(Path(value).absolute()) if "/" in value else value for value in values]


def _label(value: Any) -> str:
    """Short enough for an id: of a path the last part."""
    return Path(str(value)).name
