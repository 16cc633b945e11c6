# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that goes by way of a file, as far as it needs no guest: what is refused, what is done to files."""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydantic import ValidationError

from harness.errors import InputError
from harness.events import EventStream
from harness.memory.qemu_ram import read_block
from harness.migration.modes import NO_LIMIT, Modes
from harness.plan.saving import demand_direct_io, demand_saving
from harness.run.saved import waits_for_a_stream
from harness.run.saved.qmp_stream import TO_FILE, capabilities_of, parameters_of
from harness.run.saved.state_file import StateFile
from harness.run.saved.stream import flaw_of
from harness.run.saved.used_memory import USED, fill
from harness.scenario.load import Migration, load_scenario
from harness.scenario.saved_file import SavedFile
from harness.units import PAGE_SIZE, Percent
from harness.verdict.outcome import MigrationOutcome, QemuAccount, outcome_findings
from tests.unit.test_migstream import SOUND

REMOTE = "{source: {uri: 'qemu+ssh://root@one/system'}, destination: {uri: 'qemu+ssh://root@two/system'}}"
MAPPED = ["migration.to=file", "migration.mapped_ram=true"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["migration.mapped_ram=true"], "migration.mapped_ram: goes only together with migration.to: file"),
        (["migration.file.keep=true"], "migration.file: goes only together with migration.to: file"),
        (["migration.to=save", "migration.multifd=2"], "does not go together with migration.to: save"),
        (
            ["migration.to=savevm", "migration.mapped_ram=true"],
            "does not go together with migration.to: savevm",
        ),
        (["migration.to=file", "migration.tls=true"], "does not go together with migration.to: file"),
        (["migration.to=file", "migration.multifd=2"], "only together with migration.mapped_ram"),
        (
            ["migration.to=file", "migration.mapped_ram=true", "migration.direct_io=true"],
            "mapped_ram and multifd",
        ),
        ([*MAPPED, "migration.xbzrle=true"], "migration.xbzrle"),
        (["migration.to=file", "migration.file.compression=gzip"], "migration.file.compression"),
        (["migration.to=save", "migration.file.cut_to=50%"], "the guest would be nowhere"),
        (
            ["migration.to=file", "migration.file.used_memory=true", "arm=hint"],
            "expected arm: off or info",
        ),
        (
            ["migration.to=background-snapshot", "arm=off", "guest.image=debian", "guest.memory=1GiB"],
            "in no background snapshot",
        ),
        (["migration.to=file", f"remote={REMOTE}"], "a folder that both hosts see"),
        (
            [
                "migration.to=background-snapshot",
                "script=[{at: active, do: [{action: pages-alloc, pages: 5}]}]",
            ],
            "expected start or resumed",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_words(settings: list[str], words: str) -> None:
    with pytest.raises(InputError) as caught:
        load_scenario("idle", settings)
    assert words in str(caught.value)


def test_the_scenarios_that_ship() -> None:
    ways = {
        name: load_scenario(name).migration.to
        for name in ("to-file", "mapped-ram", "virsh-save", "snapshot", "background-snapshot")
    }
    assert list(ways.values()) == ["file", "file", "save", "savevm", "background-snapshot"]
    assert [waits_for_a_stream(way) for way in dict.fromkeys(ways.values())] == [True, False, False, True]
    assert not waits_for_a_stream("host")


def test_both_qemus_are_told_the_same() -> None:
    how = Migration(to="file", mapped_ram=True, multifd=3, direct_io=True)
    modes = Modes.of(how)
    assert capabilities_of(modes, TO_FILE) == (*TO_FILE, "mapped-ram", "multifd")
    told = {"direct-io": True, "multifd-channels": 3, "max-bandwidth": NO_LIMIT}
    assert parameters_of(modes) == told


def test_a_file_is_cut_off_in_a_copy(tmp_path: Path) -> None:
    file = StateFile("file", tmp_path / "state", SavedFile(cut_to=Percent(Decimal(25))), EventStream())
    file.begun()
    file.path.write_bytes(bytes(1000))
    file.written()
    assert file.facts.bytes == 1000
    cut = file.to_restore()
    assert cut.stat().st_size == 250
    assert file.path.stat().st_size == 1000
    assert "250 of 1000 bytes" in file.facts.spoilt
    file.remove()
    assert list(tmp_path.iterdir()) == []


def test_used_memory_is_all_of_a_block() -> None:
    memory = (ctypes.c_char * (3 << 20))()
    address = ctypes.addressof(memory)
    block = SimpleNamespace(name="ram", used=(2 << 20) + 4096, address=address)
    assert fill(os.getpid(), [block]) == block.used
    assert set(memory.raw[: block.used]) == {USED}
    assert set(memory.raw[block.used :]) == {0}


def test_a_page_that_nobody_has_touched_is_not_touched_by_a_look_at_it() -> None:
    """Else it would be in the page table, and protected, whatever QEMU does about it."""
    pages = mmap.mmap(-1, 8 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    pages.madvise(mmap.MADV_NOHUGEPAGE)
    pages[5 * PAGE_SIZE] = 7
    pages[(8 << 20) - 1] = 9
    address = ctypes.addressof(ctypes.c_char.from_buffer(pages))
    block = SimpleNamespace(name="ram", used=8 << 20, address=address)

    def touched() -> int:
        with Path("/proc/self/pagemap").open("rb", buffering=0) as file:
            entries = os.pread(file.fileno(), 8 * 2048, address // PAGE_SIZE * 8)
        return sum(entry >> 62 != 0 for (entry,) in struct.iter_unpack("<Q", entries))

    assert touched() == 2
    content = read_block(os.getpid(), block)
    assert touched() == 2
    assert content == pages[:]


def test_what_is_not_there_is_said_before_anything_is_built(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file"):
        demand_saving(Migration(to="file", file=SavedFile(instead=str(tmp_path / "none"))))
    demand_direct_io(tmp_path / "not" / "yet")


def test_a_source_that_goes_on_after_its_file_was_of_no_use_is_no_finding() -> None:
    """For QEMU it had completed; the file was refused, and the guest goes on."""
    source = QemuAccount("source", ("completed",), ((0.0, 1.0), (2.0, None)), completed=1.5)
    destination = QemuAccount("destination", ("failed",))
    outcome = MigrationOutcome(source, destination, moved=False, by_file=True)
    assert outcome.ending == "failed"
    assert outcome_findings(outcome) == []
    without = MigrationOutcome(source, destination, moved=False)
    assert {one.rule for one in outcome_findings(without)} == {"two-run", "status-disagrees"}


def test_a_share_and_a_size_are_both_a_place_to_cut() -> None:
    with pytest.raises(ValidationError):
        SavedFile.model_validate({"cut_to": -1})
    assert SavedFile.model_validate({"cut_to": "64MiB"}).cut_to == 64 << 20


def test_a_file_that_qemu_has_not_written_to_its_end_has_a_flaw(tmp_path: Path) -> None:
    file = tmp_path / "guest.state"
    file.write_bytes(SOUND)
    assert flaw_of(file) is None
    for size in (0, 7, len(SOUND) // 2, len(SOUND) - 1):
        file.write_bytes(SOUND[:size])
        assert "the stream ends" in str(flaw_of(file)), size


def test_a_file_that_is_no_stream_at_all_has_one(tmp_path: Path) -> None:
    file = tmp_path / "guest.state"
    file.write_bytes(b"LibvirtQemudSave")
    assert "no migration stream" in str(flaw_of(file))
