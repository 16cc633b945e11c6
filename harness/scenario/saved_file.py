# SPDX-License-Identifier: GPL-2.0-or-later
"""The section ``migration.file``: the file through which a guest goes, and what is done to it on its way."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import Field
from pydantic_core import PydanticCustomError

from harness.scenario.values import Section, Share, Size, Text

#: Where a guest goes: to the other host at once, or by way of a file.
Way: TypeAlias = Literal["host", "file", "save", "savevm", "background-snapshot"]

#: The ways on which QEMU itself writes its migration stream to a file.
STREAMED: Final = ("file", "background-snapshot")

#: Keys of the section ``migration`` that stand for modes of a stream between two QEMUs.
_OF_A_STREAM: Final = ("multifd", "xbzrle", "auto_converge", "zero_pages", "bandwidth", "clear_bitmap_shift")


class SavedFile(Section):
    """The file through which the guest goes."""

    by: Literal["path", "fd", "fdset"] = "path"
    """How QEMU, which writes and reads it itself (to: file, background-snapshot), is told of it. path: by its
    name. fd: it is given the open file (QMP's getfd). fdset: the same, in a set (add-fd, /dev/fdset/N)."""
    keep: bool = False
    """Leave the file in the run folder. Else it goes when the run ends, as it is as large as a guest; unless
    the memory that was restored is wrong."""
    used_memory: bool = False
    """Restore over memory that is not zero: before the destination's QEMU reads the file, every byte of its
    guest's memory is set to 0xAA. Not with arm hint, which leaves pages out and clears nothing, nor with
    to: save, whose QEMU nobody can reach before libvirt lets it read."""
    compression: Literal["gzip", "bzip2", "xz"] | None = None
    """to: save: have libvirt compress the file; null: it does not."""
    cut_to: Share | None = None
    """Cut the file off after so much of it, before it is restored: QEMU must not take it, and the guest must
    go on where it was. Not with to: save, which ends the source's QEMU."""
    instead: Annotated[Text, Field(min_length=1)] | None = None
    """Restore this file instead, one of another run's (`keep`); as with `cut_to` QEMU must not take it."""
    room: Size | None = None
    """Write the file to a file system of the lab's own, in memory, that holds no more than this."""


def demand_way(scenario: Any, how: Any) -> None:
    """Raise pydantic's error, at its place, for what does not go together with the way of a guest.

    ``how`` is the scenario's section ``migration``.
    """
    way, file = how.to, how.file
    streamed = "file" if way in STREAMED else way

    def refuse(key: str, words: str, **names: object) -> None:
        path = ("migration", *key.split("."))
        raise PydanticCustomError("at", words, {"path": path, "way": way, **names})

    if way == "host":
        for key in ("mapped_ram", "direct_io"):
            if getattr(how, key):
                refuse(key, "goes only together with migration.to: file")
        if file != SavedFile():
            refuse("file", "goes only together with migration.to: file, save, savevm or background-snapshot")
        return
    if scenario.remote is not None:
        refuse(
            "to", "{way} takes a folder that both hosts see: only a lab has one, not two machines of yours"
        )
    for key in ("tls", "postcopy"):
        if getattr(how, key):
            refuse(key, "does not go together with migration.to: {way}")
    if streamed != "file" or way == "background-snapshot":
        for key in ("mapped_ram", "direct_io", *_OF_A_STREAM):
            if getattr(how, key):
                refuse(key, "does not go together with migration.to: {way}")
    if how.multifd and not how.mapped_ram:
        refuse("multifd", "writes to a file only together with migration.mapped_ram")
    if how.xbzrle and how.mapped_ram:
        refuse("xbzrle", "does not go together with migration.mapped_ram")
    if how.direct_io and not (how.mapped_ram and how.multifd):
        refuse("direct_io", "goes only with mapped_ram and multifd: QEMU opens no other file that way")
    if file.by != "path" and streamed != "file":
        refuse("file.by", "goes only together with migration.to: file or background-snapshot")
    if file.by == "fd" and how.mapped_ram:
        refuse("file.by", "does not go together with mapped_ram: QEMU takes that of a path or a set")
    if file.compression is not None and way != "save":
        refuse("file.compression", "goes only together with migration.to: save")
    if file.used_memory and way == "save":
        refuse("file.used_memory", "does not go together with migration.to: save")
    if file.used_memory and scenario.arm == "hint":
        refuse("file.used_memory", "expected arm: off or info: what hint leaves out keeps what it held")
    for key in ("cut_to", "instead"):
        if way == "save" and getattr(file, key) is not None:
            refuse(f"file.{key}", "does not go together with migration.to: {way}: the guest would be nowhere")
    if file.cut_to is not None and file.instead is not None:
        refuse("file.cut_to", "does not go together with migration.file.instead")
    for index, entry in enumerate(scenario.script if way == "background-snapshot" else ()):
        # The guest that is restored knows nothing of what it did after the snapshot's moment.
        if entry.at not in ("start", "resumed") and any(action.needs_guest for action in entry.do):
            path = ("script", index, "at")
            words = "expected start or resumed: what the guest does meanwhile is in no background snapshot"
            raise PydanticCustomError("at", words, {"path": path})
    on_disk = scenario.guest.image not in (None, "small")
    if way == "background-snapshot" and (scenario.workload.writes_disk or on_disk):
        refuse("to", "the guest writes on to its disk, which is in no background snapshot")
