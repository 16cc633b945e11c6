# SPDX-License-Identifier: GPL-2.0-or-later
"""Reports of runs: JUnit's XML, GitHub's annotations and summary, pages; and what a guest says stays text."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from harness.errors import InputError
from harness.report.finished import FinishedRun, RunSink, Sinks, SuiteReport
from harness.report.folders import merge_reports, report_on
from harness.report.github import Annotations, JobSummary, annotation, github_sinks, summary_markdown
from harness.report.junit import JunitFile, junit_xml
from harness.report.pages import PageFile, suite_page
from harness.report.run_page import read_events, run_page
from harness.report.timeline import migration_timeline, round_step, run_timeline
from tests.unit.test_result import failing, passing, result
from tests.unit.test_suite import finished, report

#: What a guest might say to whoever reads its words.
NASTY = '<script>alert(1)</script> & "quoted" \x1b[31m \x00 | `x` ::error::mine %0A\n::set-output name=x::y'


def whole() -> SuiteReport:
    return report(
        finished("a", "pass", 0, result=result(passing()).model_dump()),
        finished("b", "fail", 1, rule="differs", reason=NASTY, result=result(failing()).model_dump()),
        finished("c", "inconclusive", 4),
        finished("d", "refused", 2, folder=None),
        finished("e", "error", 3, reason="the guest was lost\nlast words"),
        finished("f", "skipped", 0, folder=None),
        finished("g", "expected", 0),
        not_run=["h"],
    )


# --- JUnit

#: By element: attributes (True: it must have it), and the elements that it may hold.  As junit-10.xsd of
#: Jenkins' xunit plugin has it.
JUNIT: dict[str, tuple[dict[str, bool], set[str]]] = {
    "testsuites": (
        {"name": False, "time": False, "tests": False, "failures": False, "errors": False},
        {"testsuite"},
    ),
    "testsuite": (
        {
            "name": True,
            "tests": True,
            "failures": True,
            "errors": True,
            "skipped": False,
            "time": False,
            "timestamp": False,
            "hostname": False,
        },
        {"properties", "testcase", "system-out", "system-err"},
    ),
    "properties": ({}, {"property"}),
    "property": ({"name": True, "value": True}, set()),
    "testcase": (
        {"name": True, "classname": False, "time": False},
        {"skipped", "error", "failure", "system-out", "system-err"},
    ),
    "failure": ({"type": False, "message": False}, set()),
    "error": ({"type": False, "message": False}, set()),
    "skipped": ({"type": False, "message": False}, set()),
    "system-out": ({}, set()),
}
_TIME = re.compile(r"\d+\.\d{3}")


def demand_junit(element: ElementTree.Element) -> None:
    attributes, children = JUNIT[element.tag]
    assert set(element.attrib) <= set(attributes), element.tag
    assert {name for name, must in attributes.items() if must} <= set(element.attrib), element.tag
    assert all(_TIME.fullmatch(element.attrib[name]) for name in ("time",) if name in element.attrib)
    for child in element:
        assert child.tag in children, f"{child.tag} in {element.tag}"
        demand_junit(child)


def test_junit_is_what_readers_of_it_accept() -> None:
    top = ElementTree.fromstring(junit_xml(whole()))
    demand_junit(top)
    (suite,) = top
    counts = {name: suite.attrib[name] for name in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "8", "failures": "2", "errors": "2", "skipped": "2"}
    assert len(suite.findall("testcase")) == 8
    assert len(list(suite.iter("failure"))) == 2
    assert len(list(suite.iter("error"))) == 2
    assert len(list(suite.iter("skipped"))) == 2


def test_junit_tells_folder_seed_and_replay() -> None:
    top = ElementTree.fromstring(junit_xml(whole()))
    case = next(case for case in top.iter("testcase") if case.attrib["name"] == "b")
    said = case.findtext("system-out") or ""
    assert "run folder: /runs/b" in said
    assert "seed: 1" in said
    assert "replay: freepage run /runs/b/scenario.yaml" in said
    failure = case.find("failure")
    assert failure is not None and failure.attrib["type"] == "differs"


def test_a_junit_file_that_cannot_be_written_is_said_at_once(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none" / "j.xml"):
        with pytest.raises(InputError, match="--junit"):
            JunitFile(path)
    JunitFile(tmp_path / "j.xml").ended(whole())
    demand_junit(ElementTree.parse(tmp_path / "j.xml").getroot())


# --- GitHub


def test_github_is_told_in_its_own_jobs_only(tmp_path: Path) -> None:
    assert github_sinks({}) == []
    assert [type(sink) for sink in github_sinks({"GITHUB_ACTIONS": "true"})] == [Annotations]
    both = github_sinks({"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(tmp_path / "s.md")})
    assert [type(sink) for sink in both] == [Annotations, JobSummary]


def test_what_a_guest_says_is_no_command_of_a_workflow() -> None:
    said: list[str] = []
    sink = Annotations(said.append)
    for run in whole().runs:
        sink.finished(run)
    assert len(said) == 4
    assert all("\n" not in line and "\r" not in line for line in said)
    assert said[0].startswith("::error title=freepage%3A fail%3A b::<script>")
    assert "%0A::set-output" in said[0] and "%250A" in said[0]
    assert annotation(whole().runs[2]).startswith("::warning ")


def test_the_summary_has_a_row_for_each_run_and_what_is_wrong_first(tmp_path: Path) -> None:
    JobSummary(tmp_path / "s.md").ended(whole())
    text = (tmp_path / "s.md").read_text(encoding="utf-8")
    assert text == summary_markdown(whole())
    rows = [line for line in text.splitlines() if line.startswith("| ") and "---" not in line][1:]
    assert len(rows) == 7
    assert "fail" in rows[0] and "pass" in rows[4]
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 7 for row in rows), rows
    assert "<script>" not in text


# --- pages


class Page(HTMLParser):
    """What a page is made of; an element that is not closed is wrong."""

    VOID = ("meta", "img", "br", "link")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open and self._open[-1] == tag, (tag, self._open)
        self._open.pop()

    def handle_data(self, data: str) -> None:
        self.words += data

    def demand_no_outside(self) -> None:
        assert not {"script", "iframe", "object", "link", "form"} & set(self.tags)
        for name, value in self.attributes:
            assert not name.startswith("on"), name
            if name == "src":
                assert (value or "").startswith("data:image/svg+xml;base64,")
            if name == "href":
                assert not re.match(r"[a-z]+:", value or ""), value


def event(t: float, source: str, kind: str, **data: object) -> dict[str, Any]:
    return {"t": t, "source": source, "kind": kind, "data": data}


EVENTS = [
    event(0.0, "harness", "step-start", step="boot", depth=0),
    event(2.0, "harness", "step-stop", step="boot", depth=0, seconds=2.0),
    event(2.0, "harness", "step-start", step="migrate", depth=0),
    event(2.1, "source.qmp", "MIGRATION", data={"status": "setup"}),
    event(2.2, "source.qmp", "MIGRATION", data={"status": "active"}),
    event(2.2, "source.qmp", "MIGRATION_PASS", data={"pass": 1}),
    event(2.3, "source.qmp", "STOP"),
    event(2.5, "source.qmp", "RESUME"),
    event(2.5, "harness", "hold", request=26, point="request", seconds=0.2),
    event(2.6, "harness", "action", action="<b>cancel</b>"),
    event(3.0, "source.qmp", "MIGRATION_PASS", data={"pass": 2}),
    event(3.5, "source.qmp", "STOP"),
    event(3.8, "source.qmp", "MIGRATION", data={"status": "completed"}),
    event(4.0, "harness", "step-stop", step="migrate", depth=0, seconds=2.0),
    event(5.0, "source.console", "console", text="not shown"),
]


def folder_with(place: Path, *, events: bool = True, console: str = "") -> Path:
    place.mkdir(parents=True)
    lines = [json.dumps(one) for one in EVENTS] if events else []
    (place / "events.jsonl").write_text("\n".join([*lines, '{"t": 1, "half']), encoding="utf-8")
    (place / "console.log").write_text(console, encoding="utf-8")
    return place


def test_the_timeline_of_a_migration() -> None:
    line = migration_timeline(EVENTS)
    assert line is not None and (line.begin, line.end) == (2.0, 4.0)
    lanes = {lane.name: lane.bars for lane in line.lanes}
    assert list(lanes) == ["source", "rounds", "guest stands still", "holds", "script"]
    assert [bar.label for bar in lanes["source"]] == ["setup", "active", "completed"]
    assert [(bar.label, round(bar.left), round(bar.width)) for bar in lanes["rounds"]] == [
        ("1", 10, 40),
        ("2", 50, 40),
    ]
    assert [(round(bar.left), round(bar.width)) for bar in lanes["guest stands still"]] == [
        (15, 10),
        (75, 25),
    ]
    assert [(round(bar.left), round(bar.width)) for bar in lanes["holds"]] == [(15, 10)]
    assert all(0 <= bar.left <= bar.left + bar.width <= 100.001 for bars in lanes.values() for bar in bars)
    assert line.ticks[0] == (0.0, "0.0 s") and len(line.ticks) <= 7


def test_a_run_that_broke_off_has_a_timeline_to_its_end() -> None:
    line = migration_timeline([*EVENTS[:6], event(9.0, "harness", "error")])
    assert line is not None and line.end == 9.0
    assert run_timeline([]) is None and migration_timeline([]) is None


@pytest.mark.parametrize("span", [0.001, 0.037, 1.0, 7.3, 99.0, 36000.0])
def test_ticks_are_round_and_few(span: float) -> None:
    step = round_step(span, 6)
    assert 1 <= span / step <= 6.01
    assert f"{step:.0e}"[0] in "125"


@pytest.mark.parametrize("judgement", [passing(), failing()], ids=["pass", "fail"])
def test_the_page_of_a_run(tmp_path: Path, judgement: Any) -> None:
    folder = folder_with(tmp_path / "run", console=NASTY)
    (folder / "map.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>", encoding="utf-8")
    found = result(judgement).model_copy(update={"reason": NASTY})
    text = run_page(folder, found)
    page = Page(text)
    page.demand_no_outside()
    for words in (found.verdict.upper(), "The migration, in time", found.replay, str(found.seed), "Versions"):
        assert words in page.words, words
    for finding in found.findings:
        assert finding.rule in page.words and finding.text in page.words
    assert "<script>" not in text and "&lt;script&gt;" in text and "&lt;b&gt;cancel" in text
    assert "not shown" not in text


def test_the_page_of_a_run_without_a_result(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "run", events=False)
    (folder / "INCOMPLETE").write_text("This run was killed.\n", encoding="utf-8")
    page = Page(run_page(folder, None))
    assert "ERROR" in page.words and "This run was killed." in page.words
    told = Page(run_page(folder, None, finished("e", "error", 3, reason="the guest was lost")))
    assert "the guest was lost" in told.words


def test_lines_that_are_no_events_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('[]\n{"kind": "STOP"}\n\xff\n' + json.dumps(EVENTS[3]) + "\n" + "x" * 100_000, "latin-1")
    assert list(read_events(path)) == [EVENTS[3]]


def test_the_page_of_a_suite_links_its_runs(tmp_path: Path) -> None:
    runs = [
        run.model_copy(update={"folder": str(folder_with(tmp_path / "runs" / run.name))})
        if run.folder
        else run
        for run in whole().runs
    ]
    sink = PageFile(tmp_path / "s.html")
    for run in runs:
        sink.finished(run)
    sink.ended(whole().model_copy(update={"runs": runs}))
    text = (tmp_path / "s.html").read_text(encoding="utf-8")
    page = Page(text)
    page.demand_no_outside()
    links = {value for name, value in page.attributes if name == "href"}
    assert links == {f"runs/{name}/report.html" for name in "abceg"}
    assert all((tmp_path / link).is_file() for link in links if link)
    assert "What to look at" in page.words and "NOT RIGHT" in page.words
    assert "freepage suite run mine --seed 3" in page.words
    assert "<script>" not in text


def test_one_run_without_a_suite_has_its_own_page(tmp_path: Path) -> None:
    run = finished("a", "pass", 0, folder=str(folder_with(tmp_path / "run")))
    PageFile(tmp_path / "one.html").ended(report(run, suite=""))
    assert "The run, in time" in (tmp_path / "one.html").read_text(encoding="utf-8")
    with pytest.raises(InputError, match="--html"):
        PageFile(tmp_path)


def test_a_page_has_styles_for_light_dark_narrow_and_print() -> None:
    text = suite_page(whole(), Path("/"))
    for words in ("prefers-color-scheme: dark", "max-width: 44rem", "@media print", "default-src 'none'"):
        assert words in text


# --- what was run before


def suite_folder(place: Path, name: str, *, shard: str, outcome: str = "pass", status: int = 0) -> Path:
    folder_with(place / f"001-{name}")
    run = finished(name, outcome, status, folder=f"/elsewhere/001-{name}")
    text = report(run, shard=shard).to_json()
    (place / "suite.json").write_text(text, encoding="utf-8")
    return place


def test_shards_become_one_report(tmp_path: Path) -> None:
    one = suite_folder(tmp_path / "one", "a", shard="1/2")
    two = suite_folder(tmp_path / "two", "b", shard="2/2", outcome="fail", status=1)
    written = report_on([one, two], junit=tmp_path / "j.xml", html=tmp_path / "all.html")
    assert one / "001-a" / "report.html" in written and two / "report.html" in written
    assert len(list(ElementTree.parse(tmp_path / "j.xml").iter("testcase"))) == 2
    page = Page((tmp_path / "all.html").read_text(encoding="utf-8"))
    assert ("href", "two/001-b/report.html") in page.attributes
    with pytest.raises(InputError, match="would count twice"):
        report_on([two, _copy(two)], junit=None, html=None)


def _copy(folder: Path) -> Path:
    import shutil

    return Path(shutil.copytree(folder, folder.with_name("copy")))


def test_what_cannot_be_reported_on(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="neither a run folder"):
        report_on([tmp_path], junit=None, html=None)
    run = folder_with(tmp_path / "run")
    with pytest.raises(InputError, match="is for suites"):
        report_on([run], junit=tmp_path / "j.xml", html=None)
    with pytest.raises(InputError, match="different suites"):
        merge_reports([report(suite="one"), report(suite="two")])


def test_every_sink_is_told_in_order() -> None:
    told: list[str] = []

    class Telling(RunSink):
        def __init__(self, name: str) -> None:
            self.name = name

        def finished(self, run: FinishedRun) -> None:
            told.append(f"{self.name}:{run.name}")

    Sinks([Telling("1"), Telling("2")]).finished(finished("a", "pass", 0))
    assert told == ["1:a", "2:a"]
