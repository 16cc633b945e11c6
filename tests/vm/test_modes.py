# SPDX-License-Identifier: GPL-2.0-or-later
"""Every mode of a migration, and every shape of a guest's memory: right, skipping, and really on.

The dimensions are in the tests' names.  That a mode was asked for proves nothing:
each test looks for it in what QEMU said.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from harness.errors import InputError
from harness.hosts.this_machine import demand_hugepages, demand_userfaultfd
from harness.report.result import Result
from tests.vm.conftest import Ended

Run = Callable[..., Ended]
slow = pytest.mark.slow

#: Small; what is shown here does not depend on the size.  How many pages are skipped depends on
#: how soon the guest answers, and on a busy machine that is late.
MEMORY = ("--memory", "256MiB", "--set", "expect.skipped_percent_min=10")
#: Else a quarter of so small a guest is set aside for devices that cannot reach above 4 GiB.
NO_BOUNCE = {"guest.cmdline": "swiotlb=noforce"}


def settings(keys: Mapping[str, object]) -> Iterator[str]:
    """As options of the command."""
    for key, value in keys.items():
        yield from ("--set", f"{key}={str(value).lower() if isinstance(value, bool) else value}")


def skip_unless(demand: Callable[..., None], *words: int) -> None:
    """What this machine cannot do is said by the same check as to a user."""
    try:
        demand(*words)
    except InputError as error:
        pytest.skip(f"{error.message}; {error.hint}")


def events(out: Path, kind: str) -> list[dict[str, Any]]:
    """What the run's event stream has of one kind."""
    lines = (json.loads(line) for line in (out / "events.jsonl").read_text("utf-8").splitlines())
    return [line["data"] for line in lines if line["kind"] == kind]


def switched_on(out: Path) -> tuple[set[str], dict[str, Any]]:
    """QEMU's capabilities and parameters, as it told them while it migrated."""
    modes = events(out, "modes")[-1]
    return set(modes["capabilities"]), modes["parameters"]


def last_answer(out: Path) -> dict[str, Any]:
    """QEMU's own account of the completed migration."""
    found: dict[str, Any] = {}
    for line in (out / "qmp.jsonl").read_text("utf-8").splitlines():
        answer = json.loads(line).get("return")
        if isinstance(answer, dict) and answer.get("status") == "completed":
            found = answer
    return found


def passed(ended: Ended, *, skipping: bool = True) -> Result:
    """Right, compared whole, and with pages left behind."""
    assert ended.status == 0, str(ended)
    result = ended.result
    assert result.verdict == "pass"
    assert not result.not_compared
    assert (result.pages.skipped > 0) == skipping, str(ended)
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
def test_zero_page_detection(run: Run, channels: int, zero_pages: str) -> None:
    keys = {"migration.multifd": channels, "migration.zero_pages": zero_pages, "workload.noise": "100MiB"}
    ended = run("freed", *MEMORY, *settings(keys))
    result = passed(ended)
    on, parameters = switched_on(ended.out)
    assert ("multifd" in on) == (channels > 0)
    assert parameters["zero-page-detection"] == zero_pages
    if channels:
        assert parameters["multifd-channels"] == channels
    # Nobody looks for pages of zeros, or somebody does.
    assert (result.bytes.zero_pages > 0) == (zero_pages != "none")


def test_xbzrle(run: Run) -> None:
    keys = {
        "migration.xbzrle": True,
        "workload.noise": "100MiB",
        # Pages that are sent again are what it is for.
        "migration.bandwidth": "32MiB/s",
        "migration.downtime_limit_ms": 50,
    }
    ended = run("churn", *MEMORY, *settings(keys))
    passed(ended)
    assert "xbzrle" in switched_on(ended.out)[0]
    assert last_answer(ended.out)["xbzrle-cache"]["cache-miss"] > 0


