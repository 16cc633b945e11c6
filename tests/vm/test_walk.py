# SPDX-License-Identifier: GPL-2.0-or-later
"""The outside walk of real kernels, held against what others say: makedumpfile, the guest, our module."""

from __future__ import annotations

import json
import queue
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from harness.errors import MachineryError
from harness.memory.image import Flags
from harness.memory.record import read_record
from harness.memory.walk import (
    FreeWalk,
    PageStanding,
    compare_witnesses,
    find_kernel,
    judge_reported,
    to_frames,
    walk_memory,
)
from harness.migration.qmp import QmpEvent
from harness.testing.plain_guest import PlainGuest, PlainMachine, Software
from harness.toolchain import QemuBinary, Toolchain
from tests.vm.support.debian import Makedumpfile, SuiteKernel, quiet_initrd, suite_kernel

GIB = 1 << 30
FIVE_LEVELS = "max,la57=on"

#: The default suite first: what it needs is there. Others are fetched.
SUITES = ["bookworm", "trixie", "trixie-backports"]
NIGHTLY = pytest.mark.slow

#: Other suites are fetched, and each guest is booted for it alone: too long for every change.
pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Look:
    """A guest that was looked at once."""

    walk: FreeWalk
    said: Flags
    """The frames that the guest's kernel called free, a moment before."""
    levels: int


def flags_of(text: str, frames: int) -> Flags:
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(text), dtype=np.uint8), bitorder="little")
    flags = np.zeros(frames, dtype=np.bool_)
    flags[: min(frames, len(bits))] = bits[:frames]
    return flags


def kernel_of(toolchain: Toolchain, suite: str) -> SuiteKernel:
    try:
        return suite_kernel(toolchain, suite)
    except MachineryError as error:
        if suite == SUITES[0]:
            raise
        pytest.skip(f"no kernel of {suite}: {error}")


def look(plain: PlainGuest) -> Look:
    said = plain.wait_for("free ([0-9a-f]*)$")[1]
    plain.wait_for("quiet$")
    plain.monitor.execute("stop")
    memory = plain.memory()
    kernel = find_kernel(memory)
    began = time.monotonic()
    walk = walk_memory(memory, kernel)
    print(f"{walk.release}: {time.monotonic() - began:.3f} s for {walk.frames} frames, {walk.kinds}")
    assert kernel.extras.gaps == ()
    return Look(walk, flags_of(said, walk.frames), kernel.levels)


def assert_guest_agrees(seen: Look) -> None:
    """The guest's own view is a moment older: nearly the same, and what differs was on its way.

    That may be a whole block of the largest order, 1024 pages, which in a small guest is more than a percent.
    """
    both = compare_witnesses(seen.said, seen.walk)
    differ = sum(len(frames) for found in (both.only_reported, both.only_walked) for frames in found.values())
    assert both.both > 0.9 * int(seen.walk.free.sum()), both.counts
    assert differ < 0.01 * both.both + 1024, both.counts


def software(kernel: SuiteKernel, folder: Path) -> Software:
    return Software(kernel.vmlinuz, quiet_initrd(kernel, folder))


@pytest.mark.parametrize("suite", [SUITES[0], *(pytest.param(suite, marks=NIGHTLY) for suite in SUITES[1:])])
def test_the_guest_and_the_walk_agree(
    toolchain: Toolchain, qemu: QemuBinary, suite: str, folder: Path
) -> None:
    kernel = kernel_of(toolchain, suite)
    with PlainGuest.boot(PlainMachine(qemu), software(kernel, folder), folder) as plain:
        seen = look(plain)
    assert_guest_agrees(seen)
    walk = seen.walk
    assert seen.levels == 4
    # Fragmented, and all that is expected is there.
    assert walk.histogram[0] > 100
    assert {zone.name for zone in walk.zones} == {"DMA", "DMA32"}
    kinds = {"free", "reserved", "slab", "page-table", "anonymous", "kernel", "per-cpu"}
    assert kinds <= walk.kinds.keys(), walk.kinds
    assert walk.kinds["anonymous"] > 2000
    assert not walk.notes


