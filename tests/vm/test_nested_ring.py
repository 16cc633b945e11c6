# SPDX-License-Identifier: GPL-2.0-or-later
"""KVM's dirty ring: what QEMU must not have on beside it, and a vCPU that comes while it is emptied."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from harness.testing import Freepage
from tests.vm.test_nested import LONGEST, nested

PRELOAD = Path(__file__).parent / "support" / "ring_initially_set.c"

RING = """\
name: ring
arm: "off"
guest: {memory: 192MiB, kvm_dirty: ring}
workload: {kind: churn, noise: 64MiB}
migration: {bandwidth: 32MiB/s}
"""

#: Logging is on as long as the rate is taken, and each vCPU whose ring is full has all of them emptied:
#: also that of one which is being made, and has none yet.
PLUGGED = """\
name: ring-plugged
arm: "off"
guest: {memory: 256MiB, kvm_dirty: ring, topology: {cores: 4}}
workload: {kind: churn, noise: 100MiB}
migration: {bandwidth: 128MiB/s}
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


def test_a_ring_with_protection_that_is_initially_set_loses_writes(freepage: Freepage, folder: Path) -> None:
    scenario, library, wrapper = folder / "ring.yaml", folder / "both.so", folder / "qemu"
    scenario.write_text(RING)
    right = nested(freepage, str(scenario)).end()
    assert right.result.verdict == "pass", str(right)
    qemu = right.result.versions["source_qemu"]["path"]
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-O2", "-Wall", "-D_GNU_SOURCE", "-o", library, PRELOAD, "-ldl"],
        check=True,
    )
    wrapper.write_text(f'#!/bin/sh\nLD_PRELOAD={library} exec {qemu} "$@"\n')
    wrapper.chmod(0o755)
    wrong = nested(freepage, str(scenario), "--qemu", str(wrapper)).end()
    assert wrong.result.verdict == "fail", str(wrong)
    assert "differs-though-sent" in [finding.rule for finding in wrong.result.findings]


def test_vcpus_are_plugged_in_while_rings_are_emptied(freepage: Freepage, folder: Path) -> None:
    scenario = folder / "plugged.yaml"
    scenario.write_text(PLUGGED)
    ended = nested(freepage, str(scenario)).end()
    assert ended.result.verdict == "pass", str(ended)
    (rate,) = [one for one in ended.result.qmp if one.command == "query-dirty-rate"]
    assert isinstance(rate.answer, dict)
    assert rate.answer["mode"] == "dirty-ring" and rate.answer["dirty-rate"] > 0
