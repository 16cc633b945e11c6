# SPDX-License-Identifier: GPL-2.0-or-later
"""A workload of one's own: a class here, a C file there, and nothing else touched."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import numpy as np
import pytest
from pydantic import Field

from harness.errors import InputError
from harness.events import EventStream
from harness.evidence.workload_reports import WorkloadReports, pauses
from harness.guestview.report import Aftermath
from harness.memory import formula
from harness.scenario.load import load_scenario, scenario_schema
from harness.scenario.resolve import MachineFacts, resolve
from harness.scenario.values import Share
from harness.scenario.workloads.answer import Answer
from harness.scenario.workloads.base import WORKLOADS, Filling
from tests.unit.guest_programs import made

if TYPE_CHECKING:
    from harness.guest.control import GuestControl
    from harness.memory.formula import Generations

MACHINE = MachineFacts(memory_available=64 << 30)

SCENARIO = """\
name: striped
guest: {memory: 256MiB}
workload: {kind: stripes, noise: 1MiB, every: 3}
"""

#: Owns one page of every= pages, and gives the others back.
PROGRAM = """\
#include "serve.h"
#include "workload.h"

static struct region region;

static uint64_t every = 2;

static void stop(void)
{
}

static struct tally verify(void)
{
	return check_all(&region);
}

static struct server server = { .stop = stop, .verify = verify };

static uint64_t load(const struct load *load, struct tally *t)
{
	uint64_t page;

	if (!every)
		die("that is no number of pages");
	region_map(&region, load->seed, load->bytes, 0);
	for (page = 0; page < region.pages; page++)
		if (page % every)
			free_pages(&region, page, page + 1);
		else
			write_owned(&region, page, t);
	return 0;
}

static const struct workload_option options[] = { { "every", .number = &every }, { 0 } };
static const struct workload_ops ops = { .server = &server, .options = options, .load = load };

static int run(int argc, char **argv)
{
	return workload_main(argc, argv, &ops);
}

