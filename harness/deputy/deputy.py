# SPDX-License-Identifier: GPL-2.0-or-later
"""What the harness can have done on this machine, verb by verb."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from . import machine, qemus
from .files import Folder, digest_of, fetch
from .keeper import Keeper
from .memory import MemoryLooks
from .programs import ask
from .tidy import Traces, tidy
from .wire import Frame, Header

_Answer = tuple[Header, bytes]


class Deputy:
    """One run's deputy.  ``answer`` does what a frame asks for."""

    def __init__(self, keeper: Keeper, own: str) -> None:
        """``own``: where the deputy itself lies."""
        self._keeper = keeper
        self._own_folder = own
        self._traces = Traces()
        self._places = machine.places(session=False)
        self._folder: Folder | None = None
        self._memory = MemoryLooks()
        self._verbs: dict[str, Callable[[Header, bytes], _Answer]] = {
            "facts": self._facts,
            "greet": lambda *_: ({"path": machine.greet(self._own_folder)}, b""),
            "try-socket": lambda header, _: ({"problem": machine.try_socket(header["path"])}, b""),
            "session": self._session,
            "folder": self._make_folder,
            "guest": self._guest,
            "put": self._put,
            "sha256": lambda header, _: ({"sha256": digest_of(header["path"])}, b""),
            "open-to-all": self._open_to_all,
            "existing": lambda header, _: (
                {"paths": [path for path in header["paths"] if os.path.exists(path)]},
                b"",
            ),
            "fetch": self._fetch,
            "ask": lambda header, _: (ask(header["command"], header["seconds"], header["word"]), b""),
            "find": self._find,
            "memory": lambda *_: ({"available": machine.memory_available()}, b""),
            "key": self._key,
            "open": lambda header, _: ({"images": self._memory.open(header["pid"], _blocks(header))}, b""),
            "copy": self._copy,
            "close": self._close,
            "digest": self._digest,
            "drop": self._drop,
            "same": lambda header, _: ({}, self._memory.same(header["before"], header["after"])),
            "chunks": lambda header, data: ({}, self._memory.chunks(header["look"], header["chunk"], data)),
            "pages": lambda header, data: ({}, self._memory.pages(header["look"], data)),
            "firsts": lambda header, data: ({}, self._memory.firsts(header["look"], data)),
            "read": lambda header, known: (
                {},
                self._memory.read(header["image"], header["first"], header["count"], known),
            ),
            "search": lambda header, data: ({"pages": self._memory.search(header["image"], data)}, b""),
            "page": lambda header, _: ({}, self._memory.page(header["image"], header["page"])),
            "leave": self._leave,
        }

    def answer(self, frame: Frame) -> _Answer:
        """What came of a request; what went wrong is an answer too."""
        header, payload = frame
        verb = self._verbs.get(str(header.get("verb")))
        try:
            if verb is None:
                raise ValueError(f"no such verb: {header.get('verb')!r}")
            found, data = verb(header, payload)
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            return {"id": header.get("id"), "error": f"{where}{error.strerror or error}"}, b""
        except (KeyError, ValueError, TypeError) as error:
            return {"id": header.get("id"), "error": f"{type(error).__name__}: {error}"}, b""
        return {"id": header.get("id"), "ok": True, **found}, data

    def _facts(self, header: Header, _: bytes) -> _Answer:
        self._places = machine.places(header["session"])
        return machine.facts(header["session"]), b""

    def _session(self, _header: Header, _payload: bytes) -> _Answer:
        """Start this user's own libvirt daemon."""
        process, name = machine.start_session(self._places)
        if process:
            self._traces.daemon, self._traces.program = process, name
            self._keeper.note(self._traces)
        sockets = {path: machine.try_socket(path) for path in self._places.sockets}
        return {"started": name, "sockets": sockets}, b""

    def _make_folder(self, header: Header, _: bytes) -> _Answer:
        path = header["path"]
        if self._traces.folder or os.path.lexists(path):
            raise ValueError(f"{path}: exists already")
        # Said to the keeper first: there must be no moment in which it would be overlooked.
        self._traces.folder = path
        self._keeper.note(self._traces)
        self._folder = Folder(path, header["owner"], header["group"])
        return {}, b""

    def _guest(self, header: Header, _: bytes) -> _Answer:
        """The guest's name and its emulator, and with them what libvirt will leave behind of it."""
        name = header["name"]
        log = f"{self._places.logs}/{name}.log"
        learnt = machine.capability_file(self._places, header["emulator"])
        found = [path for path in (log, learnt) if not os.path.lexists(path)]
        self._traces.guest = name
        self._traces.files = found
        self._traces.states = [f"{self._places.states}/{name}.{kind}" for kind in ("xml", "pid")]
        self._keeper.note(self._traces)
        return {"log": log}, b""

    def _own(self) -> Folder:
        if self._folder is None:
            raise ValueError("there is no folder yet")
        return self._folder

    def _put(self, header: Header, part: bytes) -> _Answer:
        self._own().put(
            header["name"], part, first=header["first"], mode=header["mode"], sha256=header["sha256"]
        )
        return {}, b""

    def _open_to_all(self, header: Header, _: bytes) -> _Answer:
        self._own().open_to_all(header["name"])
        return {}, b""

    def _fetch(self, header: Header, _: bytes) -> _Answer:
        return fetch(header["path"], header["offset"])

    def _find(self, _header: Header, _payload: bytes) -> _Answer:
        """The guest's QEMUs, with their command lines."""
        found = qemus.find(self._traces.guest, self._own().path)
        return {"processes": [[pid, qemus.command_of(pid)] for pid in found]}, b""

    def _key(self, _: Header, key: bytes) -> _Answer:
        self._memory.set_key(key)
        return {}, b""

    def _copy(self, header: Header, _: bytes) -> _Answer:
        images, failed = self._memory.copy(header["pid"], _blocks(header))
        return {"images": images, "failed": failed}, b""

    def _close(self, header: Header, _: bytes) -> _Answer:
        self._memory.close(header["image"])
        return {}, b""

    def _digest(self, header: Header, _: bytes) -> _Answer:
        number, flags = self._memory.digest(header["image"])
        return {"look": number}, flags

    def _drop(self, header: Header, _: bytes) -> _Answer:
        self._memory.drop(header["look"])
        return {}, b""

    def _leave(self, _header: Header, _payload: bytes) -> _Answer:
        left = tidy(self._traces)
        self._traces = Traces()
        self._folder = None
        # What could not be taken away now will not be later either; the harness says so.
        self._keeper.farewell()
        return {"left": left}, b""


def _blocks(header: dict[str, Any]) -> list[tuple[str, int, int]]:
    return [(str(name), int(address), int(used)) for name, address, used in header["blocks"]]
