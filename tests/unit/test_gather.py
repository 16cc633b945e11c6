# SPDX-License-Identifier: GPL-2.0-or-later
"""From two paused QEMUs to the judge: evidence that is not whole ends in an error, never in a verdict."""

from __future__ import annotations

import os
import struct
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from harness.devicestate.acted import ActedUpon
from harness.errors import ExitCode, MachineryError
from harness.events import EventStream
from harness.evidence.device_state import NOT_SAVED
from harness.evidence.gather import gather
from harness.evidence.host_writes import HostWritten
from harness.evidence.witnesses import witnesses_of
from harness.memory import formula
from harness.memory.image import RamImage
from harness.memory.record import Accept, Block, MigrationRecord, PackedFlags, Request
from harness.memory.walk import Kind, TornError, WalkError
from harness.migration.hold import ANSWER, REQUEST, HoldKeeper
from harness.scenario.load import load_scenario
from harness.scenario.resolve import MachineFacts, ResolvedScenario, resolve
from harness.verdict.judge import judge_memory
from tests.unit.test_verdict_witness import walk_of

PAGE = 4096
PAGES = 16
SEED = 77
ID = 5


def resolved(kind: str = "freed", *more: str) -> ResolvedScenario:
    settings = [f"seed={SEED}", "guest.memory=512MiB", "accelerator=tcg", *more]
    return resolve(load_scenario(kind, settings), MachineFacts(1 << 40))


def content(page: int) -> bytes:
    return formula.page_words(SEED, page, 0).tobytes()


def ram(pages: Sequence[bytes], name: str = "pc.ram") -> RamImage:
    return RamImage.from_bytes(b"".join(pages), name)


class Monitor:
    side = "source"

    def execute(self, command: str) -> object:
        return {} if command else None


def holds(image: RamImage, looks: Mapping[tuple[int, str], object] | None = None) -> HoldKeeper:
    keeper = HoldKeeper(Monitor(), {"pc.ram": image}, EventStream())  # type: ignore[arg-type]
    keeper.handle({"id": ID, "point": "request"})
    keeper.handle({"id": ID, "point": "answer"})
    keeper.looks.update(looks or {})  # type: ignore[arg-type]
    return keeper


def record_of(reported: Sequence[int], sent: Sequence[int]) -> MigrationRecord:
    flags = np.zeros(PAGES, dtype=np.bool_)
    flags[list(reported)] = True
    was_sent = np.zeros(PAGES, dtype=np.bool_)
    was_sent[list(sent)] = True
    packed = PackedFlags.pack(flags)
    block = Block("pc.ram", PAGES, ((0, 0, PAGES * PAGE),))
    log = (Request(ID, 1, 0, PAGES), Accept(ID, 1, "pc.ram", 0, packed, packed))
    return MigrationRecord({"pc.ram": block}, log, {"pc.ram": PackedFlags.pack(was_sent)}, {}, {})


def witness(pages: Sequence[bytes], reported: Sequence[int], free: Sequence[int], **looks: object):
    flags = np.zeros(PAGES, dtype=np.bool_)
    flags[list(free)] = True
    seen = {
        (ID, REQUEST): looks.get("request", walk_of(flags)),
        (ID, ANSWER): looks.get("answer", walk_of(flags)),
    }
    keeper = holds(ram(pages), {key: look for key, look in seen.items() if look is not None})
    record = record_of(reported, [])
    return witnesses_of(record, keeper, looks.get("end"), {ID: keeper.unchanged[ID]}, resolved())[ID]


def test_what_the_workload_owned_is_known_by_its_content() -> None:
    """Owned: reported, some process's at both ends, with the formula's content of a page that it keeps."""
    keep = 16 * 256
    pages = [bytes(PAGE)] * PAGES
    pages[1] = content(3)
    pages[2] = content(keep + 3)  # a page that was filled and freed again
    pages[3] = content(4)[:-8] + bytes(8)  # one word is not the formula's
    pages[4] = content(5)  # not reported
    pages[5] = content(6)  # on a free list
    found = witness(pages, reported=[1, 2, 3, 5], free=[5])
    assert np.flatnonzero(found.owned["pc.ram"]).tolist() == [1]
    # The kernel's own, whatever it holds, is not the workload's.
    kernels = walk_of(np.zeros(PAGES, dtype=np.bool_), Kind.KERNEL)
    assert witness(pages, [1, 2, 3, 5], [], request=kernels).owned == {}


def test_without_the_end_of_an_answer_switch_over_has_to_do() -> None:
    pages = [content(number) for number in range(PAGES)]
    none = np.zeros(PAGES, dtype=np.bool_)
    found = witness(pages, [1], [], answer=None, end=walk_of(none))
    assert found.at_answer is None
    assert np.flatnonzero(found.owned["pc.ram"]).tolist() == [1]
    assert witness(pages, [1], [], answer=None).owned == {}


