# SPDX-License-Identifier: GPL-2.0-or-later
"""Several guests of one run: kept apart, moved together, and put together in the result."""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from harness.errors import DeadlineExceeded, InputError
from harness.events import Deadline, EventStream
from harness.hosts.netns import PREFIX, WIRE, nic_of
from harness.memory.qemu_ram import PlacedBlock, backings
from harness.report.result import Result
from harness.run.several_guests.jobs import GuestJob, common_ms, jobs_of
from harness.run.several_guests.result import of_all, of_guest
from harness.run.several_guests.start_line import StartLine
from harness.run.several_guests.streams import guest_stream, hosts_stream
from harness.run.several_guests.together import guest_seed
from harness.scenario.load import Scenario, load_scenario
from harness.scenario.resolve import GUEST_MARGIN, demand_memory
from harness.suite.needs import needs_of
from harness.verdict.judge import judge
from tests.unit.test_result import result, shown
from tests.unit.test_verdict import ALL_WELL, info, state

MIB = 1 << 20


def scenario(folder: Path, text: str = "", *, guests: int = 2) -> Scenario:
    file = folder / "several.yaml"
    file.write_text(f"name: several\nguests: {guests}\n{text}")
    return load_scenario(str(file))


def migration(stream: EventStream, status: str, source: str = "source.qmp") -> None:
    stream.emit("MIGRATION", source=source, data={"status": status})


# --- what is each guest's own


def test_each_guest_has_a_seed_that_follows_from_the_runs() -> None:
    seeds = [guest_seed(7, guest) for guest in range(1, 9)]
    assert len(set(seeds)) == 8
    assert seeds == [guest_seed(7, guest) for guest in range(1, 9)]
    assert seeds[0] != guest_seed(8, 1)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_no_two_guests_have_an_address_a_tap_or_a_port_in_common() -> None:
    for tap in (True, False):
        nics = [nic_of(number, tap=tap, segment=one) for number in range(1, 9) for one in range(4)]
        ports = [port for nic in nics for port in nic.ports if port]
        assert len({nic.mac for nic in nics}) == len({nic.address for nic in nics}) == 32
        assert len({nic.tap for nic in nics}) == (32 if tap else 1)
        assert len(ports) == len(set(ports)) == (0 if tap else 64)
        assert all(len(nic.tap or nic.packets.replace("nic", "guest")) < 16 for nic in nics)
        networks = {ip_address(nic.lab): ip_network(f"{nic.lab}/{PREFIX}", strict=False) for nic in nics}
        assert len(set(networks.values())) == 4
        assert all(ip_address(nic.address) in networks[ip_address(nic.lab)] for nic in nics)
        assert not any(ip_address(end) in network for end in WIRE for network in networks.values())


def test_what_a_guest_says_is_in_no_other_guests_stream() -> None:
    """A run judges by its stream: an answer of another guest must not be in it."""
    run = EventStream()
    hosts = hosts_stream(run)
    streams = {number: guest_stream(number, hosts, run) for number in (1, 2, 3)}
    for number, stream in streams.items():
        stream.emit("FREE_PAGE_INFO_HOLD", source="source.qmp", data={"request": number})
        stream.emit("console", source="source.console", text=f"guest {number} speaks")
    for number, stream in streams.items():
        heard = [event.data["data"] for event in stream.history() if event.kind == "FREE_PAGE_INFO_HOLD"]
        assert heard == [{"request": number}]
        assert [e.data["text"] for e in stream.history() if e.kind == "console"] == [f"guest {number} speaks"]
    # The run's has all of it, each with its guest, and what a console says as it was said.
    held = [(e.data["guest"], e.data["data"]) for e in run.history() if e.kind == "FREE_PAGE_INFO_HOLD"]
    assert held == [(number, {"request": number}) for number in streams]
    assert {e.data["text"] for e in run.history() if e.kind == "console"} == {
        f"guest {number} speaks" for number in streams
    }


def test_the_end_of_a_host_reaches_each_guest_and_the_run_once() -> None:
    run = EventStream()
    hosts = hosts_stream(run)
    first = guest_stream(1, hosts, run)
    hosts.emit("process-ended", source="lab", pid=7)
    # One that comes later is told as well.
    second = guest_stream(2, hosts, run)
    for stream in (first, second, run):
        assert [e.data["pid"] for e in stream.history() if e.kind == "process-ended"] == [7]


def test_a_stream_begins_once_and_its_clock_with_it() -> None:
    """The workload's report counts wall time from there."""
    run = EventStream()
    hosts = hosts_stream(run)
    for stream in (run, hosts, guest_stream(1, hosts, run)):
        assert [event.kind for event in stream.history()].count("stream-start") == 1


