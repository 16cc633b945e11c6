# SPDX-License-Identifier: GPL-2.0-or-later
"""Requests of a virtio disk that wait: QEMU turns their list around, and must do nothing else to it."""

from __future__ import annotations

import pytest

from harness.devicestate.requests import are_turned_around

SIZE = 49168


def saved(*numbers: int, around: bytes = b"\1", behind: bytes = b"") -> bytes:
    """As virtio_blk_save_device() has them."""
    return b"".join(around + bytes([one]) * SIZE + behind for one in numbers) + b"\0"


@pytest.mark.parametrize(
    ("around", "behind"),
    [(b"\1", b""), (b"\1\0\0\0\2", b""), (b"\1", b"\0\0\0\3")],
    ids=["one", "mq", "packed"],
)
def test_a_list_that_is_turned_around(around: bytes, behind: bytes) -> None:
    here = saved(7, 5, 2, around=around, behind=behind)
    assert are_turned_around(here, saved(2, 5, 7, around=around, behind=behind))
    assert not are_turned_around(here, here)


def test_a_request_that_is_lost_or_another_is_wrong() -> None:
    assert not are_turned_around(saved(7, 5), saved(5))
    assert not are_turned_around(saved(7, 5), saved(5, 6))
    assert not are_turned_around(saved(7, 5), saved(5, 7)[:-1] + b"\1")
