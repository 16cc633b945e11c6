# SPDX-License-Identifier: GPL-2.0-or-later
"""The cache, or a part of it, as one file: for a machine without network, or a hundred of them.

A parcel is a tar archive of ``store/KIND/KEY/...``, ``sums/KIND/KEY.json`` and ``facts/*.json`` (what
Debian's archive had, so that the same packages are found there again).  Every byte is held against its
sum before an entry is taken in.  That finds damage, and not malice: programs in it will be run, so
take parcels only from whom you would take programs.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Final

from harness.errors import InputError
from harness.reading import cannot_read, demand_regular
from harness.toolchain.cache import Cache, sums_file
from harness.toolchain.care import CacheEntry, entries
from harness.toolchain.sums import Sums

_WORD: Final = r"[A-Za-z0-9][A-Za-z0-9_.+-]*"
_STORE: Final = re.compile(rf"store/({_WORD})/({_WORD})(?:/.*)?")
_SUMS: Final = re.compile(rf"sums/({_WORD})/({_WORD})\.json")
_FACT: Final = re.compile(rf"facts/(apt-{_WORD})\.json")
#: Bytes of one file of sums or facts.
_LARGEST_TEXT: Final = 64 << 20


def pack_parcel(cache: Cache, file: Path, kinds: Sequence[str] = ()) -> Iterator[CacheEntry]:
    """Write a new file with all entries of these kinds (all, if none is named); yields each when it is in."""
    there = [entry for entry in entries(cache) if not kinds or entry.kind in kinds]
    unknown = sorted(set(kinds) - {entry.kind for entry in there})
    if unknown:
        raise InputError(f"the cache has nothing of the kind {unknown[0]!r}", hint="freepage cache list")
    if not there:
        raise InputError(f"the cache {cache.root} is empty", hint="freepage build")
    yield from pack_entries(cache, file, there)


def pack_entries(cache: Cache, file: Path, there: Sequence[CacheEntry]) -> Iterator[CacheEntry]:
    """Write a new file with these entries; yields each when it is in."""
    try:
        writing = file.open("xb")
    except FileExistsError as error:
        raise InputError(f"{file} exists already") from error
    except OSError as error:
        raise InputError(f"cannot make {file}: {error.strerror}") from error
    try:
        with writing, tarfile.open(fileobj=writing, mode="w|", format=tarfile.PAX_FORMAT) as archive:
            for entry in there:
                _pack_entry(archive, entry)
                yield entry
            for layer in cache.layers:
                for fact in sorted((layer / "facts").glob("apt-*.json")):
                    archive.add(fact, f"facts/{fact.name}", filter=_plain)
    except BaseException:
        file.unlink(missing_ok=True)
        raise


def _pack_entry(archive: tarfile.TarFile, entry: CacheEntry) -> None:
    known = Sums.load(sums_file(entry.path)) or Sums.of(entry.path)
    with tempfile.TemporaryDirectory(prefix="fp-") as folder:
        text = Path(folder, "sums.json")
        known.save(text)
        archive.add(text, f"sums/{entry.kind}/{entry.key}.json", filter=_plain)
    archive.add(entry.path, f"store/{entry.kind}/{entry.key}", filter=_plain)


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Nobody's in particular; devices and sockets, of which an unpacked system may have some, stay away."""
    if not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
        return None
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member


