# SPDX-License-Identifier: GPL-2.0-or-later
"""Which kernels Debian's archive has: of each suite and series the earliest and the latest.

A stable series changes in the middle: what a driver may use has come with 6.1.160, say.  So a module that
builds for the latest kernel of a series need not build for the one that somebody still runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from harness.arch import GUEST
from harness.toolchain.cache import Cache
from harness.toolchain.debian_archive import DebianArchive
from harness.toolchain.debian_kernel import debian_kernel
from harness.toolchain.kernel import Kernel

#: The suites, and those whose programs their modules are built with (None: the machine's own).
_SUITES: Final[dict[str, str | None]] = {
    "bookworm": None,
    "bookworm-backports": None,
    "trixie": "trixie",
    "trixie-backports": "trixie",
}
_HEADERS: Final = "linux-headers-"


@dataclass(frozen=True, slots=True)
class ArchivedKernel:
    """A kernel that a suite has at present."""

    suite: str
    release: str

    def get(self, cache: Cache) -> Kernel:
        """The kernel, fetched if need be."""
        return debian_kernel(cache, self.suite, f"linux-image-{self.release}", _SUITES[self.suite])


def archived_kernels(cache: Cache) -> Iterator[ArchivedKernel]:
    """Cloud kernels for :data:`harness.arch.GUEST`: of each suite and series the earliest and the latest."""
    seen: set[str] = set()
    for suite in _SUITES:
        names = DebianArchive(cache, suite, GUEST).names(_HEADERS)
        for release in first_and_last(name.removeprefix(_HEADERS) for name in names):
            if release not in seen:
                seen.add(release)
                yield ArchivedKernel(suite, release)


def first_and_last(releases: Iterator[str]) -> Iterator[str]:
    """Of these releases the cloud kernels, and of those the first and the last of each series."""
    ours = re.compile(rf"[0-9].*-cloud-{re.escape(GUEST.debian)}")
    found = sorted((release for release in releases if ours.fullmatch(release)), key=_version)
    for _, series in groupby(found, key=lambda release: _version(release)[:2]):
        members = list(series)
        yield from dict.fromkeys((members[0], members[-1]))


def _version(release: str) -> tuple[int, ...]:
    """Its numbers: ``6.12.107+deb13-cloud-amd64`` is (6, 12, 107), ``6.1.0-47-cloud-amd64`` (6, 1, 0, 47)."""
    numbers = re.match(r"[0-9]+(?:[.-][0-9]+)*", release)
    return tuple(int(number) for number in re.split(r"[.-]", numbers[0])) if numbers else ()
