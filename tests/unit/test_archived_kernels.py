# SPDX-License-Identifier: GPL-2.0-or-later
"""Every kernel at hand: which of Debian's are taken, and that one that fails keeps none of the others."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from harness.arch import GUEST
from harness.errors import MachineryError
from harness.toolchain import Kernel, Toolchain, build_all
from harness.toolchain.archived_kernels import first_and_last


def test_the_first_and_the_last_kernel_of_each_series() -> None:
    mine = f"cloud-{GUEST.debian}"
    releases = [
        *(f"6.12.{number}+deb13-{mine}" for number in (107, 9, 117)),
        *(f"6.1.0-{number}-{mine}" for number in (50, 47, 9)),
        f"7.3.4+deb13-{mine}",
        f"6.1.0-51-rt-{GUEST.debian}",
        f"6.12.200+deb13-{GUEST.debian}",
        "6.12.117+deb13-common",
        f"cloud-{GUEST.debian}",
    ]
    assert list(first_and_last(iter(releases))) == [
        f"6.1.0-9-{mine}",
        f"6.1.0-50-{mine}",
        f"6.12.9+deb13-{mine}",
        f"6.12.117+deb13-{mine}",
        f"7.3.4+deb13-{mine}",
    ]


def kernel(release: str) -> Kernel:
    return Kernel(Path("vmlinuz"), release, None, None, release)


def test_each_kernel_is_built_for_once_and_one_that_fails_keeps_none_of_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    archived = [
        SimpleNamespace(suite="old", release=name, get=lambda _, name=name: kernel(name)) for name in "abc"
    ]
    monkeypatch.setattr("harness.toolchain.toolchain.archived_kernels", lambda _: archived)

    def module(of: Kernel) -> Path:
        if of.release == "b":
            raise MachineryError("cannot build the module for b: make failed\n  | and why")
        return Path(of.release)

    toolchain = SimpleNamespace(
        cache=None, kernel_names=lambda: ("default",), kernel=lambda _: kernel("a"), module=module
    )
    built = build_all(cast("Toolchain", toolchain), ["module"], kernel="all")
    assert [(one.part, one.detail, one.path) for one in built] == [
        ("module", "for a", Path("a")),
        ("module", "for old b", None),
        ("module", "for c", Path("c")),
    ]
    assert [one.failure.message.split(":")[0] for one in built if one.failure] == [
        "cannot build the module for b"
    ]
