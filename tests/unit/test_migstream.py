# SPDX-License-Identifier: GPL-2.0-or-later
"""A migration stream, read from outside: what is in it, and what is none."""

from __future__ import annotations

import contextlib
import io
import json
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.cli.stream import show_stream
from harness.errors import InputError
from harness.migstream.account import StreamedGuest, read_stream
from harness.migstream.source import Source, StreamError
from harness.migstream.xbzrle import apply_delta

PAGE = 4096
HEAD = struct.pack(">II", 0x5145564D, 3)
EOS = struct.pack(">Q", 0x10)


def name(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()


def configuration(*capabilities: str, bits: int | None = None) -> bytes:
    machine = b"pc-i440fx-10.0"
    data = b"\x07" + struct.pack(">I", len(machine)) + machine
    if bits is not None:
        data += b"\x05" + name("configuration/target-page-bits") + struct.pack(">II", 1, bits)
    if capabilities:
        data += b"\x05" + name("configuration/capabilities") + struct.pack(">II", 1, len(capabilities))
        data += b"".join(map(name, capabilities))
    return data


def section(kind: int, number: int, what: str, data: bytes, instance: int = 0, version: int = 4) -> bytes:
    head = bytes([kind]) + struct.pack(">I", number)
    if kind in (1, 4):
        head += name(what) + struct.pack(">II", instance, version)
    return head + data + b"\x7e" + struct.pack(">I", number)


def setup(blocks: dict[str, int]) -> bytes:
    data = struct.pack(">Q", sum(blocks.values()) | 0x04)
    for block, size in blocks.items():
        data += name(block) + struct.pack(">Q", size)
    return section(1, 2, "ram", data + EOS)


def full(page: int, content: bytes, block: str | None = None) -> bytes:
    flags = 0x08 | (0x20 if block is None else 0)
    return struct.pack(">Q", page * PAGE | flags) + (name(block) if block else b"") + content


def zero(page: int, block: str | None = None) -> bytes:
    flags = 0x02 | (0x20 if block is None else 0)
    return struct.pack(">Q", page * PAGE | flags) + (name(block) if block else b"") + b"\0"


def delta(page: int, data: bytes) -> bytes:
    return struct.pack(">QBH", page * PAGE | 0x60, 1, len(data)) + data


DEVICE = b"some state \x7e\0\0\0\x05 that looks like a footer"
DESCRIPTION = json.dumps({"page_size": PAGE, "devices": []}).encode()


def stream(*middle: bytes, tail: bytes | None = None) -> bytes:
    end = b"\0\x06" + struct.pack(">I", len(DESCRIPTION)) + DESCRIPTION if tail is None else tail
    return b"".join([HEAD, configuration(), setup({"pc.ram": 8 * PAGE, "rom": PAGE}), *middle, end])


def read(data: bytes) -> StreamedGuest:
    return read_stream(io.BytesIO(data))


ONE, TWO = bytes([1]) * PAGE, bytes([2]) * PAGE
SOUND = stream(
    section(2, 2, "ram", full(0, ONE, "pc.ram") + full(1, ONE) + zero(2) + full(0, TWO, "rom") + EOS),
    section(4, 5, "timer", DEVICE),
    section(3, 2, "ram", full(1, TWO, "pc.ram") + zero(0) + delta(1, bytes([2, 3]) + b"abc") + EOS),
    section(4, 6, "0000:00:02.0/virtio-net", b"\0", instance=1, version=11),
)


def test_what_is_in_a_stream() -> None:
    account = read(SOUND)
    contents = account.contents
    assert contents.machine == "pc-i440fx-10.0"
    assert contents.size == len(SOUND)
    assert contents.memory_sections == 3
    assert contents.description == {"page_size": PAGE, "devices": []}
    assert [(one.name, one.instance, one.version, one.state) for one in contents.devices] == [
        ("timer", 0, 4, DEVICE),
        ("0000:00:02.0/virtio-net", 1, 11, b"\0"),
    ]
    assert SOUND[contents.devices[0].offset :][:1] == b"\x04"
    ram, rom = account.blocks["pc.ram"], account.blocks["rom"]
    assert (ram.full, ram.zero, ram.delta, ram.delta_bytes) == (3, 2, 1, 5)
    assert list(ram.times) == [2, 3, 1, 0, 0, 0, 0, 0]
    assert (ram.pages, ram.sent_pages, ram.sent_again) == (8, 3, 2)
    assert (rom.full, rom.sent_pages) == (1, 1)
    # The last write wins; a delta is of what was there; what never came is zero.
    memory = account.memory["pc.ram"]
    assert memory[:PAGE] == bytes(PAGE)
    assert memory[PAGE : 2 * PAGE] == b"\2\2abc" + TWO[5:]
    assert memory[2 * PAGE :] == bytes(6 * PAGE)
    assert account.memory["rom"][:] == TWO
    account.close()


def test_a_block_that_nothing_came_to_is_told() -> None:
    account = read(stream())
    assert account.blocks["pc.ram"].sent_pages == 0
    assert account.memory["pc.ram"][:] == bytes(8 * PAGE)


def test_pages_are_counted_without_memory() -> None:
    account = read_stream(io.BytesIO(SOUND), keep=False)
    assert account.blocks["pc.ram"].sent_again == 2
    assert not account.memory


def test_commands_and_a_package() -> None:
    package = b"\x08" + struct.pack(">HH", 4, 0)
    package += section(4, 5, "timer", DEVICE) + b"\x08" + struct.pack(">HH", 5, 0)
    data = stream(
        b"\x08" + struct.pack(">HHI", 2, 4, 1),
        b"\x08" + struct.pack(">HHI", 7, 4, len(package)) + package,
        section(3, 2, "ram", full(3, ONE, "pc.ram") + EOS),
        tail=b"\0",
    )
    account = read(data)
    assert account.contents.commands == ["ping", "packaged", "postcopy-listen", "postcopy-run"]
    assert [one.name for one in account.contents.devices] == ["timer"]
    assert account.contents.description is None


def test_flushes_of_multifd_and_shared_memory() -> None:
    flush = struct.pack(">Q", 0x200)
    blocks = struct.pack(">Q", PAGE | 4) + name("a") + struct.pack(">QQ", PAGE, 1 << 32)
    data = HEAD + configuration("x-ignore-shared") + section(1, 2, "ram", blocks + flush + EOS) + b"\0"
    account = read(data)
    assert account.contents.capabilities == ("x-ignore-shared",)
    assert account.contents.flushes == 1


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "ends within the stream's head"),
        (b"\x7fELF" + bytes(100), "no migration stream"),
        (HEAD + b"\x09", "unknown type 0x9"),
        (SOUND[:-1], "ends within the description"),
        (SOUND[: len(SOUND) // 2], "ends within"),
        (HEAD + configuration(bits=30), "pages of 2"),
        (stream(section(2, 9, "ram", EOS)), "section 9 goes on, but never began"),
        (stream(section(2, 2, "ram", full(8, ONE, "pc.ram") + EOS)), "page 8 is not in 'pc.ram'"),
        (stream(section(2, 2, "ram", full(0, ONE, "nobody") + EOS)), "not announced"),
        (stream(section(2, 2, "ram", full(0, ONE) + EOS)), "it is the first"),
        (stream(section(2, 2, "ram", struct.pack(">Q", 0x80) + EOS)), "RDMA"),
        (stream(section(2, 2, "ram", struct.pack(">Q", 0x100) + name("pc.ram") + EOS)), "unknown flags"),
        (stream(section(2, 2, "ram", zero(0, "pc.ram")[:-1] + b"\7" + EOS)), "something else than zeros"),
        (stream(section(2, 2, "ram", zero(0, "pc.ram") + delta(0, b"\0") + EOS)), "a delta of page 0"),
        (stream(section(2, 2, "ram", EOS)[:-1] + b"\7"), "footer of section 2"),
        (stream(b"\x08" + struct.pack(">HH", 99, 0)), "unknown command 99"),
        (stream(tail=b"\0\x06" + struct.pack(">I", 3) + b"abc"), "no JSON"),
        (HEAD + configuration() + setup({"a": 1 << 60}), "the block 'a' has"),
    ],
)
def test_what_is_no_stream_is_said_with_its_place(data: bytes, words: str) -> None:
    with pytest.raises(StreamError, match=r"at byte \d+: ") as caught:
        read(data)
    assert words in caught.value.message


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_stream_does_harm(data: st.DataObject) -> None:
    """One that was changed or cut anywhere is read, or refused in words."""
    changed = bytearray(SOUND)
    for _ in range(data.draw(st.integers(1, 8))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    changed = changed[: data.draw(st.integers(0, len(changed)))]
    with contextlib.suppress(StreamError):
        read(bytes(changed)).close()


@given(st.binary(max_size=64), st.binary(min_size=16, max_size=16))
def test_a_delta_makes_a_page_or_none(text: bytes, old: bytes) -> None:
    try:
        new = apply_delta(old, text)
    except ValueError:
        return
    assert len(new) == len(old)


@pytest.mark.parametrize(
    ("text", "new"),
    [
        (b"", b"0123456789"),
        (b"\0\2ab", b"ab23456789"),
        (b"\3\2ab\2\1c", b"012ab56c89"),
        (b"\x80\0\2ab", b"ab23456789"),
    ],
)
def test_a_delta(text: bytes, new: bytes) -> None:
    assert apply_delta(b"0123456789", text) == new


@pytest.mark.parametrize("text", [b"\0", b"\0\0", b"\x0a\1a", b"\0\3ab", b"\1\1a\0\1b", b"\x80\x80\1a"])
def test_what_is_no_delta(text: bytes) -> None:
    with pytest.raises(ValueError):
        apply_delta(b"0123456789", text)


def test_the_source_gives_what_a_pipe_gives() -> None:
    class Pipe:
        def __init__(self, data: bytes) -> None:
            self._data = io.BytesIO(data)

        def read(self, size: int, /) -> bytes:
            return self._data.read(min(size, 3))

    source = Source(Pipe(bytes(range(20))))
    assert source.u16("two") == 1
    assert source.peek(4) == bytes([2, 3, 4, 5])
    source.skip_to(12, "twelve")
    assert (source.u8("twelve"), source.offset) == (12, 13)
    assert source.take(7, "the rest") == bytes(range(13, 20))
    with pytest.raises(StreamError, match="at byte 20"):
        source.take(1, "more")


def test_the_command_says_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "stream"
    file.write_bytes(SOUND)
    show_stream(file, json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["blocks"][0]["pages_sent_again"] == 2
    show_stream(file)
    assert "pc.ram" in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"no stream", SOUND[:100]])
def test_the_command_refuses_what_is_none(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "stream"
    file.write_bytes(content)
    with pytest.raises(InputError, match="at byte"):
        show_stream(file)
    with pytest.raises(InputError, match="No such file"):
        show_stream(tmp_path / "nothing")
    with pytest.raises(InputError, match="not a regular file"):
        show_stream(Path("/dev/zero"))
