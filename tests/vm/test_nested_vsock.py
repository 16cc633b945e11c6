# SPDX-License-Identifier: GPL-2.0-or-later
"""vsock, which the host's kernel serves: in a nested machine, whose kernel has it."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.testing import Freepage
from tests.vm.test_nested import LONGEST, nested

pytestmark = [pytest.mark.timeout(LONGEST), pytest.mark.slow]


def test_a_guest_is_called_by_its_context_id_on_both_hosts(freepage: Freepage, folder: Path) -> None:
    scenario = folder / "vsock.yaml"
    scenario.write_text('name: vsock\narm: "off"\nguest: {memory: 192MiB, devices: [{device: vsock}]}\n')
    ended = nested(freepage.without_defaults(), str(scenario)).end()
    assert ended.exit_code == 0, str(ended)
    (vsock,) = ended.result.liveness
    assert vsock.device == "vsock" and vsock.answers, vsock