@NIGHTLY
@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("machine", ["pc", "q35"])
def test_a_large_guest_with_nodes_and_five_levels(
    toolchain: Toolchain, qemu: QemuBinary, suite: str, machine: str, folder: Path
) -> None:
    kernel = kernel_of(toolchain, suite)
    shape = PlainMachine(qemu, 5 * GIB, nodes=2, machine=machine, cpu=FIVE_LEVELS)
    with PlainGuest.boot(shape, software(kernel, folder), folder) as plain:
        seen = look(plain)
    assert_guest_agrees(seen)
    assert seen.levels == 5
    assert {zone.node for zone in seen.walk.zones} == {0, 1}
    assert seen.walk.free[4 * GIB // 4096 :].any()
    assert seen.walk.kinds["absent"] >= 100 << 8


def test_makedumpfile_agrees_about_every_frame(toolchain: Toolchain, qemu: QemuBinary, folder: Path) -> None:
    """An independent program, on a dump that QEMU made of the same moment; no frame may differ."""
    kernel = kernel_of(toolchain, SUITES[0])
    with PlainGuest.boot(PlainMachine(qemu), software(kernel, folder), folder) as plain:
        seen = look(plain)
        dump = plain.folder / "dump"
        plain.monitor.execute(
            "dump-guest-memory", {"paging": False, "protocol": f"file:{dump}", "format": "elf"}, seconds=120
        )
        excluded = Makedumpfile(toolchain, SUITES[0]).excluded(dump, plain.folder)
    common = min(len(excluded), seen.walk.frames)
    assert seen.walk.free[:common].sum() == seen.walk.free.sum()
    differ = np.flatnonzero(excluded[:common] != seen.walk.free[:common])
    assert not differ.size, [str(seen.walk.describe(int(frame))) for frame in differ[:10]]


def test_the_module_and_the_walk_name_the_same_pages(
    toolchain: Toolchain, qemu: QemuBinary, folder: Path
) -> None:
    """Two witnesses: a quiet guest is asked by a migration, and walked at the request and at the answer."""
    if not qemu.has_free_page_info:
        pytest.skip("this QEMU has no free-page-info")
    kernel = toolchain.kernel()
    guest = Software(kernel.vmlinuz, toolchain.image(kernel).initrd, "freepage.driver=info")
    record = folder / "record"
    device = "virtio-balloon-pci,free-page-info=on,x-free-page-info-hold=request,,answer"
    shape = PlainMachine(qemu, more=("-device", device, "-global", f"migration.x-record={record}"))
    with PlainGuest.boot(shape, guest, folder) as plain:
        plain.wait_for("ready ")
        walks = _walks_of_a_migration(plain)
    (migration,) = read_record(record)
    accepts = [entry for entry in migration.accepts if entry.id in walks["answer"]]
    assert accepts
    (first,) = {entry.id for entry in accepts[:1]}
    before, after = walks["request"][first], walks["answer"][first]
    reported = np.zeros(before.frames, dtype=np.bool_)
    for entry in accepts:
        if entry.id == first:
            block = migration.blocks[entry.block]
            pages = np.zeros(block.pages, dtype=np.bool_)
            flags = entry.reported.flags()
            pages[entry.first : entry.first + len(flags)] = flags
            reported |= to_frames(pages, block.gpa, before.frames)
    both = compare_witnesses(reported, before, later=after)
    judged = judge_reported(reported, before, after)
    print(json.dumps({"witnesses": both.counts, "standing": judged.counts}))
    assert both.both > 0.9 * int(before.free.sum()), both.counts
    assert both.agree, both.counts
    assert not judged.frames(PageStanding.UNDECIDED).size, judged.counts
    assert not judged.frames(PageStanding.OWNED).size


def _walks_of_a_migration(plain: PlainGuest) -> dict[str, dict[int, FreeWalk]]:
    """Migrate to nowhere; a walk at each hold, by point and request."""
    events: queue.SimpleQueue[QmpEvent] = queue.SimpleQueue()
    plain.monitor.listen(events.put)
    memory = plain.memory()
    kernel = find_kernel(memory)
    walks: dict[str, dict[int, FreeWalk]] = {"request": {}, "answer": {}}
    plain.monitor.execute(
        "migrate-set-capabilities", {"capabilities": [{"capability": "events", "state": True}]}
    )
    plain.monitor.execute("migrate", {"uri": "exec:cat > /dev/null"})
    while True:
        event = events.get(timeout=120)
        if event.name == "FREE_PAGE_INFO_HOLD":
            point, request = str(event.data["point"]), event.data["id"]
            assert isinstance(request, int)
            walks[point][request] = walk_memory(memory, kernel)
            plain.monitor.execute("cont")
        elif event.name == "MIGRATION" and event.data["status"] in ("completed", "failed"):
            assert event.data["status"] == "completed"
            return walks
