# SPDX-License-Identifier: GPL-2.0-or-later
"""Modules that a scenario names for the guest's kernel."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from harness.errors import InputError
from harness.plan.device_facts import own_modules
from harness.scenario.load import load_scenario

if TYPE_CHECKING:
    from harness.toolchain import Kernel

KERNEL = cast(
    "Kernel",
    SimpleNamespace(
        release="6.1",
        module_files=lambda: {"igb": Path("igb.ko"), "ipmi_si": Path("ipmi_si.ko")},
        builtin=lambda: {"virtio_pci"},
    ),
)


@pytest.mark.parametrize("text", ["[igb]", "[ipmi-si, virtio_pci]", "[]"])
def test_those_that_the_kernel_has_are_taken(text: str) -> None:
    scenario = load_scenario("idle", [f"guest.modules={text}"])
    names = own_modules(scenario, KERNEL, distribution=False)
    assert "-" not in "".join(names)
    assert len(names) == text.count(",") + (text != "[]")


def test_another_one_is_refused_at_its_place(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("name: x\nguest:\n  modules: [igb, nosuch]\n")
    with pytest.raises(InputError, match=r"x\.yaml:3:18: guest\.modules\[1\]: .* 6\.1 has no module nosuch"):
        own_modules(load_scenario(str(path)), KERNEL, distribution=False)


def test_a_distribution_has_modprobe() -> None:
    scenario = load_scenario("idle", ["guest.modules=[igb]"])
    with pytest.raises(InputError, match="a distribution loads its modules by itself"):
        own_modules(scenario, KERNEL, distribution=True)


@pytest.mark.parametrize("name", ["../x", "a b", "X", ""])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"guest\.modules"):
        load_scenario("idle", [f'guest.modules=["{name}"]'])
