# SPDX-License-Identifier: GPL-2.0-or-later
"""By what a migration past libvirt goes, and what does not go together with it."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from harness.errors import InputError
from harness.migration.modes import Modes
from harness.migration.qmp import Monitor
from harness.migration.route import Descriptor, Exec, Route, Tcp, Unix
from harness.scenario.load import load_scenario


class FakeMonitor:
    """Writes down what a QEMU is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Mapping[str, Any]]] = []
        self.files: dict[str, os.stat_result] = {}

    def execute(self, command: str, arguments: Any = None, *, at_once: bool = False) -> object:
        del at_once
        if command == "query-migrate":
            return {"socket-address": [{"port": "49153"}]}
        self.told.append((command, arguments))
        return {}

    def hand_file(self, descriptor: int, command: str, arguments: Mapping[str, Any]) -> None:
        assert command == "getfd"
        self.files[arguments["fdname"]] = os.fstat(descriptor)


def led(route: Route, *, again: bool = False) -> tuple[FakeMonitor, FakeMonitor]:
    """What source and destination were told."""
    source, destination = FakeMonitor(), FakeMonitor()
    lead = route.lead_again if again else route.lead
    lead(cast(Monitor, source), cast(Monitor, destination))
    return source, destination


def test_tcp_goes_to_the_port_that_the_destination_has_chosen() -> None:
    source, destination = led(Tcp("10.0.0.2"))
    assert destination.told == [("migrate-incoming", {"uri": "tcp:10.0.0.2:0"})]
    assert source.told == [("migrate", {"uri": "tcp:10.0.0.2:49153"})]


def test_between_listening_and_leaving_there_is_a_moment() -> None:
    source, destination = FakeMonitor(), FakeMonitor()
    told: list[tuple[int, int]] = []
    Tcp("10.0.0.2").lead(
        cast(Monitor, source),
        cast(Monitor, destination),
        lambda: told.append((len(destination.told), len(source.told))),
    )
    assert told == [(1, 0)]


def test_a_tap_is_gone_to_once() -> None:
    route = Tcp("10.0.0.2", tap=7777, again=(8888,))
    source, destination = led(route)
    assert destination.told == [("migrate-incoming", {"uri": "tcp:10.0.0.2:7777"})]
    assert source.told == [("migrate", {"uri": "tcp:127.0.0.1:7777"})]
    source, destination = led(route, again=True)
    assert destination.told == [("migrate-recover", {"uri": "tcp:10.0.0.2:8888"})]
    assert source.told == [("migrate", {"uri": "tcp:10.0.0.2:8888", "resume": True})]


class DeafMonitor(FakeMonitor):
    """A QEMU whose main loop waits: it does what is told it out of band."""

    def execute(self, command: str, arguments: Any = None, *, at_once: bool = False) -> object:
        assert at_once, f"{command} would wait for ever"
        return super().execute(command, arguments)

    def hand_file(self, descriptor: int, command: str, arguments: Mapping[str, Any]) -> None:
        raise AssertionError(f"{command} {arguments} with {descriptor} would wait for ever")


def test_a_recovery_asks_the_destinations_main_loop_for_nothing(tmp_path: Path) -> None:
    for route in (Tcp("10.0.0.2", again=(8887, 8888)), Unix(tmp_path), Descriptor(again=2)):
        led(route)
        for _ in range(2):
            source, destination = FakeMonitor(), DeafMonitor()
            route.lead_again(cast(Monitor, source), cast(Monitor, destination))
            [(command, there)] = destination.told
            assert command == "migrate-recover"
            assert source.told == [("migrate", {"uri": there["uri"], "resume": True})]
        assert not there["uri"].endswith(":0")
    uris = [f"fd:freepage-migration{end}" for end in ("", "-1", "-2")]
    assert there["uri"] == uris[2]