def test_a_torn_walk_is_missing_and_no_error() -> None:
    torn = TornError("torn", "a list", "was being changed")
    found = witness([bytes(PAGE)] * PAGES, [1], [1], request=torn)
    assert (found.at_request, found.missing) == (None, ("a list: was being changed",))


@pytest.mark.parametrize("end", ["request", "answer"])
def test_a_guest_that_cannot_be_walked_leaves_no_verdict(end: str) -> None:
    """No VMCOREINFO, or another kernel's: exit 3, with a way out."""
    broken = WalkError("no-vmcoreinfo", "the guest's memory", "no VMCOREINFO note was found in it")
    with pytest.raises(MachineryError, match="no VMCOREINFO") as raised:
        witness([bytes(PAGE)] * PAGES, [1], [1], **{end: broken})
    assert raised.value.exit_code == ExitCode.ERROR
    assert "--set walk=false" in (raised.value.hint or "")


def moved(
    source: Mapping[str, RamImage], target: Mapping[str, RamImage], **others: object
) -> SimpleNamespace:
    return SimpleNamespace(
        record=Path("/nonexistent"),
        counters=None,
        source=SimpleNamespace(images=source, others=others.get("here", {})),
        destination=SimpleNamespace(images=target, others=others.get("there", {})),
        holds=HoldKeeper(Monitor(), {}, EventStream()),  # type: ignore[arg-type]
        outside=None,
        places={},
        host_written=HostWritten(),
        traces=None,
        stream=None,
        devices=(NOT_SAVED, NOT_SAVED),
        acted=ActedUpon(),
        describe=dict,
        postcopy=None,
        copied=(),
        handed_over=False,
    )


def test_memory_that_is_the_same_passes() -> None:
    one, two = ram([content(1)] * 4), ram([content(1)] * 4)
    evidence = gather(moved({"pc.ram": one}, {"pc.ram": two}), resolved("idle", "arm=off"), EventStream())  # type: ignore[arg-type]
    judgement = judge_memory(evidence.case).judgement
    assert (judgement.verdict, judgement.pages.total) == ("pass", 4)


def test_one_file_on_both_sides_is_not_compared_with_itself() -> None:
    """It stays where it is; but if it was migrated nevertheless, nobody can say what became of it."""
    one, two, shared = ram([content(1)] * 4), ram([content(1)] * 4), ram([content(2)] * 3, "shared")
    case = moved({"pc.ram": one, "shared": shared}, {"pc.ram": two, "shared": shared.again()})
    evidence = gather(case, resolved("idle", "arm=off"), EventStream())  # type: ignore[arg-type]
    assert judge_memory(evidence.case).judgement.pages.total == 4
    assert evidence.not_compared["shared"] == (
        3 * PAGE,
        "both QEMUs have the same file: it stays where it is",
    )
    assert [block.name for block in evidence.case.left_where_it_is] == ["shared"]


def test_one_file_on_both_sides_that_was_migrated_leaves_no_verdict(tmp_path: Path) -> None:
    write_record(tmp_path / "record", b"shared", 64, "[[0, 0, 262144]]")
    one, two, shared = ram([content(1)] * 4), ram([content(1)] * 4), ram([content(2)] * 64, "shared")
    case = moved({"pc.ram": one, "shared": shared}, {"pc.ram": two, "shared": shared.again()})
    case.record = tmp_path / "record"
    with pytest.raises(MachineryError, match="cannot be compared: both QEMUs have the same file"):
        gather(case, resolved("idle", "arm=off"), EventStream())  # type: ignore[arg-type]


@pytest.mark.parametrize("where", ["files", "others"])
def test_images_of_different_size_leave_no_verdict(where: str) -> None:
    one, two = ram([content(1)] * 4), ram([content(1)] * 5)
    small, same = ram([content(2)], "rom"), ram([content(2)], "rom")
    if where == "files":
        case = moved({"pc.ram": one}, {"pc.ram": two})
    else:
        case = moved({"pc.ram": small}, {"pc.ram": same}, here={"x": one}, there={"x": two})
    with pytest.raises(MachineryError, match="images of different size"):
        gather(case, resolved("idle", "arm=off"), EventStream())  # type: ignore[arg-type]


def test_a_truncated_image_leaves_no_verdict(tmp_path: Path) -> None:
    (tmp_path / "ram").write_bytes(content(1) * 4)
    source = RamImage.open(tmp_path / "ram", 4 * PAGE)
    os.truncate(tmp_path / "ram", 3 * PAGE + 100)
    with pytest.raises(MachineryError, match="truncated"):
        gather(
            moved({"pc.ram": source}, {"pc.ram": ram([content(1)] * 4)}),  # type: ignore[arg-type]
            resolved("idle", "arm=off"),
            EventStream(),
        )


