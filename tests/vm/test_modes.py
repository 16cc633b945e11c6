# SPDX-License-Identifier: GPL-2.0-or-later
"""Every mode of a migration, and every shape of a guest's memory: right, skipping, and really on.

The dimensions are in the tests' names.  That a mode was asked for proves nothing:
each test looks for it in what QEMU said.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.errors import InputError
from harness.hosts.this_machine import demand_hugepages, demand_userfaultfd, demand_zero_copy
from harness.report.result import Result
from harness.testing import Freepage, Run, RunOptions, WrongInput

slow = pytest.mark.slow

#: Small; what is shown here does not depend on the size.  How many pages are skipped depends on
#: how soon the guest answers, and on a busy machine that is late.
SMALL: RunOptions = {"memory": "256MiB", "set": {"expect.skipped_percent_min": 10}}
#: Else a quarter of so small a guest is set aside for devices that cannot reach above 4 GiB.
NO_BOUNCE = {"guest.cmdline": "swiotlb=noforce"}


@pytest.fixture
def freepage(freepage: Freepage) -> Freepage:
    """A small guest."""
    return freepage.with_defaults(**SMALL)


def skip_unless(demand: Callable[..., None], *words: int) -> None:
    """What this machine cannot do is said by the same check as to a user."""
    try:
        demand(*words)
    except InputError as error:
        pytest.skip(f"{error.message}; {error.hint}")


def events(out: Path, kind: str) -> list[dict[str, Any]]:
    """What the run's event stream has of one kind."""
    return [line["data"] for line in lines_of(out) if line["kind"] == kind]


def switched_on(out: Path, side: str = "source") -> tuple[set[str], dict[str, Any]]:
    """QEMU's capabilities and parameters, as it told them while it migrated."""
    modes = [said for said in events(out, "modes") if said["side"] == side][-1]
    return set(modes["capabilities"]), modes["parameters"]


def lines_of(out: Path) -> list[dict[str, Any]]:
    """The run's event stream."""
    return [json.loads(line) for line in (out / "events.jsonl").read_text("utf-8").splitlines()]


def last_answer(out: Path) -> dict[str, Any]:
    """QEMU's own account of the completed migration."""
    found: dict[str, Any] = {}
    for line in (out / "qmp.jsonl").read_text("utf-8").splitlines():
        answer = json.loads(line).get("return")
        if isinstance(answer, dict) and answer.get("status") == "completed":
            found = answer
    return found


def passed(run: Run, *, skipping: bool = True) -> Result:
    """Right, compared whole, and with pages left behind."""
    assert run.exit_code == 0, str(run)
    result = run.result
    assert result.verdict == "pass"
    assert not result.not_compared
    assert (result.pages.skipped > 0) == skipping, str(run)
    assert result.protocol.invalid == 0
    assert result.guest.kernel_warnings == []
    return result


def blocks_compared(out: Path) -> dict[str, int]:
    """The RAMBlocks that were compared, and their bytes."""
    steps = events(out, "step-start")
    return {step["block"]: step["bytes"] for step in steps if step["step"] == "compare"}


@pytest.mark.parametrize(
    ("channels", "zero_pages"),
    [
        pytest.param(0, "none", marks=slow),
        pytest.param(0, "legacy", marks=slow),
        (2, "none"),
        pytest.param(2, "legacy", marks=slow),
        (2, "multifd"),
    ],
    ids=lambda value: str(value),
)
def test_zero_page_detection(freepage: Freepage, channels: int, zero_pages: str) -> None:
    keys = {"migration.multifd": channels, "migration.zero_pages": zero_pages, "workload.noise": "100MiB"}
    run = freepage.run("freed", set=keys)
    result = passed(run)
    on, parameters = switched_on(run.folder)
    assert ("multifd" in on) == (channels > 0)
    assert parameters["zero-page-detection"] == zero_pages
    if channels:
        assert parameters["multifd-channels"] == channels
    # Nobody looks for pages of zeros, or somebody does.
    assert (result.bytes.zero_pages > 0) == (zero_pages != "none")


