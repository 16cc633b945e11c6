# SPDX-License-Identifier: GPL-2.0-or-later
"""The second witness in whole runs, and what is kept of their pages."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from harness.explain.case import Case
from harness.explain.sendings import Sendings
from harness.memory.record import read_record
from harness.testing import Freepage
from tests.vm.test_run import judged


def explain(freepage: Freepage, folder: Path, *options: str) -> str:
    """What the command prints."""
    output = freepage.command("explain", folder, *options)
    assert output.exit_code == 0, str(output)
    return output.stdout


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["idle", "fragmented"])
def test_on_a_quiet_guest_both_witnesses_name_the_same_pages(freepage: Freepage, scenario: str) -> None:
    run = freepage.run(scenario)
    result = judged(run)
    heard = result.witnesses
    assert heard is not None
    assert heard.answered == heard.judged == result.protocol.requests >= 1
    assert heard.missing == []
    assert (heard.owned, heard.undecided) == (0, 0)
    assert heard.agreement["both"] == sum(heard.standing.values()) == result.protocol.reported
    assert (result.bytes.floor_by, result.bytes.floor_at) == ("walk", "request")
    assert result.bytes.unreported is not None


@pytest.mark.slow
def test_a_busy_guest_reports_only_what_was_free(freepage: Freepage) -> None:
    result = judged(freepage.run("churn"))
    heard = result.witnesses
    assert heard is not None
    assert heard.judged >= 1
    assert heard.owned == 0
    # Not compared: what a busy guest leaves out is its own business.
    assert heard.agreement == {}


def test_every_page_can_be_explained(freepage: Freepage) -> None:
    run = freepage.run("freed", trace="pages")
    result = judged(run)
    case = Case.open(run.folder)
    ram = case.kept.blocks["pc.ram"]
    skipped = int(ram.pages("skipped")[0])
    text = explain(freepage, run.folder, "--pfn", hex(skipped))
    assert "free, node 0, zone" in text
    assert "never arrived" in text
    assert "right: left behind by an accepted answer" in text
    assert f"{result.pages.skipped} pages" in explain(freepage, run.folder)
    assert ET.parse(run.folder / "map.svg").getroot().tag.endswith("svg")
    assert (run.folder / "pages.npz").stat().st_size <= case.kept.bound()
    # What QEMU traced, page by page, is what the device recorded.
    (migration,) = read_record(run.folder / "source.record")
    for name, sendings in Sendings.load(run.folder).items():
        arrived = np.zeros(migration.blocks[name].pages, dtype=np.bool_)
        arrived[sendings.page] = True
        assert np.array_equal(arrived, migration.sent[name].flags()), name
    assert not list(run.folder.glob("*.trace"))


def test_a_page_that_the_host_writes_has_a_name_and_no_other(freepage: Freepage) -> None:
    """Both QEMUs say another generation id: sixteen bytes differ, and everything else is right."""
    result = judged(freepage.run("idle", set={"guest.generation_id": "changed"}))
    assert result.pages.explained == {"vm-generation-id": 1}


@pytest.mark.slow
def test_the_other_arms_have_a_floor_as_well(freepage: Freepage) -> None:
    result = judged(freepage.run("freed", arm="off"))
    assert (result.bytes.floor_by, result.bytes.floor_at) == ("walk", "start")
    assert result.bytes.unreported is not None
    # What was free, and was sent all the same, is most of it.
    assert result.bytes.unreported > result.bytes.floor


@pytest.mark.slow
def test_nothing_is_explained_without_a_reason_and_nobody_walks_unasked(freepage: Freepage) -> None:
    result = judged(freepage.run("idle", arm="off", set={"walk": False, "guest.generation_id": "kept"}))
    assert result.pages.explained == {}
    assert result.bytes.floor_by == "none"
    assert result.witnesses is None