def write_record(path: Path, name: bytes, pages: int, gpa: str) -> None:
    """BLOCKS, SENT and END of a migration of one block, as the device writes them."""
    header = struct.Struct("<4sIQQ64sQQQ")
    bits = b"\xff" * 8 * -(-pages // 64)
    for kind, payload in ((5, f'{{"gpa": {gpa}}}'.encode()), (2, bits), (3, b"{}")):
        with path.open("ab") as file:
            count = pages if kind in (2, 5) else 0
            file.write(header.pack(b"FPIR", kind, 0, 1, name, 0, count, len(payload)) + payload)


@pytest.mark.parametrize(("gpa", "verdict"), [("[[0, 0, 262144]]", False), ("[]", True)])
def test_memory_that_the_guest_sees_and_nobody_compared(tmp_path: Path, gpa: str, verdict: bool) -> None:
    write_record(tmp_path / "record", b"far", 64, gpa)
    one, two = ram([content(1)] * 4), ram([content(1)] * 4)
    case = moved({"pc.ram": one}, {"pc.ram": two}, here={"far": OSError("no file")}, there={"far": two})
    case.record = tmp_path / "record"
    if verdict:
        evidence = gather(case, resolved("idle", "arm=off"), EventStream())  # type: ignore[arg-type]
        assert evidence.not_compared["far"][1].startswith("it could not be read")
        return
    with pytest.raises(MachineryError, match="cannot be compared"):
        gather(case, resolved("idle", "arm=off"), EventStream())  # type: ignore[arg-type]


def test_without_a_record_the_source_says_what_the_guest_sees() -> None:
    """Arms off and hint keep none."""
    one, two = ram([content(1)] * 4), ram([content(1)] * 4)
    case = moved({"pc.ram": one}, {"pc.ram": two}, here={"far": OSError("no file")}, there={"far": two})
    seen = {"far": [(1 << 32, 0, 64 * PAGE)]}
    case.places = seen
    with pytest.raises(MachineryError, match="sees memory in 'far', which cannot be compared"):
        gather(case, resolved("idle", "arm=off"), EventStream())  # type: ignore[arg-type]
    # What both QEMUs map stays where it is, and is nobody's concern.
    shared = ram([content(2)] * 64, "shared")
    both = moved({"pc.ram": one, "far": shared}, {"pc.ram": two, "far": shared.again()})
    both.places = seen
    assert "far" in gather(both, resolved("idle", "arm=off"), EventStream()).not_compared  # type: ignore[arg-type]
    seen.clear()
    assert "far" in gather(case, resolved("idle", "arm=off"), EventStream()).not_compared  # type: ignore[arg-type]


def test_a_page_of_the_hosts_has_its_name_though_nobody_walks() -> None:
    """A scenario with ``walk: false``, and a device that keeps no record: QEMU's map says where a page is."""
    here, there = uuid.UUID(int=1).bytes_le, uuid.UUID(int=2).bytes_le

    def page(guid: bytes) -> bytes:
        return bytes(40) + guid + bytes(PAGE - 40 - len(guid))

    one, two = ram([content(1), page(here)]), ram([content(1), page(there)])
    case = moved({"pc.ram": one}, {"pc.ram": two})
    case.places = {"pc.ram": [(0, 0, 2 * PAGE)]}
    case.host_written = HostWritten(guids=(here, there))
    evidence = gather(case, resolved("idle", "arm=off", "walk=false"), EventStream())  # type: ignore[arg-type]
    assert evidence.case.blocks[0].named == {1: "vm-generation-id"}


@pytest.mark.parametrize(
    ("vmxnet3", "magic", "before", "after", "named"),
    [
        (True, 0xBABEFEE1, 4, 0, {1: "vmxnet3-link-event"}),
        (True, 0xBABEFEE1, 5, 1, {1: "vmxnet3-link-event"}),
        # No such NIC; nothing of its driver's; the other way round; more than that bit.
        (False, 0xBABEFEE1, 4, 0, {}),
        (True, 0xBABEFEE2, 4, 0, {}),
        (True, 0xBABEFEE1, 0, 4, {}),
        (True, 0xBABEFEE1, 6, 0, {}),
    ],
)
def test_what_a_nic_writes_when_its_qemu_ends_is_named(
    vmxnet3: bool, magic: int, before: int, after: int, named: dict[int, str]
) -> None:
    def page(events: int) -> bytes:
        return (magic.to_bytes(4, "little") + bytes(692) + bytes([events])).ljust(PAGE, b"\0")

    one, two = ram([content(1), page(before)]), ram([content(1), page(after)])
    case = moved({"pc.ram": one}, {"pc.ram": two})
    case.places = {"pc.ram": [(0, 0, 2 * PAGE)]}
    case.host_written = HostWritten(vmxnet3=vmxnet3)
    evidence = gather(case, resolved("idle", "arm=off", "walk=false"), EventStream())  # type: ignore[arg-type]
    assert evidence.case.blocks[0].named == named
