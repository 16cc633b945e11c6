# SPDX-License-Identifier: GPL-2.0-or-later
"""How KVM logs writes: what libvirt, QEMU and its loader are told, and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from harness.errors import InputError
from harness.events import EventStream
from harness.guest.dirty_log import RING_ENTRIES, DirtyLog
from harness.scenario.guest import Guest
from harness.scenario.load import Scenario
from harness.scenario.resolve import MachineFacts, resolve
from harness.toolchain.cache import Cache
from harness.toolchain.preload import HIDDEN, no_manual_protect

PLENTY = 64 << 30


def features(log: DirtyLog) -> str:
    element = ET.Element("features")
    log.add_features(element)
    return ET.tostring(element, encoding="unicode")


def test_the_bitmap_is_what_qemu_takes_by_itself() -> None:
    log = DirtyLog()
    assert features(log) == "<features />"
    assert not list(log.arguments())
    assert not log.environment()


def test_the_ring_is_libvirts_word() -> None:
    assert f'<dirty-ring state="on" size="{RING_ENTRIES}" />' in features(DirtyLog("ring"))


def test_the_library_is_loaded_only_where_it_hides_something() -> None:
    library = Path("/x/lib.so")
    assert DirtyLog("bitmap-without-manual-protect", preload=library).environment() == {
        "LD_PRELOAD": "/x/lib.so"
    }
    assert not DirtyLog("ring", preload=library).environment()


def test_the_chunk_of_a_clear_is_a_global_of_the_migrations() -> None:
    assert list(DirtyLog(clear_bitmap_shift=6).arguments()) == ["-global", "migration.x-clear-bitmap-shift=6"]


@pytest.mark.parametrize("kind", ["ring", "bitmap-without-manual-protect"])
def test_kvms_ways_are_refused_where_the_guest_is_emulated(kind: str) -> None:
    scenario = Scenario(name="x", guest=Guest.model_validate({"kvm_dirty": kind}))
    assert resolve(scenario, MachineFacts(PLENTY, kvm_usable=True)).accelerator == "kvm"
    with pytest.raises(InputError, match="kvm_dirty") as caught:
        resolve(scenario, MachineFacts(PLENTY, kvm_usable=False))
    assert "--nested" in str(caught.value.hint)


def test_so_is_a_nic_that_the_kernel_serves() -> None:
    scenario = Scenario(name="x", guest=Guest(vhost=True))
    assert resolve(scenario, MachineFacts(PLENTY, kvm_usable=True)).accelerator == "kvm"
    with pytest.raises(InputError, match=r"guest\.vhost") as caught:
        resolve(scenario, MachineFacts(PLENTY, kvm_usable=False))
    assert "--nested" in str(caught.value.hint)


#: KVM_CHECK_EXTENSION, and two of its questions.
_ASK = """
import fcntl, os
descriptor = os.open("/dev/null", os.O_RDWR)
for question in (168, 7):
    try:
        print(fcntl.ioctl(descriptor, 0xAE03, question))
    except OSError:
        print("asked")
"""


def test_the_library_hides_manual_protection_and_nothing_else(tmp_path: Path, repository: Path) -> None:
    source = repository / "vm-images" / "host" / "no_manual_protect.c"
    library = no_manual_protect(Cache(tmp_path, EventStream()), source)
    environment = {**os.environ, "LD_PRELOAD": str(library)}
    command = [sys.executable, "-c", _ASK]
    with_it = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    without = subprocess.run(command, capture_output=True, text=True, check=True)
    # /dev/null knows no such question: who asks it gets an error.
    assert without.stdout.split() == ["asked", "asked"]
    assert with_it.stdout.split() == ["0", "asked"]
    assert HIDDEN in with_it.stderr
    assert not without.stderr