WORKLOAD(stripes, run);
"""


@pytest.fixture
def stripes() -> Iterator[type[Filling]]:
    with WORKLOADS.temporary():

        class Stripes(Filling):
            """One page of several is in use."""

            kind: Literal["stripes"] = "stripes"
            """Which workload."""
            noise: Share = 4 << 20
            """How much memory it works on."""
            every: Annotated[int, Field(ge=2)] = 2
            """One page of so many."""

            def generations(self, seed: int, noise: int, steps: int) -> Generations:  # noqa: ARG002
                table = formula.unchanged(noise)
                table[np.arange(len(table)) % self.every != 0] = formula.FREED
                return table

        yield Stripes


def write(folder: Path, text: str) -> str:
    (folder / "my.yaml").write_text(text)
    return str(folder / "my.yaml")


@pytest.mark.usefixtures("stripes")
def test_a_scenario_uses_it(tmp_path: Path) -> None:
    resolved = resolve(load_scenario(write(tmp_path, SCENARIO), ["seed=7"]), MACHINE)
    assert resolved.load_words() == ("stripes", "7", str(1 << 20), "every=3")
    again = load_scenario(write(tmp_path, resolved.scenario.to_yaml()))
    assert again == resolved.scenario


@pytest.mark.usefixtures("stripes")
def test_its_mistakes_are_located(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_scenario(write(tmp_path, SCENARIO.replace("every: 3", "evry: 3")))
    assert caught.value.message.endswith(
        "my.yaml:3:40: workload.evry: unknown key; did you mean 'every'? "
        "the keys of workload 'stripes' here are kind, noise, every"
    )
    with pytest.raises(InputError, match=r"3:40: workload\.every: expected at least 2, got 1"):
        load_scenario(write(tmp_path, SCENARIO.replace("every: 3", "every: 1")))
    with pytest.raises(InputError, match=r"3:12: workload\.kind: .*; did you mean 'stripes'\?"):
        load_scenario(write(tmp_path, SCENARIO.replace("stripes", "strips")))


@pytest.mark.usefixtures("stripes")
def test_the_schema_describes_it() -> None:
    schema = scenario_schema()["$defs"]["Stripes"]  # type: ignore[index]
    assert schema["description"] == "One page of several is in use."
    assert schema["properties"]["every"]["description"] == "One page of so many."
    assert schema["properties"]["noise"]["default"] == "4MiB"


def test_the_guest_answers_what_the_host_expects(stripes: type[Filling], tmp_path: Path) -> None:
    source = tmp_path / "stripes.c"
    source.write_text(PROGRAM)
    program = made(tmp_path / "made", "workload", more=[source]) / "workload"
    mine = stripes.model_validate({"every": 3})
    done = subprocess.run(
        [program, "load", *mine.load_words(7, 1 << 20)],
        input="verify\n",
        capture_output=True,
        text=True,
        check=True,
    )
    for line in done.stdout.splitlines():
        answer = Answer.read(json.loads(line))
        assert (answer.pages, mine.wrong(answer)) == (86, 0)
        assert mine.matches(answer, 7, 1 << 20)
        assert not mine.matches(answer, 8, 1 << 20)


def test_it_owns_what_it_has_not_given_up(stripes: type[Filling]) -> None:
    numbers = np.arange(9, dtype=np.uint64)
    keys = formula.keys_of(np.array([formula.page_words(7, int(n), 0)[0] for n in numbers], np.uint64))
    owned = stripes.model_validate({"every": 3}).owns(7, 8 * formula.PAGE, keys)
    assert owned.tolist() == [True, False, False, True, False, False, True, False, False]


def test_what_it_reports_becomes_facts_for_the_verdict(tmp_path: Path) -> None:
    class Control:
        asked = 0

        def call(self, verb: str, *_: object, deadline: object) -> Mapping[str, object]:  # noqa: ARG002
            assert verb == "report"
            self.asked += 1
            return {"candles": 1 if self.asked <= 3 else 2}

    with WORKLOADS.temporary():

        class Candles(Filling):
            """It counts candles."""

            reports = True
            kind: Literal["candles"] = "candles"
            """Which workload."""
            noise: Share = 4 << 20
            """How much memory it works on."""

            def facts(self, aftermath: Aftermath) -> Sequence[object]:
                return (aftermath.before.number("candles"), aftermath.after.number("candles"))

        scenario = load_scenario(
            write(tmp_path, SCENARIO.replace("stripes, noise: 1MiB, every: 3", "candles"))
        )
        control = Control()
        resolved = resolve(scenario, MACHINE)
        reports = WorkloadReports(cast("GuestControl", control), resolved, lambda: None, EventStream())
        with reports:
            reports.arrived()
            assert reports.end() == (1, 2)
    idle = resolve(load_scenario("idle"), MACHINE)
    reports = WorkloadReports(cast("GuestControl", control), idle, lambda: None, EventStream())
    with reports:
        reports.arrived()
        assert (reports.end(), control.asked) == ((), 6)


def test_the_spans_in_which_nobody_ran_the_guest() -> None:
    events = EventStream()
    first = events.history()[0]
    zero = datetime.fromisoformat(str(first.data["wall"])).timestamp() - first.t

    def of(kind: str, side: str, at: float) -> None:
        events.emit(kind, source=f"{side}.qmp", at=zero + at)

    for kind, side, at in (
        ("STOP", "source", 1.0),
        ("RESUME", "source", 2.0),
        ("STOP", "source", 5.0),
        ("STOP", "destination", 5.5),  # it comes up stopped
        ("RESUME", "destination", 8.0),
        ("STOP", "source", 9.0),  # the same one: it is the source of the next migration
        ("RESUME", "destination", 9.5),
        ("STOP", "source", 30.0),
    ):
        of(kind, side, at)
    found = pauses(events.history(), 1.5, 20.0)
    assert [(round(gap.begin, 3), round(gap.end, 3)) for gap in found] == [(5.0, 8.0), (9.0, 9.5)]
    assert [round(gap.seconds, 3) for gap in pauses(events.history(), 0.0, 20.0)] == [1.0, 3.0, 0.5]


def test_it_is_gone() -> None:
    assert "stripes" not in WORKLOADS
