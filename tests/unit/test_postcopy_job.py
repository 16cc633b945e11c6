# SPDX-License-Identifier: GPL-2.0-or-later
"""libvirt's migration to postcopy: a connection that breaks is no end, and is mended by another call."""

from __future__ import annotations

from typing import Any

import libvirt
import pytest

from harness.errors import MachineryError
from harness.events import Deadline
from harness.migration.inbox import Inbox, JobEnd
from harness.migration.postcopy_job import PostcopyJob

BROKEN = [libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY_FAILED]
RUNS = [libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_BOOTED]
RESUME = libvirt.VIR_MIGRATE_POSTCOPY_RESUME
MOVED = object()


class FailedError(libvirt.libvirtError):  # type: ignore[misc]
    def __init__(self, code: int) -> None:
        super().__init__("failed")
        self.code = code

    def get_error_code(self) -> int:
        return self.code


class PostcopyDomain:
    """``ends``: how each call of migrate3 ends, one after the other."""

    def __init__(self, ends: list[int | None], state: list[int]) -> None:
        self.ends, self.now, self.flags = ends, state, list[int]()

    def UUID(self) -> bytes:  # noqa: N802 - libvirt's name
        return b""

    def lookupByUUID(self, _: bytes) -> PostcopyDomain:  # noqa: N802 - libvirt's name
        return self

    def migrate3(self, *arguments: Any) -> object:
        self.flags.append(arguments[2])
        code = self.ends.pop(0)
        if code is not None:
            raise FailedError(code)
        return MOVED

    def state(self) -> list[int]:
        return self.now

    def abortJob(self) -> None:  # noqa: N802 - libvirt's name
        raise FailedError(libvirt.VIR_ERR_OPERATION_INVALID)


class PostcopyRequest:
    def flags(self) -> int:
        return int(libvirt.VIR_MIGRATE_POSTCOPY)

    def parameters(self) -> dict[str, object]:
        return {}


class NoGate:
    def release(self) -> None:
        pass


def job_of(ends: list[int | None], state: list[int]) -> tuple[PostcopyJob, Inbox, PostcopyDomain]:
    domain, inbox, anything = PostcopyDomain(ends, state), Inbox(), PostcopyRequest()
    arguments: tuple[Any, ...] = (domain, domain, None, anything, inbox, NoGate())
    return PostcopyJob(*arguments), inbox, domain


def end(inbox: Inbox) -> JobEnd:
    item = inbox.get(Deadline(10, "the end"))
    assert isinstance(item, JobEnd)
    return item


def test_it_goes_on_by_the_same_call() -> None:
    failed = libvirt.VIR_ERR_OPERATION_FAILED
    job, inbox, domain = job_of([failed, failed, None], BROKEN)
    job.begin()
    job.recover(Deadline(10, "the recovery"))
    job.recover(Deadline(10, "the recovery"))
    assert end(inbox).domain is MOVED
    post = libvirt.VIR_MIGRATE_POSTCOPY
    assert domain.flags == [post, post | RESUME, post | RESUME]
    with pytest.raises(MachineryError, match=r"has not noticed within 0\.1 s"):
        job.recover(Deadline(0.1, "the recovery"))


@pytest.mark.parametrize(
    ("code", "state"),
    [(libvirt.VIR_ERR_OPERATION_FAILED, RUNS), (libvirt.VIR_ERR_OPERATION_INVALID, BROKEN)],
    ids=["the guest goes on where it was", "libvirt refuses the call"],
)
def test_what_cannot_be_mended_is_the_end(code: int, state: list[int]) -> None:
    job, inbox, _ = job_of([code], state)
    job.begin()
    assert end(inbox).error is not None


def test_one_that_nobody_mends_can_be_given_up() -> None:
    job, inbox, _ = job_of([libvirt.VIR_ERR_OPERATION_ABORTED, None], BROKEN)
    job.begin()
    assert job._broken.wait(10)
    job.cancel(inbox)
    job.gone()
    assert end(inbox).error is not None
