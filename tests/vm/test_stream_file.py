# SPDX-License-Identifier: GPL-2.0-or-later
"""``freepage stream``: what QEMU has saved, read without QEMU, is what the guest's memory holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from harness.migstream.account import read_stream
from harness.testing.agent_guest import ModuleGuest, Setup
from harness.testing.plain_guest import MIB
from harness.toolchain import QemuBinary, Toolchain

MEMORY = 256 * MIB
#: How the stream is written: capabilities that make another form of it.
FORMS: Mapping[str, tuple[str, ...]] = {"plain": (), "xbzrle": ("xbzrle",), "mapped-ram": ("mapped-ram",)}


@pytest.fixture(scope="module")
def guest(toolchain: Toolchain, qemu: QemuBinary, results: Path) -> Iterator[ModuleGuest]:
    folder = results / "streams"
    folder.mkdir()
    setup = Setup(toolchain, qemu, toolchain.kernel(), memory=MEMORY, device=())
    with ModuleGuest.boot(setup, folder) as guest:
        guest.call("load", "churn", 1, 100 * MIB)
        yield guest


@pytest.mark.parametrize("form", FORMS)
def test_a_stream_is_the_memory(guest: ModuleGuest, folder: Path, form: str) -> None:
    file = folder / "stream"
    names = FORMS[form]
    _capabilities(guest, names, state=True)
    try:
        # Slow enough for pages to come more than once: the guest writes meanwhile.
        guest.set_bandwidth(40 * MIB)
        guest.monitor.execute("migrate", {"uri": f"file:{file}"})
        assert guest.wait_for_migration("completed", "failed") == "completed"
        with file.open("rb") as reading:
            account = read_stream(reading)
        memory = (guest.plain.folder / "m0").read_bytes()
    finally:
        _capabilities(guest, names, state=False)
        guest.go_on()
    assert account.memory["m0"][:] == memory
    block = account.blocks["m0"]
    assert block.full + block.zero > 0
    assert (block.delta > 0) == (form == "xbzrle")
    if form != "mapped-ram":
        assert block.sent_pages == block.pages
        assert block.sent_again > 0
    assert "timer" in {device.name for device in account.contents.devices}
    assert account.contents.description is not None
    file.unlink()


def _capabilities(guest: ModuleGuest, names: tuple[str, ...], *, state: bool) -> None:
    wanted = [{"capability": name, "state": state} for name in names]
    if wanted:
        guest.monitor.execute("migrate-set-capabilities", {"capabilities": wanted})
