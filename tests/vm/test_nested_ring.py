# SPDX-License-Identifier: GPL-2.0-or-later
"""KVM's dirty ring: what QEMU must not have on beside it, and a vCPU that comes while it is emptied."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from harness.faults.catalogue import SCENARIOS
from harness.testing import Freepage
from harness.toolchain import Toolchain
from tests.vm.test_nested import LONGEST, nested

PRELOAD = Path(__file__).parent / "support" / "ring_initially_set.c"

RING = """\
name: ring
arm: "off"
guest: {memory: 192MiB, kvm_dirty: ring}
workload: {kind: churn, noise: 64MiB}
migration: {bandwidth: 32MiB/s}
"""

#: A bug of QEMU's (docs/found.md).  It is told by its own words, whatever the guest does.
RATE = """\
name: rate-plugged
arm: "off"
guest: {memory: 192MiB, kvm_dirty: ring, topology: {cores: 4}}
workload: {kind: idle}
expect: {verdict: fail, rule: qemu-crashed}
script:
- at: start
  do:
  - {action: qmp, command: calc-dirty-rate, arguments: {calc-time: 20, mode: dirty-ring}}
  - {action: vcpu-add, count: 3}
  - {action: await-answer, command: query-dirty-rate, answer: {status: measured}, within_s: 600}
"""

pytestmark = [pytest.mark.timeout(LONGEST), pytest.mark.slow]


@pytest.fixture
def freepage(freepage: Freepage) -> Freepage:
    """The scenarios decide about all that is not said."""
    return freepage.without_defaults()


def test_a_ring_without_initially_set_protection_is_right(freepage: Freepage, folder: Path) -> None:
    scenario = folder / "ring.yaml"
    scenario.write_text(RING)
    right = nested(freepage, str(scenario)).end()
    assert right.result.verdict == "pass", str(right)


def test_a_ring_with_protection_that_is_initially_set_loses_writes(freepage: Freepage, folder: Path) -> None:
    scenario, library, wrapper = folder / "ring.yaml", folder / "both.so", folder / "qemu"
    scenario.write_text(RING)
    qemu = Toolchain().qemu_for("off").path
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-O2", "-Wall", "-D_GNU_SOURCE", "-o", library, PRELOAD, "-ldl"],
        check=True,
    )
    wrapper.write_text(f'#!/bin/sh\nLD_PRELOAD={library} exec {qemu} "$@"\n')
    wrapper.chmod(0o755)
    wrong = nested(freepage, str(scenario), "--qemu", str(wrapper)).end()
    assert wrong.exit_code == 1, str(wrong)
    assert wrong.result.verdict == "fail", str(wrong)
    assert "differs-though-sent" in [finding.rule for finding in wrong.result.findings]


@pytest.mark.parametrize("fault", [None, "ring-vcpu-not-made"])
def test_a_vcpu_is_made_while_rings_are_emptied(freepage: Freepage, fault: str | None) -> None:
    scenario = str(SCENARIOS / "ring-plugged.yaml")
    ended = nested(freepage, scenario, *(() if fault is None else ("--fault", fault))).end()
    if fault is None:
        assert ended.result.verdict == "pass", str(ended)
        return
    assert ended.result.verdict == "fail", str(ended)
    assert [finding.rule for finding in ended.result.findings] == ["qemu-crashed"]
    assert "kvm_dirty_ring_reap_one" in ended.result.reason


def test_a_rate_that_is_taken_while_a_vcpu_comes_ends_qemu(freepage: Freepage, folder: Path) -> None:
    """As long as it does: with a QEMU that is mended this passes, and the test says so."""
    scenario = folder / "rate.yaml"
    scenario.write_text(RATE)
    ended = nested(freepage, str(scenario)).end()
    assert ended.exit_code == 0, str(ended)
    assert "memory_global_dirty_log_do_stop" in ended.result.reason
