# SPDX-License-Identifier: GPL-2.0-or-later
"""The report: whole, readable without scripts, without references to anything outside, nothing unescaped."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from harness.bench import plots, show
from harness.bench.document import BenchDocument, Range
from harness.bench.page import to_html
from harness.bench.summarise import BenchSetting, summarise_bench
from tests.unit.test_bench import GIB, made

EVIL = "<script>alert('x')</script>&\""


def whole(**changes: object) -> BenchDocument:
    values = {
        "total_ms": 1234.5,
        "sent_bytes": 2e8,
        "floor_bytes": 1.5e8,
        "sent_over_floor": 1.03,
        "downtime_ms": 50.0,
        "host_cpu_s": 1.5,
        "memfree_taken_bytes": 1e6,
    }
    runs = [
        one
        for memory in (GIB, 2 * GIB)
        for arm in ("off", "hint", "info")
        for one in made(arm, [{**values, "total_ms": 1000.0 + i} for i in range(5)], memory=memory)
    ]
    setting = BenchSetting(
        "2026-01-01", "freepage bench freed", 1, False, {"cpu": "a CPU"}, {}, notes=("a note",)
    )
    return summarise_bench(setting, runs).model_copy(update=changes)


class Reader(HTMLParser):
    """Tags that are opened and closed, and whatever refers to something."""

    EMPTY = frozenset({"meta", "img", "line", "rect", "circle", "path", "polyline", "br", "i"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.references: list[str] = []
        self.handlers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in self.EMPTY:
            self.open.append(tag)
        self.references += [v or "" for k, v in attrs if k in ("src", "href", "xlink:href", "action", "data")]
        self.handlers += [k for k, _ in attrs if k.startswith("on")]

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.EMPTY:
            assert self.open.pop() == tag


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    return reader


def test_the_page_is_whole_and_refers_to_nothing_outside() -> None:
    html = to_html(whole())
    reader = read(html)
    assert not {"script", "link", "iframe", "object", "embed"} & reader.tags
    assert reader.handlers == []
    assert all(where.startswith(("#", "data:")) for where in reader.references)
    assert not re.search(r"url\(|@import|https?://", html)
    assert "svg" in reader.tags
    for words in ("Goals", "Growth", "Every run", "Set-up", "How it was measured", "a note"):
        assert words in html


def test_what_comes_from_runs_is_escaped() -> None:
    document = whole()
    point = document.points[0]
    run = point.runs[0].model_copy(update={"verdict": "error", "reason": EVIL, "folder": EVIL})
    evil = point.model_copy(update={"runs": [run], "scenario": EVIL, "arm": EVIL})
    html = to_html(
        document.model_copy(
            update={
                "points": [evil, *document.points[1:]],
                "command": EVIL,
                "notes": [EVIL],
                "host": {"cpu": EVIL},
                "versions": {"kernel": {"release": EVIL}},
            }
        )
    )
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "script" not in read(html).tags


def test_the_map_of_a_run_is_a_part_of_the_page(tmp_path: Path) -> None:
    place = tmp_path / "runs" / "1"
    place.mkdir(parents=True)
    (place / "map.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    reader = read(to_html(whole(), tmp_path))
    assert any(where.startswith("data:image/svg+xml;base64,") for where in reader.references)


@pytest.mark.parametrize(
    ("top", "last", "count"), [(100, 100, 6), (99, 100, 6), (7, 8, 5), (0.3, 0.3, 4), (1, 1, 6)]
)
def test_ticks_are_round_and_reach_the_top(top: float, last: float, count: int) -> None:
    found = plots.ticks(top)
    assert found[0] == 0
    assert found[-1] == pytest.approx(last)
    assert len(found) == count


def test_a_plot_of_nothing_is_a_plot() -> None:
    bar = plots.Bar("off", "off", None, None, None, (), "no run that counts")
    assert "no run that counts" in plots.bars("x", [bar], str)
    assert plots.ticks(0) == [0.0, 1.0]


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [
        (None, "ms", "-"),
        (0, "B", "0 MB"),
        (1.5e6, "B", "1.5 MB"),
        (1.716e9, "B", "1,716 MB"),
        (257.4, "ms", "257 ms"),
        (12345.0, "ms", "12.3 s"),
        (1.004, "", "1.004"),
        (40000.0, "", "40,000"),
        (4000.0, "1/s", "4,000/s"),
    ],
)
def test_numbers_for_people(value: float | None, unit: str, words: str) -> None:
    assert show.format_value(value, unit) == words


def test_intervals_say_their_unit_once() -> None:
    assert show.interval(Range(low=421, high=633, coverage=0.9), "ms") == "421 to 633 ms"
    assert show.interval(Range(low=9000, high=11000, coverage=0.9), "ms") == "9,000 ms to 11.0 s"
    assert show.interval(Range(low=5, high=5, coverage=0.9), "s") == "5.00 s"
    assert show.interval(None, "s") == ""


def test_no_two_ticks_have_the_same_label() -> None:
    assert plots.told_apart([0.0, 0.2, 0.4, 0.6], lambda value: f"{value:.0f} s") == [
        (0.0, "0 s"),
        (0.6, "1 s"),
    ]
    text = plots.bars(
        "times", [plots.Bar("a", "info", 0.4, None, None, (), "")], lambda value: f"{value:.0f} s"
    )
    labels = re.findall(r'class="tick">([^<]*)', text)
    assert len(labels) == len(set(labels))


def test_only_arms_that_were_run_are_in_the_key() -> None:
    setting = BenchSetting("2026-01-01", "freepage bench freed", 1, False, {}, {})
    html = to_html(summarise_bench(setting, made("info", [{"total_ms": 1.0}])))
    key = html[html.index('<p class="key">') :].partition("</p>")[0]
    assert "free page info" in key
    assert "hint" not in key
    assert "off" not in key
