# SPDX-License-Identifier: GPL-2.0-or-later
"""Finished runs as JUnit's XML, which every CI reads.

The elements and their order are those that Jenkins' xunit plugin, GitLab and GitHub's reporters accept
(junit-10.xsd of the plugin): what has no place in them, such as seed and replay, is in ``system-out``.
"""

from __future__ import annotations

import re
from datetime import UTC
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from harness.errors import MachineryError
from harness.report.finished import FinishedRun, RunSink, SuiteReport
from harness.report.places import demand_writable

#: What XML 1.0 has no way to say, even escaped; a guest may say it.
_NO_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ELEMENTS: Final = {
    "fail": "failure",
    "inconclusive": "failure",
    "refused": "error",
    "error": "error",
    "skipped": "skipped",
}


class JunitFile(RunSink):
    """Writes the file when all runs have ended.  Raises :class:`InputError` at once if it could not."""

    def __init__(self, path: Path) -> None:
        demand_writable(path, "--junit")
        self._path = path

    def ended(self, report: SuiteReport) -> None:
        """Write it."""
        try:
            self._path.write_text(junit_xml(report), encoding="utf-8")
        except OSError as error:
            raise MachineryError(f"{self._path}: {error.strerror}") from error


def junit_xml(report: SuiteReport) -> str:
    """The document.  Runs that were not begun any more are skipped test cases."""
    kinds = [_ELEMENTS.get(run.outcome) for run in report.runs]
    name = f"freepage.{report.suite or 'run'}"
    counts = {
        "tests": str(len(report.runs) + len(report.not_run)),
        "failures": str(kinds.count("failure")),
        "errors": str(kinds.count("error")),
    }
    time = {"time": f"{report.seconds:.3f}"}
    top = ElementTree.Element("testsuites", {"name": name, **time, **counts})
    suite = ElementTree.SubElement(
        top,
        "testsuite",
        {
            "name": name,
            **counts,
            "skipped": str(kinds.count("skipped") + len(report.not_run)),
            **time,
            "timestamp": report.began.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S"),
            "hostname": "localhost",
        },
    )
    facts = {"command": report.command, "seed": report.seed, "shard": report.shard, **report.host}
    properties = ElementTree.SubElement(suite, "properties")
    for key, value in facts.items():
        if value is not None:
            ElementTree.SubElement(properties, "property", {"name": key, "value": _clean(str(value))})
    for run in report.runs:
        _case(suite, name, run)
    for left in report.not_run:
        case = ElementTree.SubElement(suite, "testcase", {"name": _clean(left), "classname": name})
        ElementTree.SubElement(case, "skipped", {"message": "not begun any more"})
    ElementTree.indent(top)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(top, encoding="unicode") + "\n"


def _case(suite: ElementTree.Element, name: str, run: FinishedRun) -> None:
    words = {"name": _clean(run.name), "classname": f"{name}.{run.scenario}", "time": f"{run.seconds:.3f}"}
    case = ElementTree.SubElement(suite, "testcase", words)
    facts = {
        "outcome": run.outcome,
        "reason": run.reason,
        "run folder": run.folder,
        "seed": run.seed,
        "accelerator": run.accelerator,
        "replay": run.replay,
    }
    lines = "\n".join(f"{key}: {value}" for key, value in facts.items() if value not in (None, ""))
    element = _ELEMENTS.get(run.outcome)
    if element is not None:
        message = _clean(run.reason.splitlines()[0] if run.reason else run.outcome)
        found = ElementTree.SubElement(case, element, {"type": run.rule or run.outcome, "message": message})
        findings = run.result.findings if run.result is not None else []
        found.text = _clean("\n".join([run.reason, *(f"{one.rule}: {one.text}" for one in findings), lines]))
    out = ElementTree.SubElement(case, "system-out")
    out.text = _clean(lines)


def _clean(text: str) -> str:
    return _NO_XML.sub("�", text)