def test_xbzrle(freepage: Freepage) -> None:
    keys = {
        "migration.xbzrle": True,
        "workload.noise": "100MiB",
        # Pages that are sent again are what it is for.
        "migration.bandwidth": "32MiB/s",
        "migration.downtime_limit_ms": 50,
    }
    run = freepage.run("churn", set=keys)
    passed(run)
    assert "xbzrle" in switched_on(run.folder)[0]
    assert last_answer(run.folder)["xbzrle-cache"]["cache-miss"] > 0


@slow
def test_auto_converge(freepage: Freepage, freepage_folder: Path) -> None:
    """A sync may come from the throttle's own timer, with requests outstanding."""
    scenario = freepage_folder / "auto-converge.yaml"
    scenario.write_text(
        "name: auto-converge\n"
        "workload: {kind: churn, noise: 100MiB, rate: 8000}\n"
        "migration: {auto_converge: true, bandwidth: 16MiB/s, downtime_limit_ms: 50}\n"
        "script: [{at: pass, number: 5, do: [{action: qmp-answers}]}]\n",
        encoding="utf-8",
    )
    run = freepage.run(str(scenario))
    passed(run)
    assert "auto-converge" in switched_on(run.folder)[0]
    assert '"cpu-throttle-percentage"' in (run.folder / "qmp.jsonl").read_text("utf-8")


@slow
def test_a_guest_is_slowed_down_and_let_go(freepage: Freepage) -> None:
    """Cancelled while it is; the next migration begins with a guest that is free, and slows it down anew."""
    result = passed(freepage.run("auto-converge"), skipping=False)
    for move in result.moves:
        assert move.throttle is not None
        first, *more = move.throttle.steps
        assert (first.percent, first.syncs) == (0, 1)
        percents = [step.percent for step in more if not step.over]
        assert percents == sorted(percents)
        assert percents[-1] == move.throttle.percent_max >= 40
    assert [move.throttle.steps[-1].over for move in result.moves if move.throttle] == [False, True]


@slow
def test_a_guest_that_was_to_be_slowed_down_and_was_not(freepage: Freepage) -> None:
    """One that writes nothing passes over its memory once."""
    run = freepage.run("idle", arm="off", set={"migration.auto_converge": True})
    assert run.exit_code == 4, str(run)
    assert "throttle-not-seen" in run.result.reason
    run = freepage.run("idle", arm="off", set={"migration.auto_converge": True, "expect.throttled": False})
    passed(run, skipping=False)


@pytest.mark.parametrize("channels", [0, pytest.param(2, marks=slow)])
def test_tls(freepage: Freepage, channels: int) -> None:
    keys = {"migration.tls": True, "migration.multifd": channels, "workload.noise": "100MiB"}
    run = freepage.run("freed", set=keys)
    passed(run)
    assert switched_on(run.folder)[1]["tls-creds"]


def test_postcopy_allowed_and_never_made(freepage: Freepage) -> None:
    """The guest is asked as without: what is left out can still be fetched."""
    skip_unless(demand_userfaultfd)
    keys = {"migration.postcopy": True, "workload.noise": "100MiB"}
    run = freepage.run("freed", set=keys)
    result = passed(run)
    assert "postcopy-ram" in switched_on(run.folder)[0]
    assert result.protocol.refused == ""
    assert result.protocol.fetched == 0


def test_multifd_zstd(freepage: Freepage) -> None:
    """libvirt 9.0 has no word for the compression: QEMU is told itself, on both sides."""
    run = freepage.run("multifd-zstd")
    result = passed(run)
    for side in ("source", "destination"):
        on, parameters = switched_on(run.folder, side)
        assert "multifd" in on
        assert parameters["multifd-channels"] == 3
        assert (parameters["multifd-compression"], parameters["multifd-zstd-level"]) == ("zstd", 2)
        said = result.moves[-1].modes[side]
        assert (set(said.capabilities), said.parameters) == (on, parameters)


def test_each_move_has_modes_of_its_own(freepage: Freepage) -> None:
    """Nothing of a move's settings is on in the next one, which libvirt carries out."""
    run = freepage.run("paused-retried", set={"expect.skipped_percent_min": None})
    result = passed(run, skipping=False)
    assert [move.ended for move in result.moves] == ["cancelled", "completed"]
    first, second = (move.modes for move in result.moves)
    for side in ("source", "destination"):
        assert {"multifd", "validate-uuid"} <= set(first[side].capabilities)
        assert first[side].parameters["multifd-compression"] == "zstd"
        assert not {"multifd", "validate-uuid"} & set(second[side].capabilities)
        assert second[side].parameters["multifd-compression"] == "none"
    # It stood still from the first one's beginning to the second one's end.
    runs = [event["kind"] for event in lines_of(run.folder) if event["kind"] in ("STOP", "RESUME")]
    assert runs[:2] == ["STOP", "RESUME"]