def test_steps_and_warnings_name_their_guest() -> None:
    run = EventStream()
    guest = guest_stream(2, hosts_stream(run), run)
    with guest.step("boot"):
        guest.emit("warning", text="slow")
    assert [e.data["step"] for e in run.history() if e.kind.startswith("step-")] == ["guest 2: boot"] * 2
    assert [e.data["text"] for e in run.history() if e.kind == "warning"] == ["guest 2: slow"]
    assert [e.data["step"] for e in guest.history() if e.kind == "step-start"] == ["boot"]


def test_a_guests_memory_is_no_other_guests_file(tmp_path: Path) -> None:
    """Both files have the name that libvirt gives a guest's memory."""
    files = [tmp_path / f"{number}-guest-{number}" / "pc.ram" for number in (1, 2, 3)]
    for file in files:
        file.parent.mkdir()
        file.write_bytes(bytes(2 * MIB))
    with files[2].open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        byte = ctypes.c_char.from_buffer(mapped)
        block = PlacedBlock("pc.ram", 2 * MIB, 2 * MIB, ctypes.addressof(byte))
        del byte
        (found,) = backings(os.getpid(), [block], tmp_path)
    assert found.path == files[2]


# --- the line


def test_nobody_starts_before_all_have_come() -> None:
    line, started = StartLine((1, 2, 3)), []
    lock = threading.Lock()

    def go(guest: int) -> None:
        line.of(guest).meet()
        with lock:
            started.append(guest)

    threads = [threading.Thread(target=go, args=(guest,)) for guest in (1, 2)]
    for thread in threads:
        thread.start()
    with pytest.raises(DeadlineExceeded, match="guest 3 waited"):
        # It has come, and has come once more than the others ever will.
        line.meet(3)
        line.meet(3, Deadline(0.0, "now"))
    for thread in threads:
        thread.join(10)
    assert sorted(started) == [1, 2]


def test_who_has_left_is_not_waited_for() -> None:
    line = StartLine((1, 2))
    waits = threading.Thread(target=line.meet, args=(1,))
    waits.start()
    line.leave(2)
    line.leave(2)
    waits.join(10)
    assert not waits.is_alive()


def test_a_guest_is_waited_for_at_each_move_anew() -> None:
    line = StartLine((1, 2))
    line.leave(3)
    other = threading.Thread(target=lambda: [line.meet(2), line.meet(2)])
    other.start()
    line.meet(1)
    line.meet(1)
    other.join(10)
    with pytest.raises(DeadlineExceeded, match="to move together with guest 2"):
        line.meet(1, Deadline(0.0, "now"))


# --- at the same time


def test_when_each_was_under_way() -> None:
    run = EventStream()
    hosts = hosts_stream(run)
    one, two = (guest_stream(number, hosts, run) for number in (1, 2))
    for move in (1, 2):
        with one.step("migrate", move=move), two.step("migrate", move=move):
            for status in ("setup", "active"):
                migration(one, status)
                migration(two, status)
            # The destination's word is none of the source's.
            migration(one, "completed", "destination.qmp")
            migration(one, "completed")
            if move == 1:
                migration(two, "completed")
    jobs = jobs_of(run.history())
    assert sorted((job.guest, job.move, job.ended is not None) for job in jobs) == [
        (1, 1, True), (1, 2, True), (2, 1, True), (2, 2, False),
    ]  # fmt: skip


def test_together_is_what_all_have_in_common() -> None:
    jobs = [GuestJob(1, 1, 1.0, 3.0), GuestJob(2, 1, 2.0, 5.0), GuestJob(3, 1, 0.5, 2.5)]
    assert common_ms(jobs, 3, 1) == [500]
    assert common_ms([GuestJob(1, 1, 1.0, 2.0), GuestJob(2, 1, 2.5, 3.0)], 2, 1) == [0]
    # Of one that never became active, or never ended, nothing is known.
    assert common_ms(jobs, 4, 1) == [0]
    assert common_ms([GuestJob(1, 1, 1.0, 2.0), GuestJob(2, 1, 1.0)], 2, 1) == [0]
    assert common_ms(jobs, 3, 2) == [500, 0]


# --- the result


def merged(*results: Result, apart: bool = False) -> Result:
    jobs = [
        GuestJob(number, 1, 10.0 * number * apart, 5.0 + 10.0 * number * apart)
        for number in range(1, len(results) + 1)
    ]
    own = [of_guest(one, number) for number, one in enumerate(results, 1)]
    return of_all(own, jobs, 1, seed=5, replay="freepage run x", folder="runs/x", phases={"lab": 0.5})


