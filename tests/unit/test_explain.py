# SPDX-License-Identifier: GPL-2.0-or-later
"""What a run keeps of its pages, and what is made of it: words, an argument, a picture."""

from __future__ import annotations

import base64
import itertools
import json
import re
import zipfile
import zlib
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from harness.cli import app
from harness.errors import InputError, MachineryError
from harness.explain.argument import argument
from harness.explain.case import Case
from harness.explain.hilbert import curve
from harness.explain.page import explain_page
from harness.explain.picture import STATES, cells_of, picture, states_of, without_long_holes
from harness.explain.png import png
from harness.explain.sendings import Sendings
from harness.explain.store import LOOK_AT_END, PAGES_FILE, Kept
from harness.explain.trace import arguments, rounds, sendings_of
from harness.memory.record import Block
from harness.memory.walk import WalkError
from harness.units import PAGE_SIZE
from harness.verdict.judge import BlockState, JudgeInput, Judgement, judge
from tests.unit.test_result import result
from tests.unit.test_verdict_witness import Quiet, walk_of


def quiet() -> Quiet:
    world = Quiet(96, 3, 200)
    world.tell()
    world.finish()
    return world


def kept_of(world: Quiet, **changes: object) -> Kept:
    case = world.told()
    changed = np.zeros(world.pages, dtype=np.bool_)
    changed[7] = True
    request = world.request
    assert request is not None
    looks = [
        ((request.id, "request"), walk_of(world.free)),
        (LOOK_AT_END, WalkError("ring", "a list", "is torn")),
    ]
    flags = {((request.id, "request"), LOOK_AT_END): {"pc.ram": changed}}
    return Kept.of(judge(case), looks, flags)


def test_what_is_kept_comes_back(tmp_path: Path) -> None:
    world = quiet()
    kept = kept_of(world)
    size = kept.save(tmp_path / PAGES_FILE)
    assert 0 < size == (tmp_path / PAGES_FILE).stat().st_size <= kept.bound()
    again = Kept.load(tmp_path / PAGES_FILE)
    assert again.requests == kept.requests
    assert again.missing == {LOOK_AT_END: "a list: is torn"}
    one, two = again.blocks["pc.ram"], kept.blocks["pc.ram"]
    assert one.block == two.block
    assert one.categories == two.categories
    assert one.changed.keys() == two.changed.keys()
    for name in ("category", "request", "zero_source", "zero_destination", "hole", "sent"):
        assert np.array_equal(getattr(one, name), getattr(two, name)), name
    assert np.flatnonzero(next(iter(one.changed.values()))).tolist() == [7]
    assert np.array_equal(again.walks[0].kind, kept.walks[0].kind)
    free = int(np.flatnonzero(world.free)[0])
    assert again.walks[0].describe(free) == "free, node 0, zone DMA32, order 0, Movable"
    assert again.walks[0].describe(int(np.flatnonzero(world.used)[0])) == "anonymous"
    assert again.walks[0].describe(10**6) == "absent"


def test_a_file_is_never_written_twice(tmp_path: Path) -> None:
    kept_of(quiet()).save(tmp_path / PAGES_FILE)
    with pytest.raises(FileExistsError):
        kept_of(quiet()).save(tmp_path / PAGES_FILE)