@slow
def test_zero_copy(freepage: Freepage) -> None:
    skip_unless(demand_zero_copy, 2)
    run = freepage.run("zero-copy")
    passed(run)
    assert {"multifd", "zero-copy-send"} <= switched_on(run.folder)[0]
    # It counts how often the kernel copied after all; without zero copy QEMU does not say.
    assert "dirty-sync-missed-zero-copy" in last_answer(run.folder)["ram"]


@slow
@pytest.mark.parametrize(("tls", "name"), [("psk", "psk"), (True, "x509")])
def test_tls_past_libvirt(freepage: Freepage, tls: object, name: str) -> None:
    keys = {"migration.tls": tls, "migration.parameters.multifd-compression": "zlib"}
    run = freepage.run("tls-psk", set=keys)
    passed(run)
    for side, role in (("source", "client"), ("destination", "server")):
        on, parameters = switched_on(run.folder, side)
        assert "multifd" in on
        assert parameters["tls-creds"] == f"freepage-{name}-{role}"
        assert parameters["multifd-compression"] == "zlib"


@slow
def test_cpr_transfer(freepage: Freepage) -> None:
    """No page is sent: the destination has been handed the source's memory."""
    run = freepage.run("cpr-transfer")
    result = passed(run, skipping=False)
    assert result.moves[-1].modes["source"].parameters["mode"] == "cpr-transfer"
    assert result.pages.total > 60_000
    assert result.postcopy is None
    said = (run.folder / "qmp.jsonl").read_text("utf-8")
    assert '"channel-type": "cpr"' in said
    answer = last_answer(run.folder)
    assert (answer["ram"]["normal"], answer["ram"]["duplicate"]) == (0, 0)


@slow
def test_cpr_reboot(freepage: Freepage) -> None:
    run = freepage.run("cpr-reboot", set={"expect.skipped_percent_min": None})
    result = passed(run, skipping=False)
    assert result.moves[-1].modes["source"].parameters["mode"] == "cpr-reboot"
    assert result.protocol.requests == 0


@slow
def test_no_return_path(freepage: Freepage) -> None:
    run = freepage.run("no-return-path")
    passed(run)
    for side in ("source", "destination"):
        assert "return-path" not in switched_on(run.folder, side)[0]


@slow
def test_a_switch_over_that_is_said_to_be_faster(freepage: Freepage) -> None:
    run = freepage.run("switchover-bandwidth", set={"expect.skipped_percent_min": None})
    passed(run, skipping=False)
    assert switched_on(run.folder)[1]["avail-switchover-bandwidth"] == 10**10


@slow
def test_xbzrle_sends_differences(freepage: Freepage) -> None:
    run = freepage.run("xbzrle-patterns", set={"expect.skipped_percent_min": None})
    passed(run, skipping=False)
    cache = last_answer(run.folder)["xbzrle-cache"]
    # Most pages of its cache go as a difference, some have changed altogether.
    assert cache["pages"] > cache["overflow"] > 0


@slow
@pytest.mark.parametrize(
    ("scenario", "ends"),
    [
        ("retried-whole", ["cancelled", "completed"]),
        ("fewer-channels", ["cancelled", "completed"]),
        ("cancelled-in-setup", ["cancelled", "completed"]),
        ("multifd-zlib", ["completed"]),
        ("postcopy-only-allowed", ["completed"]),
    ],
)
def test_cases_of_qemus_history(freepage: Freepage, scenario: str, ends: list[str]) -> None:
    """Each is caught where QEMU has the fault again: see the faults of modes in the catalogue."""
    run = freepage.run(scenario, set={"expect.skipped_percent_min": None})
    result = passed(run, skipping=False)
    assert [move.ended for move in result.moves] == ends


