# SPDX-License-Identifier: GPL-2.0-or-later
"""What somebody checks of a QEMU of their own: pytest --freepage-qemu PATH."""

import pytest

#: Small guests, emulated or not.
SMALL = {"memory": "256MiB", "set": {"workload.noise": "120MiB"}}


def test_freed_pages_stay_behind(freepage):
    run = freepage.run("freed", arm="info", **SMALL)
    assert run.verdict == "pass"
    assert run.result.pages.skipped > 10_000


@pytest.mark.freepage(machine=["pc", "q35"])
def test_every_page_arrives(freepage):
    assert freepage.run("idle", arm="off", memory="256MiB").verdict == "pass"


def test_a_session_survives(lab):
    guest = lab.boot("idle", memory="256MiB")
    guest.shell("echo kept > /run/mark")
    with guest.migration() as migration:
        migration.begin(hold=["request"])
        with migration.held("request"):
            # The guest stands still, and its QEMU says so.
            assert migration.monitor("source").execute("query-status")["running"] is False
        migration.switch_over()
        assert migration.judge().verdict == "pass"
        migration.resume()
    assert guest.shell("cat /run/mark") == "kept\n"