@pytest.mark.parametrize("what", ["nothing", "garbage", "cut", "version", "short", "missing"])
def test_a_damaged_file_is_bad_input(tmp_path: Path, what: str) -> None:
    path = tmp_path / PAGES_FILE
    kept_of(quiet()).save(path)
    whole = path.read_bytes()
    if what == "missing":
        path.unlink()
    elif what in ("nothing", "garbage", "cut"):
        path.write_bytes({"nothing": b"", "garbage": b"x" * 1000, "cut": whole[: len(whole) // 2]}[what])
    else:
        parts = {}
        with zipfile.ZipFile(path) as file:
            parts = {name: file.read(name) for name in file.namelist()}
        meta = json.loads(parts["meta.json"])
        if what == "version":
            meta["version"] = 99
        else:
            meta["blocks"][0]["pages"] = 95
        parts["meta.json"] = json.dumps(meta).encode()
        with zipfile.ZipFile(path, "w") as file:
            for name, content in parts.items():
                file.writestr(name, content)
    with pytest.raises(InputError):
        Kept.load(path)


def folder(tmp_path: Path, world: Quiet, judgement: Judgement | None = None, **kept: object) -> Path:
    """A run folder with as little in it as a run leaves."""
    judged = judgement or judge(world.told())
    (tmp_path / "result.json").write_text(result(judged).to_json())
    looks = [((world.next_id, "request"), walk_of(world.free))]
    Kept.of(judged, looks, {}).save(tmp_path / PAGES_FILE)
    return tmp_path


def known(case: Case, frame: int) -> dict[str, str]:
    return dict(explain_page(case, frame))


def test_a_skipped_page_in_words(tmp_path: Path) -> None:
    world = quiet()
    page = int(np.flatnonzero(judge(world.told()).blocks[0].skipped)[0])
    case = Case.open(folder(tmp_path, world))
    words = known(case, page)
    assert words[f"at request {world.next_id:#x}"].startswith("free, node 0, zone DMA32")
    assert words["sent"] == "never"
    assert words["destination"] == "zeros"
    assert words["verdict"].startswith("right: left behind by an accepted answer")
    assert words["reported"] == "not known: the device kept no record"
    with pytest.raises(InputError, match="no memory of a block"):
        explain_page(case, world.pages)


def test_a_wrong_page_in_words(tmp_path: Path) -> None:
    world = quiet()
    page = int(np.flatnonzero(world.sent & (world.content != 0))[0])
    world.there[page] += 1
    run = folder(tmp_path, world)
    wrong = run / "wrong"
    wrong.mkdir()
    source, there = bytearray(PAGE_SIZE), bytearray(PAGE_SIZE)
    source[0x7B], there[0x7B] = 0x31, 0x21
    (wrong / f"pc.ram-{page:#x}.source").write_bytes(source)
    (wrong / f"pc.ram-{page:#x}.destination").write_bytes(there)
    words = known(Case.open(run), page)
    assert words["verdict"] == "wrong, differs-though-sent: pages like this one were sent, and differ"
    assert words["differs"] == "in 1 bytes: at 0x7b"
    assert (words["source has"], words["destination has"]) == ("31", "21")
    text = "\n".join(f"{step.claim} {step.grounds}" for step in argument(Case.open(run)))
    assert "1 pages are wrong" in text
    assert f"--pfn {page:#x}" in text
    assert "differs-though-sent (memory)" in text


def test_the_command(tmp_path: Path) -> None:
    world = quiet()
    run = str(folder(tmp_path, world))
    runner = CliRunner()
    shown = runner.invoke(app, ["explain", run])
    assert shown.exit_code == 0, shown.output
    assert "were left behind, and nobody needs them" in " ".join(shown.output.split())
    assert runner.invoke(app, ["explain", run, "--summary"]).output == shown.output
    assert "no page is wrong" in runner.invoke(app, ["explain", run, "--wrong"]).output
    one = runner.invoke(app, ["explain", run, "--pfn", "0x5", "--json"])
    assert json.loads(one.output)[0]["frame"] == 5
    assert json.loads(runner.invoke(app, ["explain", run, "--json"]).output)[0]["grounds"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--pfn", "ten"], "expected a frame number"),
        (["--pfn", "-1"], "not negative"),
        (["--pfn", "1", "--wrong"], "exclude each other"),
        (["--pfn", "0xffffff"], "no memory of a block"),
    ],
)
def test_bad_questions(tmp_path: Path, arguments: list[str], words: str) -> None:
    answer = CliRunner().invoke(app, ["explain", str(folder(tmp_path, quiet())), *arguments])
    assert isinstance(answer.exception, InputError)
    assert words in str(answer.exception)


def test_folders_that_are_no_runs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run folder"):
        Case.open(tmp_path / "none")
    with pytest.raises(InputError, match="is not a run folder"):
        Case.open(tmp_path)
    run = tmp_path / "20260101-000000-idle-off"
    run.mkdir()
    (run / "INCOMPLETE").touch()
    with pytest.raises(InputError, match=r"no result\.json"):
        Case.open(run)
    with pytest.raises(InputError, match="is not a run folder") as caught:
        Case.open(tmp_path)
    assert caught.value.hint == f"it holds folders of runs: {run.name}"


# The picture.


@pytest.mark.parametrize("order", range(1, 8))
def test_the_curve_visits_every_cell_once_in_steps_of_one(order: int) -> None:
    rows, columns = curve(order)
    assert len(set(zip(rows.tolist(), columns.tolist(), strict=True))) == 4**order
    assert set((np.abs(np.diff(rows)) + np.abs(np.diff(columns))).tolist()) <= {1}
    assert (rows[0], columns[0]) == (0, 0)


def decoded(data: bytes) -> np.ndarray:
    """A PNG as written here, read back by hand."""
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    at, parts = 8, {}
    while at < len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        body = data[at + 8 : at + 8 + length]
        assert zlib.crc32(kind + body) == int.from_bytes(data[at + 8 + length : at + 12 + length], "big")
        parts[kind] = body
        at += 12 + length
    assert list(parts) == [b"IHDR", b"PLTE", b"IDAT", b"IEND"]
    width, height = (int.from_bytes(parts[b"IHDR"][n : n + 4], "big") for n in (0, 4))
    rows = np.frombuffer(zlib.decompress(parts[b"IDAT"]), np.uint8).reshape(height, width + 1)
    assert not rows[:, 0].any()
    return rows[:, 1:]


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32))
@settings(max_examples=30)
def test_png_round_trip(height: int, width: int, seed: int) -> None:
    cells = np.random.default_rng(seed).integers(0, 3, (height, width), dtype=np.uint8)
    assert np.array_equal(decoded(png(cells, [(0, 0, 0), (1, 2, 3), (255, 255, 255)])), cells)