def test_channels_say_the_same_in_another_form(tmp_path: Path) -> None:
    def address(route: Route) -> Mapping[str, Any]:
        source, destination = led(route)
        for told in (source.told, destination.told):
            [(_, arguments)] = told
            assert set(arguments) == {"channels"}
            [channel] = arguments["channels"]
            assert channel["channel-type"] == "main"
        found: Mapping[str, Any] = channel["addr"]
        return found

    # As qapi/migration.json has them: MigrationAddress, SocketAddress.
    assert address(Tcp("10.0.0.2", channels=True)) == {
        "transport": "socket", "type": "inet", "host": "10.0.0.2", "port": "0",
    }  # fmt: skip
    assert address(Descriptor(channels=True))["type"] == "fd"
    assert address(Unix(tmp_path, channels=True))["type"] == "unix"
    assert address(Exec(tmp_path, channels=True))["args"][1].startswith("if=")


def test_a_unix_socket_is_a_new_one_each_time(tmp_path: Path) -> None:
    paths = set()
    for again in (False, True):
        source, destination = led(Unix(tmp_path), again=again)
        uri = destination.told[0][1]["uri"]
        assert source.told[0][1]["uri"] == uri
        paths.add(uri)
    assert len(paths) == 2
    assert all(path.startswith(f"unix:{tmp_path}/") for path in paths)


@pytest.mark.parametrize("one_way", [False, True])
def test_each_side_gets_an_end_of_its_own(one_way: bool) -> None:
    source, destination = led(Descriptor(one_way=one_way))
    [(name, end)], [(other, rest)] = source.files.items(), destination.files.items()
    assert name == other
    # A pipe is one file, of two sockets each is one.
    assert (end.st_ino == rest.st_ino) == one_way
    assert (stat.S_ISFIFO if one_way else stat.S_ISSOCK)(end.st_mode)
    assert source.told[0][1]["uri"] == destination.told[0][1]["uri"] == f"fd:{name}"


def test_a_program_on_each_side_of_a_fifo(tmp_path: Path) -> None:
    folder = tmp_path / "with a blank"
    folder.mkdir()
    source, destination = led(Exec(folder))
    [fifo] = folder.iterdir()
    assert stat.S_ISFIFO(fifo.stat().st_mode)
    assert f"'of={fifo}'" in source.told[0][1]["uri"]
    assert f"'if={fifo}'" in destination.told[0][1]["uri"]
    assert source.told[0][1]["uri"].startswith("exec:/")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("migration: {over: fd, multifd: 2}", "3:13: migration.over: fd is one connection"),
        ("migration: {over: exec, postcopy: true}", "exec goes one way only"),
        ("migration: {over: pipe, postcopy: true}", "pipe goes one way only"),
        ("migration: {file: {by: fd}}", "migration.file: goes only together with migration.to: file"),
        ("migration: {to: save, file: {by: fd}}", "migration.file.by: goes only together with"),
        ("migration: {to: file, mapped_ram: true, file: {by: fd}}", "does not go together with mapped_ram"),
        ("migration: {over: exec, capabilities: {return-path: true}}", "there is no return path"),
        ("migration: {over: unix, to: file}", "unix does not go together with migration.to: file"),
        ("migration: {address: channels, to: save}", "channels does not go together with migration.to: save"),
        ("migration: {over: unix}\nwire: {delay_ms: 1}", "the network that wire is about"),
        ("migration: {over: unix}\nscript: [{at: setup, do: [{action: wire-cut}]}]", "the script's wire-cut"),
        ("migration: {over: unix}\ntap: true", "tap: does not go together with a migration that goes over"),
        ("moves: [{}, {migration: {over: fd, multifd: 1}}]", "moves[1].migration.over: fd is one connection"),
        ("migration: {over: smoke}", "expected 'tcp', 'unix', 'fd', 'pipe' or 'exec'"),
    ],
)  # fmt: skip
def test_what_excludes_a_transport_is_refused(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"name: mine\narm: 'off'\n{text}\n", encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load_scenario(str(file))
    assert words in str(caught.value)


def test_what_is_not_tcp_goes_past_libvirt(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    stalled = "script: [{at: active, do: [{action: stall, by: reader}, {action: unstall}]}]"
    file.write_text(f"name: mine\nmigration: {{over: exec}}\n{stalled}\n", encoding="utf-8")
    modes = Modes.of(load_scenario(str(file)).migration)
    assert modes.direct == ("over",)
    assert "return-path" not in modes.all_capabilities()
