# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a tap listens, where a scenario leaves it open; and which connection is which."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import InputError, MachineryError
from harness.evidence.wire_witness import heard_stream
from harness.migstream.folder import StreamFiles, stream_files
from harness.migstream.source import StreamError, UnknownFormError
from harness.plan.tapped import decide_tap
from harness.scenario.load import load_scenario
from harness.scenario.resolve import MachineFacts, resolve
from harness.toolchain.qemu import QemuBinary
from tests.unit.test_migstream_multifd import GREETING, MAIN, channels

STOCK = QemuBinary(Path("/qemu"), (), "10.0.0", "0", "stock", False, True)
PATCHED = replace(STOCK, flavour="patched", has_free_page_info=True, has_record=True, has_hold=True)


def decided(*changes: str, scenario: str = "idle", qemu: QemuBinary = STOCK, local: bool = True) -> object:
    loaded = load_scenario(scenario, ["arm=off", *changes])
    return decide_tap(resolve(loaded, MachineFacts(64 << 30)), qemu, local=local).scenario.tap


def test_it_listens_where_nobody_else_says_what_was_sent() -> None:
    assert decided() is True
    assert decided("migration.multifd=4") is True
    assert decided(qemu=PATCHED) is False
    assert decided(qemu=replace(PATCHED, has_record=False)) is True
    assert decided(local=False) is False


@pytest.mark.parametrize(
    "change", ["migration.tls=true", "wire.delay_ms=1", "guest.shared=1GiB", "migration.to=file"]
)
def test_it_does_not_where_it_would_hear_nothing_or_be_in_the_way(change: str) -> None:
    assert decided(change) is False


def test_it_is_not_put_into_a_wire_that_the_script_touches() -> None:
    assert decided(scenario="stalled") is False
    assert decided("tap=true", scenario="stalled") is True


def test_what_is_said_holds() -> None:
    assert decided("tap=false") is False
    assert decided("tap=true", qemu=PATCHED) is True
    assert decided("tap=true", "migration.tls=true") is True


@pytest.mark.parametrize(
    ("change", "name"), [("guest.shared=1GiB", "guest.shared"), ("migration.to=file", "migration.to: file")]
)
def test_what_it_cannot_hear_is_refused(change: str, name: str) -> None:
    with pytest.raises(InputError, match=f"does not go together with {name}"):
        load_scenario("idle", ["arm=off", "tap=true", change])
    with pytest.raises(InputError, match="script: postcopy-recover"):
        load_scenario("postcopy-recover", ["tap=true"])


def write(folder: Path, *connections: bytes) -> list[Path]:
    for number, connection in enumerate(connections, 1):
        (folder / f"{number}.stream").write_bytes(connection)
    return list(stream_files(folder))


def test_connections_are_told_apart_by_how_they_begin(tmp_path: Path) -> None:
    one, other = channels(0)
    files = StreamFiles.of(write(tmp_path, one, MAIN, b"", other, b"\0\0\0\0urgent", *[b""] * 6))
    assert (files.main.name, [path.name for path in files.channels]) == ("2.stream", ["1.stream", "4.stream"])
    assert files.urgent is not None
    assert files.urgent.name == "5.stream"
    assert [path.name for path in stream_files(tmp_path)][-2:] == ["10.stream", "11.stream"]


def test_a_folder_is_read(tmp_path: Path) -> None:
    guest = StreamFiles.of(write(tmp_path, MAIN, *channels(0))).read()
    assert guest.blocks["pc.ram"].full == 6
    guest.close()


@pytest.mark.parametrize(
    ("connections", "words"),
    [([b"\x16\x03\x01\x02", b"\x16\x03\x01\x02"], "encrypted"), ([MAIN, MAIN], "several migrations")],
)
def test_what_cannot_be_read_is_said(tmp_path: Path, connections: list[bytes], words: str) -> None:
    with pytest.raises(UnknownFormError) as caught:
        StreamFiles.of(write(tmp_path, *connections))
    assert words in caught.value.form


def test_no_migration_at_all(tmp_path: Path) -> None:
    with pytest.raises(StreamError, match="none of the connections"):
        StreamFiles.of(write(tmp_path, GREETING, b""))


@pytest.mark.parametrize(
    ("connection", "words"), [(MAIN[:500], "cannot be read: at byte"), (b"\x16\x03\x01", "encrypted")]
)
def test_a_stream_of_another_form_leaves_bytes_and_a_reason(
    tmp_path: Path, connection: bytes, words: str
) -> None:
    write(tmp_path, connection)
    with heard_stream(tmp_path) as heard:
        assert heard.size == len(connection)
        assert words in (heard.unread or "")
        assert heard.sent("pc.ram", 8) is None


def test_a_tap_that_heard_nothing(tmp_path: Path) -> None:
    write(tmp_path, b"")
    with pytest.raises(MachineryError, match="heard no migration"), heard_stream(tmp_path):
        pass


def test_what_is_heard_says_what_was_sent(tmp_path: Path) -> None:
    write(tmp_path, MAIN, *channels(0))
    with heard_stream(tmp_path) as heard:
        sent = heard.sent("pc.ram", 8)
        assert sent is not None
        assert list(sent) == [True] * 6 + [False] * 2
        assert heard.sent("pc.ram", 9) is None
        assert heard.sendings()["pc.ram"].of(3)[0][0] == 1
