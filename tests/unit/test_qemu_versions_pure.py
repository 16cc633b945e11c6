# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMUs of other versions: what they print, where they keep RAMBlocks, what older libvirts say to them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from harness.hosts import qmp_filter
from harness.hosts.lab_qemu import LabQemu
from harness.hosts.qmp_filter import Lines, without_given_up
from harness.memory.qemu_ram import placed
from harness.migration.blocks import parse_address
from harness.migration.statistics import RamBlock, parse_ramblocks
from harness.plan.common_machine import newest_common
from harness.toolchain.questions import MachineType
from harness.toolchain.running_qemu import arguments_of, program_of

#: QEMU 7.2's table.
OLD_BLOCKS = """\
              Block Name    PSize              Offset               Used              Total
                  pc.ram    4 KiB  0x0000000000000000 0x0000000010000000 0x0000000010000000
    /rom@etc/acpi/tables    4 KiB  0x00000000100c0000 0x0000000000020000 0x0000000000200000
                 pc.bios    4 KiB  0x0000000010000000 0x0000000000040000 0x0000000000040000
"""


def test_ramblocks_of_a_qemu_that_does_not_tell_where_they_are() -> None:
    ram, tables, _ = parse_ramblocks(OLD_BLOCKS)
    assert (ram.name, ram.used, ram.address) == ("pc.ram", 256 << 20, None)
    assert (tables.used, tables.total) == (0x20000, 0x200000)


def test_where_a_part_of_a_block_is_so_is_the_block() -> None:
    said = "Host virtual address for 0xfffe0000 (pc.bios) is 0x7f9403620000\r\n"
    assert parse_address(said, 0x20000) == 0x7F9403600000
    assert parse_address("No memory is mapped at address 0x1\r\n") is None


MAPS = """\
7f9402a00000-7f9402a01000 rw-p 00000000 00:00 0
7f9402a01000-7f9402a02000 ---p 00000000 00:00 0
7f9402e00000-7f9403000000 rw-p 00000000 00:00 0
7f9403000000-7f9403001000 ---p 00000000 00:00 0
7f9403200000-7f9403240000 rw-p 00000000 00:00 0
7f9403240000-7f9403241000 ---p 00000000 00:00 0
7f9403600000-7f9403640000 rw-p 00000000 00:00 0
7f9403640000-7f9403641000 ---p 00000000 00:00 0
7f9403a00000-7f9403c00000 rw-p 00000000 00:00 0
7f9403e01000-7f9404001000 rw-p 00000000 00:00 0
7f9404001000-7f9404002000 ---p 00000000 00:00 0
"""


def block(name: str, total: int, address: int | None = None) -> RamBlock:
    return RamBlock(name, min(total, 0x1000), total, address)


def test_a_block_is_found_by_its_size() -> None:
    bios = block("pc.bios", 0x40000, 0x7F9403600000)
    found = placed(MAPS, [bios, block("rom", 0x40000), block("tables", 0x200000), block("rsdp", 0x1000)])
    # The BIOS's own place is taken; what has no guard, or lies elsewhere, is no block.
    places = [0x7F9403600000, 0x7F9403200000, 0x7F9402E00000, 0x7F9402A00000]
    assert [one.address for one in found] == places
    assert [one.total for one in found] == [0x40000, 0x40000, 0x200000, 0x1000]


def test_what_could_be_either_of_two_is_not_guessed() -> None:
    two_places = placed(MAPS, [block("rom", 0x40000)])
    two_blocks = placed(MAPS, [block("one", 0x200000), block("other", 0x200000)])
    assert [one.address for one in (*two_places, *two_blocks)] == [None, None, None]
    copy = LabQemu(os.getpid(), Path()).copy([block("nowhere", 0x7000000)])["nowhere"]
    assert isinstance(copy, OSError)
    assert "does not tell" in str(copy)


def machines(newest: str, *boards: str) -> dict[str, MachineType]:
    """The boards, each in the newest version and two older ones."""
    found = {}
    for plain in boards:
        kind = {"pc": "pc-i440fx", "q35": "pc-q35"}[plain]
        for version in ("2.9", "7.2", newest):
            name = f"{kind}-{version}"
            found[name] = MachineType(name, plain if version == newest else None, 255)
        found[plain] = found[name]
    return found


