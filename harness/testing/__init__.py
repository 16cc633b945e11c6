# SPDX-License-Identifier: GPL-2.0-or-later
"""For whoever writes tests of their own QEMU, kernel or libvirt: a pytest plugin.

    def test_my_device_survives(freepage):
        run = freepage.run("freed", memory="512MiB", set={"guest.machine": "q35"})
        assert run.verdict == "pass"
        assert run.result.pages.skipped

Where the package is installed, pytest has the fixtures; nothing is imported or
configured.  docs/testing.md is the manual.
"""

from __future__ import annotations

from harness.testing.command import Freepage, Running
from harness.testing.options import RunOptions
from harness.testing.outcome import Ending, NoVerdict, Run, WrongInput

__all__ = ["Ending", "Freepage", "NoVerdict", "Run", "RunOptions", "Running", "WrongInput"]
