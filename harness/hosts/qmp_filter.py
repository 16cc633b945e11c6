# SPDX-License-Identifier: GPL-2.0-or-later
"""Stands between libvirt and a QEMU that has given up a word which that libvirt still says.

libvirt up to 11 passes ``detach`` to ``migrate``; QEMU deprecated it and, from 11.1
on, refuses the whole command.  Where libvirt starts QEMU through this program, it
takes over the socket on which libvirt meets its monitor, gives QEMU another one, and
hands everything on, descriptors included, but for that word.

Started by path, as libvirt's ``<emulator>`` is, with QEMU's arguments behind QEMU:

    python -I -S qmp_filter.py QEMU ARGUMENT...

QEMU is this process, as libvirt wants it; the filter is its child, and ends when
QEMU does.  Where there is no such monitor (libvirt asks a QEMU about itself) nothing
stands between.
"""

from __future__ import annotations

import array
import json
import os
import re
import selectors
import socket
import sys
from typing import NoReturn

#: libvirt's monitor, as it tells QEMU of it.
_MONITOR = re.compile(r"(socket,id=charmonitor,fd=)(\d+)(,.*)")
#: Of a command's arguments, those that libvirt says and QEMU has given up.
GIVEN_UP = {"migrate": ("detach",)}
_LARGEST = 1 << 16
_MOST_DESCRIPTORS = 16
#: Behind this much without a line's end there is no command to be read.
_LONGEST_LINE = 1 << 26


class Lines:
    """Bytes that come in pieces, as whole lines."""

    def __init__(self) -> None:
        self._rest = b""

    def take(self, piece: bytes) -> bytes:
        """The lines that are whole by now, each without the arguments that are given up."""
        whole, end, rest = (self._rest + piece).rpartition(b"\n")
        if len(rest) > _LONGEST_LINE:
            raise OSError("a command without an end")
        self._rest = rest
        return b"".join(without_given_up(line) for line in (whole + end).splitlines(keepends=True))


def without_given_up(line: bytes) -> bytes:
    """A line of QMP, without arguments that QEMU has given up; any other line as it is."""
    if not any(f'"{name}"'.encode() in line for name in GIVEN_UP):
        return line
    try:
        command = json.loads(line)
        words = GIVEN_UP[command["execute"]]
        kept = {name: value for name, value in command["arguments"].items() if name not in words}
    except (ValueError, LookupError, TypeError, AttributeError):
        return line
    if kept == command["arguments"]:
        return line
    return json.dumps({**command, "arguments": kept}).encode() + b"\r\n"


def main(words: list[str]) -> None:
    """Become QEMU; a child of it hands libvirt's commands on."""
    place = next((at for at, word in enumerate(words) if _MONITOR.fullmatch(word)), None)
    if place is None:
        _become(words)
    match = _MONITOR.fullmatch(words[place])
    assert match is not None
    libvirts = socket.socket(fileno=int(match[2]))
    # No path of it: nobody else can meet QEMU there.
    inner = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    inner.bind(b"")
    inner.listen(1)
    address = inner.getsockname()
    qemu = os.getpid()
    if os.fork() == 0:
        inner.close()
        _serve(libvirts, address, qemu)
        os._exit(0)
    libvirts.close()
    os.set_inheritable(inner.fileno(), True)
    words[place] = f"{match[1]}{inner.fileno()}{match[3]}"
    _become(words)


def _become(words: list[str]) -> NoReturn:
    os.execv(words[0], words)  # noqa: S606 - there is none to be had


def _serve(libvirts: socket.socket, address: bytes, qemu: int) -> None:
    """Connect each that meets us to QEMU, one after the other, until QEMU is gone."""
    # Of what QEMU was given to hold open, nothing is held open here.
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(nothing, number)
    kept = libvirts.fileno()
    os.closerange(3, kept)
    os.closerange(kept + 1, os.sysconf("SC_OPEN_MAX"))
    with selectors.DefaultSelector() as selector:
        selector.register(libvirts, selectors.EVENT_READ)
        selector.register(os.pidfd_open(qemu), selectors.EVENT_READ)
        while all(key.fileobj is libvirts for key, _ in selector.select()):
            outer, _ = libvirts.accept()
            with outer, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as inner:
                inner.connect(address)
                _carry(outer, inner)


def _carry(libvirt: socket.socket, qemu: socket.socket) -> None:
    """Both ways, until one of them ends.  What QEMU has said by then has arrived."""
    commands, descriptors = Lines(), array.array("i")
    with selectors.DefaultSelector() as selector:
        selector.register(libvirt, selectors.EVENT_READ)
        selector.register(qemu, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is qemu:
                    answer = qemu.recv(_LARGEST)
                    if not answer:
                        return
                    libvirt.sendall(answer)
                    continue
                data, more, _, _ = socket.recv_fds(libvirt, _LARGEST, _MOST_DESCRIPTORS)
                if not data:
                    return
                descriptors.extend(more)
                # A descriptor comes with the command that speaks of it, or with a part of that.
                lines = commands.take(data)
                if lines:
                    _send(qemu, lines, descriptors)
                    descriptors = array.array("i")


def _send(sink: socket.socket, data: bytes, descriptors: array.array[int]) -> None:
    if descriptors:
        sent = sink.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
        data = data[sent:]
        for descriptor in descriptors:
            os.close(descriptor)
    sink.sendall(data)


if __name__ == "__main__":
    main(sys.argv[1:])