GOOD = result(judge(info(), ALL_WELL))
BAD = result(judge(info(blocks=(state([1, 2, 0], [1, 0, 7], sent=[1, 0, 1]),)), ALL_WELL))


def test_the_gravest_verdict_is_the_runs_and_names_its_guest() -> None:
    assert GOOD.verdict == "pass"
    assert BAD.verdict == "fail"
    doubtful = GOOD.model_copy(update={"verdict": "inconclusive", "reason": "nothing was skipped"})
    document = merged(GOOD, doubtful, BAD)
    assert document.verdict == "fail"
    assert document.reason.startswith(f"guest 3: {BAD.reason}")
    assert {one.guest for one in document.findings} == {3}
    assert {one.guest for one in document.wrong_pages} == {3}
    assert all(one.text.startswith("guest 3: ") for one in document.findings)
    assert [one.verdict for one in document.guests.each] == ["pass", "inconclusive", "fail"]
    assert merged(GOOD, doubtful).verdict == "inconclusive"
    assert "guest 3" in shown(document)
    assert Result.from_json(document.to_json()) == document


def test_guests_that_were_not_under_way_together_have_shown_nothing() -> None:
    assert merged(GOOD, GOOD).verdict == "pass"
    document = merged(GOOD, GOOD, apart=True)
    assert document.verdict == "inconclusive"
    assert "not all under way at one time" in document.reason
    assert document.guests.together_ms == [0]
    # What is wrong is wrong all the same.
    assert merged(GOOD, BAD, apart=True).verdict == "fail"


def test_counts_are_sums_and_times_the_longest() -> None:
    slow = GOOD.model_copy(update={"time": GOOD.time.model_copy(update={"total_ms": 9000})})
    document = merged(GOOD, slow)
    assert document.pages.total == 2 * GOOD.pages.total
    assert document.protocol.requests == 2 * GOOD.protocol.requests
    assert document.bytes.sent == 2 * GOOD.bytes.sent
    assert document.time.total_ms == 9000
    assert document.phases == {"lab": 0.5, "boot": 2.0, "migrate": 1.2}
    assert document.guest.verify_pages == 20
    # What is not known of one is not known of all.
    never = GOOD.model_copy(update={"bytes": None, "time": None})
    assert (merged(GOOD, never).bytes, merged(GOOD, never).time) == (None, None)


# --- what is refused


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("migration: {to: file}", r":3:13: migration.to: does not go together with several guests"),
        ("migration: {over: unix}", r":3:13: migration.over: does not go together with several guests"),
        ("moves: [{migration: {to: save}}]", r":3:22: moves\[0\].migration.to: does not go together"),
        ("script: [{at: request, do: [{action: wire-cut}]}]", r"wire-cut is about the one network"),
        ("script: [{at: request, do: [{action: stall}]}]", r"stall is about the one network"),
        ("script: [{at: start, do: [{action: wire-change, delay_ms: 5}]}]", r"wire-change is about"),
        ("guest: {nics: [{backend: vhost-user}]}", r"guest.nics\[0\]: does not go together .* one bridge"),
        ("guest: {devices: [{device: pmem}]}", r"guest.devices\[0\]: does not go together"),
        ("guest: {disks: [{room: 64MiB}]}", r"guest.disks\[0\]: does not go together"),
    ],
)
def test_what_there_is_once_is_refused_at_its_place(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        scenario(tmp_path, text)
    scenario(tmp_path, text, guests=1)


def test_what_is_a_guests_own_goes(tmp_path: Path) -> None:
    scenario(tmp_path, "script: [{at: request, do: [{action: stall, by: reader}]}]\nwire: {delay_ms: 3}")
    scenario(tmp_path, "guest: {shared: 128MiB}\nmoves: [{}, {}]\nworkload: {kind: stream}")


@pytest.mark.parametrize("number", [0, 9])
def test_how_many(tmp_path: Path, number: int) -> None:
    with pytest.raises(InputError, match=r":2:1: guests: expected at"):
        scenario(tmp_path, guests=number)


def test_the_memory_of_all_guests_counts(tmp_path: Path) -> None:
    three = scenario(tmp_path, "guest: {memory: 256MiB, vcpus: 2}", guests=3)
    one = scenario(tmp_path, "guest: {memory: 256MiB, vcpus: 2}", guests=1)
    needed = needs_of(three, nested=False)
    assert needed.memory == needs_of(one, nested=False).memory + 2 * (2 * 256 * MIB + GUEST_MARGIN)
    assert needed.cpus == 6
    demand_memory(three, needed.memory)
    with pytest.raises(InputError, match="for each of 3 guests"):
        demand_memory(three, needed.memory - 1)
