# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a remote host will do, from what its deputy says of it; if not, what is missing, in words."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.arch import GUEST
from harness.errors import InputError, MachineryError
from harness.scenario.remote_uri import RemoteUri

#: Bytes that a run's folder needs beside what is copied into it: the device's records.
RECORDS_ROOM: Final = 256 << 20

_NOWHERE: Final = "No such file or directory"


class Room(BaseModel):
    """A folder in which a run may have one of its own."""

    model_config = ConfigDict(frozen=True, strict=True)

    path: str
    writable: bool
    programs: bool
    free: int


class DeputyFacts(BaseModel):
    """What a deputy says of its machine."""

    model_config = ConfigDict(frozen=True, strict=True)

    python: str
    arch: str
    kernel: str
    node: str
    uid: int
    user: str
    cpus: int
    memory_available: int
    sockets: dict[str, str]
    parents: list[Room]
    kvm: str

    @classmethod
    def of(cls, answer: Mapping[str, object], place: str) -> DeputyFacts:
        """Check the facts, which come from another machine, and build this from them."""
        try:
            return cls.model_validate({key: answer.get(key) for key in cls.model_fields})
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise MachineryError(f"what {place} says of itself makes no sense: {first['msg']}") from None


def demand_machine(facts: DeputyFacts, uri: RemoteUri) -> None:
    """Raise unless this machine, and this user on it, can be a host at all."""
    if facts.arch != GUEST.name:
        raise InputError(f"{uri.place} is a {facts.arch} machine; guests here are for {GUEST.name}")
    if not uri.session and facts.uid != 0:
        raise InputError(
            f"{facts.user} on {uri.place} cannot look into the QEMUs of the system's libvirt, "
            "which belong to another user",
            hint=f"qemu+ssh://root@{uri.host}/system, or {facts.user}'s own libvirt: "
            f"qemu+ssh://{facts.user}@{uri.host}/session",
        )


def working_socket(sockets: Mapping[str, str], uri: RemoteUri) -> str | None:
    """The socket that answers; None if nothing listens.  Raises if it is there but not for us."""
    for path, problem in sockets.items():
        if not problem:
            return path
    for path, problem in sockets.items():
        if "ermission" in problem:
            raise InputError(
                f"{uri.place} does not let this user speak with libvirt: {path}: {problem}",
                hint="on Debian: adduser USER libvirt, and log in anew",
            )
    return None


def no_libvirt(sockets: Mapping[str, str], uri: RemoteUri) -> InputError:
    """The error for a machine on which no libvirt daemon listens."""
    tried = ", ".join(f"{path} ({problem})" for path, problem in sockets.items())
    installed = any(problem != _NOWHERE for problem in sockets.values())
    return InputError(
        f"no libvirt daemon answers on {uri.place}: {tried}",
        hint="start it (systemctl start libvirtd)"
        if installed
        else "install libvirt-daemon-system and start it, or name its socket: ...?socket=PATH",
    )


def demand_machine_memory(available: int, memory: int, margin: int, name: str, place: str) -> None:
    """Raise unless a guest of this size fits."""
    if memory + margin > available:
        raise InputError(
            f"guest.memory: {memory >> 20} MiB do not fit on the {name} ({place}), which needs "
            f"{(memory + margin) >> 20} MiB and has {available >> 20} MiB available",
            hint="a smaller --memory, or another machine",
        )


def common_parent(hosts: Sequence[tuple[str, DeputyFacts]], needed: int) -> str:
    """A folder that every host has, with room for the run's own and leave to start programs from it.

    The same on all of them: a migration through a forwarded socket has one name for it on both sides.
    """
    first, *others = (facts for _, facts in hosts)
    for room in first.parents:
        everywhere = [room, *(r for facts in others for r in facts.parents if r.path == room.path)]
        if len(everywhere) == len(hosts) and all(
            r.writable and r.programs and r.free >= needed for r in everywhere
        ):
            return room.path
    told = "; ".join(f"{place}: {', '.join(map(_describe, facts.parents))}" for place, facts in hosts)
    raise InputError(
        f"the two hosts have no folder in common with {needed >> 20} MiB of room, from which programs "
        f"may be started: {told}",
        hint="make room below /var/tmp",
    )


def _describe(room: Room) -> str:
    lacks = [] if room.writable else ["not writable"]
    lacks += [] if room.programs else ["mounted noexec"]
    return f"{room.path} ({', '.join([f'{room.free >> 20} MiB free', *lacks])})"


@dataclass(frozen=True, slots=True)
class DaemonFacts:
    """What a libvirt daemon says of its host."""

    host_uuid: str
    #: Security models that would confine a guest: AppArmor, SELinux.
    confining: tuple[str, ...]
    #: User and group that QEMU runs as; None: the daemon's own.
    owner: tuple[int, int] | None

    @classmethod
    def of(cls, capabilities: str) -> DaemonFacts:
        """Read the daemon's capabilities (XML)."""
        root = ET.fromstring(capabilities)  # noqa: S314 - expat of a Python that bounds entities
        models, owner = [], None
        for secmodel in root.findall("host/secmodel"):
            model = secmodel.findtext("model", "")
            if model == "dac":
                owner = _owner(secmodel)
            elif model not in ("", "none"):
                models.append(model)
        return cls(root.findtext("host/uuid", ""), tuple(models), owner)


def _owner(secmodel: ET.Element) -> tuple[int, int] | None:
    label = secmodel.findtext("baselabel[@type='kvm']") or secmodel.findtext("baselabel") or ""
    parts = [part.lstrip("+") for part in label.split(":")]
    if len(parts) == 2 and all(part.isdecimal() for part in parts):
        return int(parts[0]), int(parts[1])
    return None
