# SPDX-License-Identifier: GPL-2.0-or-later
"""For whoever writes tests of their own QEMU, kernel or libvirt: a pytest plugin.

    def test_my_device_survives(freepage):
        run = freepage.run("freed", memory="512MiB", set={"guest.machine": "q35"})
        assert run.verdict == "pass"
        assert run.result.pages.skipped

    def test_by_hand(lab):
        guest = lab.boot("idle", memory="256MiB")
        with guest.migration() as migration:
            migration.run()
            migration.resume()
        assert guest.shell("cat /proc/meminfo")

Where the package is installed, pytest has the fixtures; nothing is imported or
configured.  docs/testing.md is the manual.  The names here are for annotations:

========================= ==========================================================
``Freepage``              the fixture ``freepage``: the command, started by the test
``Run``                   a run that has come to a verdict
``Running``, ``Ending``   a command that runs, and how it ended
``LabFixture``            the fixture ``lab``
``LabGuest``              a guest in the test's hands
``GuidedMigration``       its migration, step by step
``NoVerdict``             a guest or a host was lost: the test is an error
``WrongInput``            the command does not take what the test asks for
========================= ==========================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.testing.command import Freepage, Running
from harness.testing.lab import LabFixture
from harness.testing.options import RunOptions
from harness.testing.outcome import Ending, NoVerdict, Run, WrongInput

if TYPE_CHECKING:
    from harness.testing.guest import LabGuest
    from harness.testing.migration import GuidedMigration

__all__ = [
    "Ending",
    "Freepage",
    "GuidedMigration",
    "LabFixture",
    "LabGuest",
    "NoVerdict",
    "Run",
    "RunOptions",
    "Running",
    "WrongInput",
]


def __getattr__(name: str) -> object:
    """The heavy ones are imported by the tests that name them."""
    if name == "LabGuest":
        from harness.testing.guest import LabGuest

        return LabGuest
    if name == "GuidedMigration":
        from harness.testing.migration import GuidedMigration

        return GuidedMigration
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