def test_png_refuses_a_colour_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="colours"):
        png(np.array([[3]], np.uint8), [(0, 0, 0)])


NUMBER = {name: number for number, (name, _, _) in enumerate(STATES)}


@given(st.integers(1, 3000), st.data())
@settings(max_examples=60)
def test_one_wrong_page_is_never_lost_in_the_crowd(frames: int, data: st.DataObject) -> None:
    states = np.full(frames, NUMBER["skipped"], dtype=np.uint8)
    page = data.draw(st.integers(0, frames - 1))
    states[page] = NUMBER["wrong"]
    cells, each = cells_of(states)
    assert (cells == NUMBER["wrong"]).sum() == 1
    assert cells.size * each >= frames


def test_big_guests_have_several_pages_a_cell() -> None:
    states = np.full(1 << 20, NUMBER["sent"], dtype=np.uint8)
    cells, each = cells_of(states)
    assert (cells.shape, each) == ((512, 512), 4)
    assert set(cells.ravel().tolist()) == {NUMBER["sent"]}


def test_fragmented_memory_is_neither_sent_nor_left_behind() -> None:
    states = np.full(1 << 21, NUMBER["sent"], dtype=np.uint8)
    states[1::2] = NUMBER["skipped"]
    # One in eight is no mix; and what is wrong is seen in a mix as well.
    states[: 1 << 19] = NUMBER["sent"]
    states[: 1 << 19 : 8] = NUMBER["skipped"]
    states[1 << 20] = NUMBER["wrong"]
    cells, each = cells_of(states)
    counts = np.bincount(cells.ravel()).tolist()
    assert each == 8
    assert (counts[NUMBER["sent"]], counts[NUMBER["wrong"]]) == (1 << 16, 1)
    assert counts[len(STATES)] == (3 << 16) - 1