@slow
def test_auto_converge(run: Run, folder: Path) -> None:
    """A sync may come from the throttle's own timer, with requests outstanding."""
    scenario = folder / "auto-converge.yaml"
    scenario.write_text(
        "name: auto-converge\n"
        "workload: {kind: churn, noise: 100MiB, rate: 8000}\n"
        "migration: {auto_converge: true, bandwidth: 16MiB/s, downtime_limit_ms: 50}\n"
        "script: [{at: pass, number: 5, do: [{action: qmp-answers}]}]\n",
        encoding="utf-8",
    )
    ended = run(str(scenario), *MEMORY)
    passed(ended)
    assert "auto-converge" in switched_on(ended.out)[0]
    assert '"cpu-throttle-percentage"' in (ended.out / "qmp.jsonl").read_text("utf-8")


@pytest.mark.parametrize("channels", [0, pytest.param(2, marks=slow)])
def test_tls(run: Run, channels: int) -> None:
    keys = {"migration.tls": True, "migration.multifd": channels, "workload.noise": "100MiB"}
    ended = run("freed", *MEMORY, *settings(keys))
    passed(ended)
    assert switched_on(ended.out)[1]["tls-creds"]


def test_postcopy_allowed_means_that_nothing_is_asked(run: Run) -> None:
    skip_unless(demand_userfaultfd)
    keys = {
        "migration.postcopy": True,
        "expect.skipping": False,
        "expect.skipped_percent_min": "null",
        "expect.refused": "postcopy-ram is enabled: the destination could fault on a page that was skipped",
        "workload.noise": "100MiB",
    }
    ended = run("freed", *MEMORY, *settings(keys))
    result = passed(ended, skipping=False)
    assert "postcopy-ram" in switched_on(ended.out)[0]
    assert result.protocol.requests == 0


def test_several_blocks(run: Run) -> None:
    """NUMA nodes, a DIMM and the PCI hole at once: frames, offsets and blocks all differ."""
    ended = run("several-blocks", *MEMORY)
    result = passed(ended)
    compared = blocks_compared(ended.out)
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
def test_the_pci_hole(run: Run, machine: str, below_4g: str) -> None:
    keys = {
        "guest.machine": machine,
        "guest.below_4g": below_4g,
        "workload.noise": "100MiB",
        **NO_BOUNCE,
    }
    ended = run("freed", *MEMORY, *settings(keys))
    passed(ended)
    record = (ended.out / "source.record").read_bytes()
    # The block's ranges, in the record's own words: beyond the hole begins the one at 4 GiB.
    assert (b"[4294967296, " in record) == (below_4g == "248MiB")


@pytest.mark.parametrize("nodes", [pytest.param(2, marks=slow), pytest.param(3, marks=slow)])
@pytest.mark.parametrize("machine", ["pc", "q35"])
def test_numa_nodes(run: Run, machine: str, nodes: int) -> None:
    keys = {
        "guest.machine": machine,
        "guest.nodes": nodes,
        "guest.vcpus": nodes,
        "workload.noise": "100MiB",
    }
    ended = run("churn", *MEMORY, *settings(keys))
    passed(ended)
    assert {f"ram-node{node}" for node in range(nodes)} <= set(blocks_compared(ended.out))


@slow
def test_huge_pages(run: Run) -> None:
    """Dirty pages are small all the same; what was skipped of a huge page has to read zero."""
    skip_unless(demand_hugepages, 256 << 20)
    ended = run("freed", *MEMORY, *settings({"guest.hugepages": True, "workload.noise": "100MiB"}))
    passed(ended)
    assert '"hugetlb":true' in (ended.out / "source.command").read_text("utf-8")


@pytest.mark.parametrize("workload", ["freed", pytest.param("churn", marks=slow)])
def test_a_nic_writes_into_memory(run: Run, workload: str) -> None:
    keys = {"guest.traffic": True, "workload.noise": "100MiB"}
    ended = run(workload, *MEMORY, *settings(keys))
    passed(ended)
