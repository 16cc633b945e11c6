# SPDX-License-Identifier: GPL-2.0-or-later
"""Several NICs: each carries datagrams and is announced on its new host, and what does not is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.testing import Freepage


@pytest.mark.slow
def test_each_of_several_nics_arrives(freepage: Freepage) -> None:
    run = freepage.run("several-nics")
    assert run.verdict == "pass", run
    assert [(one.device, one.answers) for one in run.result.liveness] == [("nic", True)] * 3
    assert "queue 1 carries datagrams" in run.result.liveness[0].did[0]
    assert run.result.devices is not None and run.result.devices.compared > 30


@pytest.mark.slow
def test_a_nic_that_is_not_announced_and_one_that_has_a_link_it_should_not_have(
    freepage: Freepage, folder: Path
) -> None:
    path = folder / "wrong.yaml"
    path.write_text(
        "name: wrong\narm: off\nguest: {memory: 192MiB, nics: [{}, {}]}\n"
        "expect: {verdict: fail, rule: device-wrong}\n"
        "script:\n- at: active\n  do:\n"
        "  - {action: qmp, side: destination, command: migrate-set-parameters,"
        " arguments: {announce-rounds: 0}}\n"
        "  - {action: nic-down, nic: 1}\n"
        "  - {action: qmp, command: set_link, arguments: {name: ua-net1, up: true}}\n"
    )
    run = freepage.run(path)
    assert [(one.rule, one.text) for one in run.result.findings] == [
        ("device-wrong", "nic: the destination's QEMU has not announced it to its network (RARP)"),
        ("device-wrong", "nic 1: on the destination it has a link, and a script had taken it down"),
    ]