def test_long_holes_are_shown_shorter_and_said() -> None:
    states = np.zeros(10_000, dtype=np.uint8)
    states[:640], states[9_900:] = NUMBER["sent"], NUMBER["zero"]
    shorter, cut = without_long_holes(states)
    assert cut == [(640, 9_260)]
    assert np.count_nonzero(shorter) == 740
    assert len(shorter) == 740 + 740 // 32


def test_the_picture_shows_every_state() -> None:
    world = quiet()
    page = int(np.flatnonzero(world.sent)[0])
    world.content[page], world.there[page] = 1, 2
    kept = kept_of(world)
    states = states_of(kept)
    assert states[page] == NUMBER["wrong"]
    skipped = kept.blocks["pc.ram"].pages("skipped")
    assert (states[skipped] == NUMBER["skipped"]).all()
    text = picture(kept, "fail: <a & b>")
    assert "fail: &lt;a &amp; b&gt;" in text
    data = re.search(r"base64,([^\"]+)\"", text)
    assert data is not None
    cells = decoded(base64.b64decode(data[1]))
    assert (cells == NUMBER["wrong"]).sum() == 1
    assert f"wrong: 1 ({100 / world.pages:.1f} %)" in text


def test_the_picture_fits_any_width_and_has_addresses() -> None:
    kept = kept_of(quiet())
    text = picture(kept, "a title " * 30)
    root = ElementTree.fromstring(text)
    names = {"svg": "http://www.w3.org/2000/svg"}
    assert root.get("width") == "100%"
    assert root.get("height") is None
    _, _, width, height = map(float, (root.get("viewBox") or "").split())
    for line in root.findall("svg:text", names):
        # A letter is a little more than half as wide as it is high.
        size = float(line.get("font-size", "12"))
        assert float(line.get("x", "")) + 0.55 * size * len(line.text or "") <= width
        assert float(line.get("y", "")) < height
    told = [title.text or "" for title in root.findall("svg:rect/svg:title", names)]
    assert 1 < len(told) <= 64
    # From the first frame to the last, without a gap or an overlap.
    ranges = sorted(tuple(int(word, 16) for word in re.findall(r"0x[0-9a-f]+", one)) for one in told)
    assert ranges[0][0] == 0
    assert all(before[1] + 1 == after[0] for before, after in itertools.pairwise(ranges))
    frames = sum(int(count) for one in told for count in re.findall(r"(\d+) \w", one.partition(":")[2]))
    assert frames == len(states_of(kept))
    addresses = [line.text for line in root.findall("svg:text", names) if line.get("font-size") == "9"]
    assert "0x0" in addresses
    assert len(addresses) == len(set(addresses)) <= 16


def test_frames_of_several_blocks_and_a_hole() -> None:
    def block(name: str, pages: int, gpa: tuple[tuple[int, int, int], ...]) -> BlockState:
        none = np.zeros(pages, dtype=np.bool_)
        return BlockState(Block(name, pages, gpa), np.empty(0, np.int64), none, none)

    low = block("low", 4, ((0, 0, 4 * PAGE_SIZE),))
    high = block("high", 2, ((8 * PAGE_SIZE, 0, 2 * PAGE_SIZE),))
    unseen = block("unseen", 3, ())
    kept = Kept.of(judge(JudgeInput("off", (low, high, unseen))), [], {})
    names = [STATES[number][0] for number in states_of(kept).tolist()]
    assert names == ["sent"] * 4 + ["hole"] * 4 + ["sent"] * 2
    assert kept.blocks["low"].categories == ("equal", "skipped")


# The trace.