@slow
def test_a_cancelled_migration_that_still_connects(freepage: Freepage) -> None:
    """QEMU 10.0 has said that it is cancelled: docs/found.md."""
    run = freepage.run("cancelled-connects")
    assert run.exit_code == 0, str(run)
    assert {finding.rule for finding in run.result.findings} == {"qmp-answer"}


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        (
            "capabilities.dirty-limt",
            True,
            "has no capability of that name; did you mean 'dirty-limit'? query-migrate-capabilities lists",
        ),
        (
            "parameters.multifd-chanels",
            3,
            "has no parameter of that name; did you mean 'multifd-channels'? query-migrate-parameters lists",
        ),
        ("parameters.multifd-channels", "a", "refuses it: Parameter 'multifd-channels' expects uint64"),
        (
            "parameters.multifd-compression",
            "qatzip",
            "refuses it: Parameter 'multifd-compression' does not accept value 'qatzip'",
        ),
        (
            "capabilities.zero-copy-send",
            True,
            "refuses it: Zero copy only available for non-compressed non-TLS multifd migration",
        ),
        (
            "capabilities.dirty-limit",
            True,
            "refuses it: dirty-limit requires KVM with accelerator property 'dirty-ring-size' set",
        ),
    ],
    ids=lambda value: str(value).partition(" ")[0],
)
def test_what_qemu_does_not_know_is_refused_before_a_guest_boots(
    freepage: Freepage, key: str, value: object, words: str
) -> None:
    with pytest.raises(WrongInput) as refused:
        freepage.run("idle", set={f"migration.{key}": value, "accelerator": "tcg"})
    assert words in str(refused.value)
    assert f"migration.{key}: the QEMU " in str(refused.value)


def test_several_blocks(freepage: Freepage) -> None:
    """NUMA nodes, a DIMM and the PCI hole at once: frames, offsets and blocks all differ."""
    run = freepage.run("several-blocks")
    result = passed(run)
    compared = blocks_compared(run.folder)
    assert {name: compared[name] >> 20 for name in ("ram-node0", "ram-node1")} == {
        "ram-node0": 128,
        "ram-node1": 128,
    }
    assert [size >> 20 for name, size in compared.items() if "dimm" in name] == [128]
    assert result.pages.total * 4096 == sum(compared.values())


@pytest.mark.parametrize(
    "below_4g",
    [pytest.param("264MiB", marks=slow), pytest.param("256MiB", marks=slow), "248MiB"],
    ids=["all-below-the-hole", "up-to-the-hole", "beyond-the-hole"],
)
@pytest.mark.parametrize("machine", [pytest.param("pc", marks=slow), "q35"])
def test_the_pci_hole(freepage: Freepage, machine: str, below_4g: str) -> None:
    keys = {
        "guest.machine": machine,
        "guest.below_4g": below_4g,
        "workload.noise": "100MiB",
        **NO_BOUNCE,
    }
    run = freepage.run("freed", set=keys)
    passed(run)
    record = (run.folder / "source.record").read_bytes()
    # The block's ranges, in the record's own words: beyond the hole begins the one at 4 GiB.
    assert (b"[4294967296, " in record) == (below_4g == "248MiB")


@pytest.mark.parametrize("nodes", [pytest.param(2, marks=slow), pytest.param(3, marks=slow)])
@pytest.mark.parametrize("machine", ["pc", "q35"])
def test_numa_nodes(freepage: Freepage, machine: str, nodes: int) -> None:
    keys = {
        "guest.machine": machine,
        "guest.nodes": nodes,
        "guest.vcpus": nodes,
        "workload.noise": "100MiB",
    }
    run = freepage.run("churn", set=keys)
    passed(run)
    assert {f"ram-node{node}" for node in range(nodes)} <= set(blocks_compared(run.folder))


@slow
def test_huge_pages(freepage: Freepage) -> None:
    """Dirty pages are small all the same; what was skipped of a huge page has to read zero."""
    skip_unless(demand_hugepages, 256 << 20)
    run = freepage.run("freed", set={"guest.hugepages": True, "workload.noise": "100MiB"})
    passed(run)
    assert '"hugetlb":true' in (run.folder / "source.command").read_text("utf-8")


@pytest.mark.parametrize("workload", ["freed", pytest.param("churn", marks=slow)])
def test_a_nic_writes_into_memory(freepage: Freepage, workload: str) -> None:
    keys = {"guest.traffic": True, "workload.noise": "100MiB"}
    run = freepage.run(workload, set=keys)
    passed(run)