def test_between_two_versions_a_guest_has_the_machine_of_the_older() -> None:
    older, newer, newest = machines("7.2", "pc"), machines("10.0", "pc", "q35"), machines("11.1", "pc", "q35")
    assert newest_common("pc", [newer, older]) == newest_common("pc", [older, newer]) == "pc-i440fx-7.2"
    # 10.0 is newer than 7.2, and not older as a word is.
    assert newest_common("q35", [newer, newer]) == "pc-q35-10.0"
    assert newest_common("q35", [newest, newer]) == "pc-q35-7.2"
    assert newest_common("q35", [newer, older]) is None


def test_commands_of_an_older_libvirt() -> None:
    said = b'{"execute":"migrate","arguments":{"detach":true,"uri":"fd:migrate"},"id":"libvirt-7"}\r\n'
    got = json.loads(without_given_up(said))
    assert got == {"execute": "migrate", "arguments": {"uri": "fd:migrate"}, "id": "libvirt-7"}
    for other in (
        b'{"execute":"migrate","arguments":{"uri":"fd:migrate"}}\r\n',
        b'{"execute":"dump-guest-memory","arguments":{"detach":true}}\r\n',
        b'{"return":{},"id":"migrate"}\r\n',
        b'"migrate" is no command\r\n',
    ):
        assert without_given_up(other) == other


def test_a_command_may_come_in_pieces() -> None:
    lines = Lines()
    said = b'{"execute":"migrate","arguments":{"detach":true,"uri":"x"}}\n{"execute":"quit"}\n'
    got = b"".join(lines.take(said[at : at + 7]) for at in range(0, len(said), 7))
    assert [json.loads(line).get("arguments") for line in got.splitlines()] == [{"uri": "x"}, None]


#: Stands in for QEMU: answers on its monitor with what it was told and what came with it, and ends.
STAND_IN = """\
import os, socket, sys
word = next(word for word in sys.argv if word.startswith("socket,id=charmonitor"))
listening = socket.socket(fileno=int(word.split("fd=")[1].split(",")[0]))
connection, _ = listening.accept()
said, rights, *_ = socket.recv_fds(connection, 65536, 4)
passed = os.read(rights[0], 10).decode() if rights else ""
connection.sendall(said.strip() + b"|" + passed.encode() + b"\\n")
connection.sendall(b"last words\\n")
"""


def test_the_filter_stands_between(tmp_path: Path) -> None:
    """libvirt makes the socket, QEMU takes it as a descriptor; descriptors pass; nothing stays."""
    qemu = tmp_path / "qemu.py"
    qemu.write_text(f"#!{sys.executable}\n{STAND_IN}")
    qemu.chmod(0o755)
    place = tmp_path / "monitor"
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as libvirt:
        listening.bind(str(place))
        listening.listen(1)
        number = listening.fileno()
        words = [str(qemu), "-chardev", f"socket,id=charmonitor,fd={number},server=on,wait=off"]
        command = [sys.executable, "-I", "-S", qmp_filter.__file__, *words]
        with subprocess.Popen(command, pass_fds=[number]) as process:
            listening.close()
            libvirt.connect(str(place))
            reading, writing = os.pipe()
            os.write(writing, b"of the fd")
            said = b'{"execute":"migrate","arguments":{"detach":true,"fdname":"f"}}\n'
            socket.send_fds(libvirt, [said], [reading])
            answer = b""
            while piece := libvirt.recv(4096):
                answer += piece
            assert process.wait() == 0
            os.close(reading)
            os.close(writing)
    command_line, rest = answer.split(b"|")
    assert json.loads(command_line) == {"execute": "migrate", "arguments": {"fdname": "f"}}
    assert rest == b"of the fd\nlast words\n"


def test_arguments_of_a_command_by_its_schema() -> None:
    schema = [
        {"name": "migrate", "meta-type": "command", "arg-type": "17"},
        {"name": "17", "meta-type": "object", "members": [{"name": "uri"}, {"name": "detach"}]},
    ]
    assert arguments_of(schema, "migrate") == {"uri", "detach"}
    assert arguments_of(schema, "quit") == frozenset()
    assert arguments_of(None, "migrate") == frozenset()


def test_the_program_behind_a_loader() -> None:
    maps = (
        "555e-555f r--p 00000000 fd:00 1 /lib/x86_64-linux-gnu/libc.so.6\n"
        "5560-5561 r-xp 00000000 fd:00 1 /lib/x86_64-linux-gnu/libc.so.6\n"
        "5562-5563 r-xp 00000000 fd:00 2 /opt/a folder/qemu-system-x86_64\n"
    )
    behind = Path("/opt/a folder/qemu-system-x86_64")
    assert program_of(Path("/lib64/ld-linux-x86-64.so.2"), maps) == behind
    assert program_of(Path("/usr/bin/other"), maps) == Path("/usr/bin/other")
