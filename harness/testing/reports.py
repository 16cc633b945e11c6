# SPDX-License-Identifier: GPL-2.0-or-later
"""How tests are reported that ended by the machinery's fault, or in another process."""

from __future__ import annotations

from typing import Final

import pytest

#: The part of a failure's message that names the test's folder and runs.
SECTION: Final = "freepage"


class Elsewhere(Exception):  # noqa: N818 - it is no error: the report says what happened
    """The test's body did not pass; ``report`` was made where it ran."""

    def __init__(self, report: pytest.TestReport) -> None:
        super().__init__(report.longreprtext)
        self.report = report


def make_error(report: pytest.TestReport) -> None:
    """Report it as a fixture that fails is reported, also where the test is expected to fail."""
    if report.when == "call":
        report.when = "setup"
    report.outcome = "failed"
    if hasattr(report, "wasxfail"):
        del report.wasxfail


def adopt(report: pytest.TestReport, other: pytest.TestReport) -> None:
    """Make what was found elsewhere the outcome of this report."""
    report.outcome, report.longrepr, report.when = other.outcome, other.longrepr, other.when
    report.sections.extend(section for section in other.sections if section[0] == SECTION)
    if hasattr(other, "wasxfail"):
        report.wasxfail = other.wasxfail
    elif hasattr(report, "wasxfail"):
        del report.wasxfail