SOURCE = """\
7@1.000001:migrate_set_state new state setup
7@1.0:migration_bitmap_sync_start@
7@1.0:savevm_section_end ram, section_id 2 -> 0
7@1.0:migrate_set_state new state setup
7@1.0:migration_bitmap_sync_start@
7@1.0:savevm_section_end ram, section_id 2 -> 0
7@1.0:savevm_section_end ram, section_id 2 -> 0
7@1.0:savevm_section_end dirty-bitmap, section_id 1 -> 0
qemu-system-x86_64: a warning, which is no event
7@1.0:migration_bitmap_sync_start@
7@1.0:migration_bitmap_sync_start@
7@1.0:savevm_section_end ram, section_id 2 -> 0
""".replace("@\n", " \n")

DESTINATION = """\
ram_load_complete exit_code 0 seq iteration 1
ram_load_loop pc.ram: addr: 0x0 flags: 0x8 host: 0x7f
ram_load_loop pc.ram: addr: 0x1000 flags: 0x22 host: 0x7f
ram_load_complete exit_code 0 seq iteration 2
ram_load_loop /rom@etc/acpi: addr: 0x0 flags: 0x8 host: 0x7f
ram_load_complete exit_code 0 seq iteration 3
ram_load_loop pc.ram: addr: 0x0 flags: 0x40 host: 0x7f
ram_load_complete exit_code 0 seq iteration 4
"""


def traces(tmp_path: Path, source: str = SOURCE, there: str = DESTINATION) -> tuple[Path, Path]:
    paths = tmp_path / "source.trace", tmp_path / "destination.trace"
    for path, text in zip(paths, (source, there), strict=True):
        path.write_text(text)
    return paths


def test_rounds_are_of_the_last_migration_alone(tmp_path: Path) -> None:
    assert rounds(traces(tmp_path)[0]) == [1, 1, 3]


def test_which_page_came_in_which_round(tmp_path: Path) -> None:
    found = sendings_of(*traces(tmp_path))
    assert found["pc.ram"].of(0) == [(1, "whole"), (3, "as a difference (XBZRLE)")]
    assert found["pc.ram"].of(1) == [(1, "as zeros")]
    assert found["pc.ram"].of(2) == []
    assert found["/rom@etc/acpi"].of(0) == [(1, "whole")]
    assert Sendings.save(found, tmp_path) > 0
    again = Sendings.load(tmp_path)
    assert again["pc.ram"].of(0) == found["pc.ram"].of(0)
    assert again.keys() == found.keys()
    assert Sendings.load(tmp_path / "elsewhere") == {}


@pytest.mark.parametrize("there", ["", DESTINATION + "ram_load_complete exit_code 0 seq iteration 5\n"])
def test_traces_of_two_migrations_do_not_fit(tmp_path: Path, there: str) -> None:
    with pytest.raises(MachineryError, match="do not fit together"):
        sendings_of(*traces(tmp_path, there=there))


def test_damaged_sendings_are_bad_input(tmp_path: Path) -> None:
    (tmp_path / "sendings.npz").write_bytes(b"x")
    with pytest.raises(InputError):
        Sendings.load(tmp_path)


def test_what_qemu_is_told_to_trace() -> None:
    words = arguments(Path("/x/y.trace"))
    assert words[:2] == ("-D", "/x/y.trace")
    assert "enable=ram_load_loop" in words


def test_a_page_that_was_sent_twice_says_so(tmp_path: Path) -> None:
    world = quiet()
    run = folder(tmp_path, world)
    Sendings.save({"pc.ram": Sendings(np.array([3, 3], np.uint32), np.array([1, 4], np.uint16),
                                      np.array([1, 0], np.uint8))}, run)  # fmt: skip
    assert known(Case.open(run), 3)["trace"] == "arrived in round 1 whole, in round 4 as zeros"
    assert known(Case.open(run), 4)["trace"] == "never arrived"