def unpack_parcel(cache: Cache, file: Path) -> Iterator[tuple[str, str, str]]:
    """Take in what a parcel has; yields kind, key and what became of it ("taken in", "there already").

    Raises :class:`InputError` for what is no parcel, or is damaged; entries before that are whole.
    """
    what = "a parcel of a cache"
    try:
        reading = os.fdopen(os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    except OSError as error:
        raise cannot_read(file, what, error) from error
    with reading, tempfile.TemporaryDirectory(prefix=".import-", dir=cache.folder("store")) as scratch:
        demand_regular(file, os.fstat(reading.fileno()).st_mode, what)
        # Not tar's compression by guess: a parcel is not compressed.
        try:
            with tarfile.open(fileobj=reading, mode="r:") as archive:
                yield from _take_in(cache, archive, Path(scratch), file)
        except tarfile.TarError as error:
            raise InputError(f"{file} is not {what}, or is cut off: {error}") from error


def _take_in(
    cache: Cache, archive: tarfile.TarFile, scratch: Path, file: Path
) -> Iterator[tuple[str, str, str]]:
    current: tuple[str, str] | None = None
    sums: dict[tuple[str, str], Sums] = {}
    for member in archive:
        name = str(PurePosixPath(member.name))
        if found := _STORE.fullmatch(name):
            entry = (found[1], found[2])
            if current not in (None, entry):
                yield _finish(cache, current, sums, scratch, file)
            current = entry
            _extract(archive, member, name, scratch, file)
        elif found := _SUMS.fullmatch(name):
            place = scratch / "sums.json"
            place.write_bytes(_content(archive, member, file))
            known = Sums.load(place)
            if known is None:
                raise InputError(f"{file}: {name} has no sums in it")
            sums[found[1], found[2]] = known
        elif found := _FACT.fullmatch(name):
            _take_fact(cache, found[1], _content(archive, member, file), f"{file}: {name}")
        else:
            raise InputError(f"{file} is not a parcel of a cache: it has {member.name!r} in it")
    if current is None:
        raise InputError(f"{file} is not a parcel of a cache: there is no entry in it")
    yield _finish(cache, current, sums, scratch, file)


def _take_fact(cache: Cache, name: str, text: bytes, where: str) -> None:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise InputError(f"{where} is not JSON: {error}") from error
    # What this cache has found by itself is newer to it.
    if cache.recall(name) is None:
        cache.remember(name, value)


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo, file: Path) -> bytes:
    reading = archive.extractfile(member) if member.isreg() and member.size <= _LARGEST_TEXT else None
    if reading is None:
        raise InputError(f"{file}: {member.name} is no file, or too large for what it is")
    with reading:
        return reading.read()


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo, name: str, scratch: Path, file: Path) -> None:
    """Put one member below the scratch folder, by hand: through no link, and nothing but files and links."""
    if ".." in name.split("/"):
        raise InputError(f"{file}: {member.name!r} leads out of its entry")
    target = scratch / name
    if target.parent.resolve() != target.parent.absolute():
        raise InputError(f"{file}: {member.name!r} goes through a link")
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_symlink() or (target.exists() and not member.isdir()):
        raise InputError(f"{file}: {member.name!r} is there twice")
    if member.isdir():
        target.mkdir(exist_ok=True)
    elif member.issym():
        target.symlink_to(member.linkname)
    elif member.isreg() or member.islnk():
        # A hard link: tar gives what it leads to, which is in the archive before it.
        reading = archive.extractfile(member)
        assert reading is not None
        with reading, target.open("xb") as writing:
            _copy(reading, writing)
        target.chmod(member.mode & 0o755)
        os.utime(target, ns=(int(member.mtime * 10**9), int(member.mtime * 10**9)))
    else:
        raise InputError(f"{file}: {member.name!r} is neither a file nor a link")


def _copy(reading: IO[bytes], writing: IO[bytes]) -> None:
    shutil.copyfileobj(reading, writing, 1 << 20)


def _finish(
    cache: Cache,
    entry: tuple[str, str] | None,
    sums: dict[tuple[str, str], Sums],
    scratch: Path,
    file: Path,
) -> tuple[str, str, str]:
    """Hold an entry that is unpacked against its sums, and put it in its place."""
    assert entry is not None
    kind, key = entry
    unpacked = scratch / "store" / kind / key
    known = sums.pop(entry, None)
    if known is None:
        raise InputError(f"{file}: there are no sums for {kind}/{key}")
    wrong = known.whole(unpacked)
    if wrong is not None:
        raise InputError(f"{file}: {kind}/{key} is damaged: {wrong}")
    if cache.has(kind, key):
        shutil.rmtree(unpacked)
        return kind, key, "there already"
    place = cache.root / "store" / kind / key
    with cache.lock(f"{kind}-{key}", f"{kind} {key}"):
        if place.is_dir():
            shutil.rmtree(unpacked)
            return kind, key, "there already"
        cache.folder("store", kind)
        Sums.of(unpacked).save(sums_file(place))
        unpacked.rename(place)
    return kind, key, "taken in"
