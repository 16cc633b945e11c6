# SPDX-License-Identifier: GPL-2.0-or-later
"""What a failure and an error look like: both of these are meant to go wrong."""


def test_all_is_left_behind(freepage):
    run = freepage.run("freed", memory="256MiB", set={"workload.noise": "120MiB"})
    assert run.result.pages.skipped_percent > 90


def test_a_guest_that_panics(freepage):
    freepage.run("idle", memory="256MiB", set={"guest.cmdline": "mem=40M"})
