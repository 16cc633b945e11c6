# SPDX-License-Identifier: GPL-2.0-or-later
"""The report: one HTML file that refers to nothing outside, and needs no scripts.

All text that comes from runs, scenarios or guests is escaped by the template; the
plots are made here and are the only markup that is passed through.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from harness.bench import case_plots, show
from harness.bench.document import BenchDocument, BenchPoint, Contrast, Slope
from harness.bench.measures import BY_NAME, MEASURES

#: Larger pictures of memory would make a page that nobody can send.
_LARGEST_MAP = 1 << 20


@dataclass(frozen=True, slots=True)
class _Row:
    """A line of a case's table."""

    words: str
    cells: list[tuple[str, str]]
    contrasts: list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class _Case:
    """A scenario at a size: what the template shows of it."""

    scenario: str
    memory: int
    accelerator: str
    points: list[BenchPoint]
    summary: list[str]
    plots: list[Markup]
    rows: list[_Row]
    caption: str
    maps: list[tuple[str, str]]

    @property
    def anchor(self) -> str:
        """A name to link to."""
        return f"{self.scenario}-{self.memory >> 20}-{self.accelerator}"


def to_html(document: BenchDocument, folder: Path | None = None) -> str:
    """The page.  ``folder``: the bench's, for the pictures that its runs have drawn."""
    environment = Environment(
        loader=PackageLoader("harness.bench"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    runs = [(point, run) for point in document.points for run in point.runs]
    keys = dict.fromkeys((p.scenario, p.memory_bytes, p.accelerator) for p in document.points)
    return environment.get_template("report.html.j2").render(
        document=document,
        arms=[(arm, words) for arm, words in _ARMS if any(point.arm == arm for point in document.points)],
        scenarios=list(dict.fromkeys(point.scenario for point in document.points)),
        runs_total=len(runs),
        runs_counted=sum(run.counted for _, run in runs),
        cases=[_case(document, *key, folder) for key in keys],
        growth_plots=case_plots.growth(document),
        histograms=case_plots.orders(document),
        fits=[_fit_words(document, index) for index in range(len(document.growth))],
        doublings=_doublings(document),
        overhead=_overhead(document),
        runs=_runs(document),
        setup=_setup(document),
        size=show.size,
        outcome=show.outcome,
    )


#: What an arm is, for those who have not run it before.
_ARMS: Final = (
    ("off", "plain migration"),
    ("hint", "upstream's free page hint"),
    ("info", "free page info"),
)


def _case(
    document: BenchDocument, scenario: str, memory: int, accelerator: str, folder: Path | None
) -> _Case:
    key = (scenario, memory, accelerator)
    points = [p for p in document.points if (p.scenario, p.memory_bytes, p.accelerator) == key]
    contrasts = {
        (c.first, c.second, c.measure): c
        for c in document.contrasts
        if (c.scenario, c.memory_bytes, c.accelerator) == key
    }
    rows = []
    for measure in MEASURES:
        if all(point.median.get(measure.name) is None for point in points):
            continue
        pairs = [contrasts.get(("info", other, measure.name)) for other in ("off", "hint")]
        if measure.better == "neither":
            pairs = [None, None]
        rows.append(
            _Row(
                measure.words,
                [show.cell(point, measure.name) for point in points],
                [_contrast(pair) for pair in pairs],
            )
        )
    covered = sorted({round(100 * i.coverage, 1) for p in points for i in p.interval.values() if i})
    return _Case(
        scenario,
        memory,
        accelerator,
        points,
        _summary(contrasts),
        case_plots.of_case(points),
        rows,
        _caption(covered, contrasts.values()),
        _maps(points, folder),
    )


def _caption(covered: Sequence[float], contrasts: Iterable[Contrast]) -> str:
    if not covered:
        return "Single runs: there is no interval."
    coverage = ", ".join(f"{value:g}" for value in covered)
    least = show.least_p(contrast.least_p for contrast in contrasts)
    return f"Medians; below each the interval of the median (coverage {coverage} %). {least}"


def _contrast(found: Contrast | None) -> tuple[str, str]:
    if found is None or (found.quotient is None and found.p == 1):
        return "", ""
    more = f"p {show.p_value(found.p)}"
    if found.quotient is None:
        return "", more
    if found.interval is not None:
        more = f"{found.interval.low:.2f} to {found.interval.high:.2f}, {more}"
    return f"{found.quotient:.2f}", more


def _summary(contrasts: Mapping[tuple[str, str, str], Contrast]) -> list[str]:
    """The first thing to know, in words."""
    lines = []
    for other in ("off", "hint"):
        time = contrasts.get(("info", other, "total_ms"))
        sent = contrasts.get(("info", other, "sent_bytes"))
        if time is None or sent is None or time.quotient is None or sent.quotient is None:
            continue
        times, bytes_ = (
            f"{found.quotient:.2f} times the {word} (p {show.p_value(found.p)})"
            for found, word in ((time, "time"), (sent, "bytes"))
        )
        lines.append(f"Against {other}, info takes {times} and sends {bytes_}.")
    return lines


def _maps(points: Sequence[BenchPoint], folder: Path | None) -> list[tuple[str, str]]:
    """The picture that the first run of each arm has drawn of the guest's memory, as data."""
    found = []
    for point in points if folder is not None else ():
        for run in point.runs:
            path = (folder or Path()) / run.folder / "map.svg"
            if run.counted and path.is_file() and path.stat().st_size <= _LARGEST_MAP:
                data = base64.b64encode(path.read_bytes()).decode("ascii")
                found.append((point.arm, f"data:image/svg+xml;base64,{data}"))
                break
    return found


def _fit_words(document: BenchDocument, index: int) -> list[str]:
    fit = document.growth[index]
    unit = BY_NAME[fit.measure].unit

    def slope(found: Slope | None) -> str:
        if found is None:
            return "-"
        around = show.interval(found.interval, unit)
        return show.format_value(found.per_gib, unit) + (f" ({around})" if around else "")

    return [
        *(fit.scenario, fit.arm, BY_NAME[fit.measure].words, show.format_value(fit.fixed, unit)),
        *(slope(fit.by_total), slope(fit.by_used), f"{100 * fit.explained:.0f} %"),
    ]


def _doublings(document: BenchDocument) -> list[list[str]]:
    words = {"sent_over_floor": "(sent - head) / floor", "total_ms_per_floor_byte": "time per byte of floor"}
    return [
        [
            *(one.scenario, one.arm, show.size(one.memory_bytes), words.get(one.measure, one.measure)),
            "-" if one.used_factor is None else f"times {one.used_factor:.2f}",
            f"times {one.factor:.3f}",
        ]
        for one in document.doublings
    ]


def _overhead(document: BenchDocument) -> list[list[str]]:
    from harness.bench.statistics import median

    return [
        [
            one.arm,
            *(f"{median(values):.2f} s" for values in (one.floor, one.whole, one.held)),
            f"{one.quotient:.2f}"
            + (f" ({one.interval.low:.2f} to {one.interval.high:.2f})" if one.interval else ""),
            f"{one.quotient_without_holds:.2f}",
        ]
        for one in document.overhead
    ]


def _runs(document: BenchDocument) -> list[dict[str, str]]:
    found = [(run.number, point, run) for point in document.points for run in point.runs]
    return [
        {
            "number": str(number),
            "point": f"{point.scenario}, {show.size(point.memory_bytes)}, {point.arm}",
            "verdict": run.verdict,
            "reason": run.reason,
            "total": show.format_value(run.values.get("total_ms"), "ms"),
            "sent": show.format_value(run.values.get("sent_bytes"), "B"),
            "down": show.format_value(run.values.get("downtime_ms"), "ms"),
            "load": "-" if run.load is None else f"{run.load:.1f}",
            "folder": run.folder,
        }
        for number, point, run in sorted(found, key=lambda item: item[0])
    ]


def _setup(document: BenchDocument) -> list[tuple[str, str]]:
    host = document.host
    lines = [
        (
            "Host",
            f"{host.get('cpu')}, {host.get('cpus')} CPUs, {show.format_value(host.get('memory_bytes'), 'B')}",
        ),
        ("Host system", f"{host.get('distribution')}, kernel {host.get('kernel')}"),
        ("Load average at the start", ", ".join(str(load) for load in host.get("load_average", []))),
        ("Digests at each request", "yes" if document.strict else "no"),
    ]
    for name, found in document.versions.items():
        if isinstance(found, dict):
            words = [str(found[key]) for key in ("version", "release", "flavour") if found.get(key)]
            digest = f"SHA-256 {found['sha256']}" if found.get("sha256") else ""
            lines.append((name.replace("_", " "), ", ".join(filter(None, [*words, digest]))))
        else:
            lines.append((name.replace("_", " "), str(found)))
    lines.append(("Repeat", document.command))
    return lines
