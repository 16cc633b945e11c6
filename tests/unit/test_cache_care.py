# SPDX-License-Identifier: GPL-2.0-or-later
"""A cache that is damaged, shared, pruned, and taken elsewhere."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.errors import InputError
from harness.events import EventStream
from harness.toolchain import care, qemu
from harness.toolchain.cache import CACHE_VARIABLE, Cache, cache_layers, file_digest, sums_file
from harness.toolchain.care import entries, prune, read_whole
from harness.toolchain.parcel import pack_parcel, unpack_parcel
from harness.toolchain.sums import Sums


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", EventStream())


def fill(folder: Path) -> None:
    (folder / "bin").mkdir()
    (folder / "bin" / "qemu").write_bytes(b"program" * 1000)
    (folder / "link").symlink_to("bin/qemu")


def made(cache: Cache, kind: str = "qemu", key: str = "key") -> Path:
    return cache.get(kind, key, fill, what="QEMU")


def warnings(cache: Cache) -> list[str]:
    return [str(event.data["text"]) for event in cache.events.history() if event.kind == "warning"]


def cut(path: Path) -> None:
    os.truncate(path, 10)


def change(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"program", b"progrem", 1))


def remove(path: Path) -> None:
    path.unlink()


def become_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("damage", [cut, change, remove, become_a_folder])
def test_damage_is_noticed_and_made_good(cache: Cache, damage: Callable[[Path], None]) -> None:
    program = made(cache) / "bin" / "qemu"
    damage(program)
    assert made(cache) / "bin" / "qemu" == program
    assert program.read_bytes() == b"program" * 1000
    [said] = warnings(cache)
    assert "QEMU: damaged in the cache, and made anew: bin/qemu" in said
    assert [path.name for path in (cache.root / "store" / "qemu").iterdir()] == ["key"]


def test_a_copy_with_other_times_is_as_good(cache: Cache) -> None:
    program = made(cache) / "bin" / "qemu"
    os.utime(program, (1, 1))
    made(cache)
    assert warnings(cache) == []


def test_what_stat_does_not_tell_is_found_by_reading(cache: Cache) -> None:
    program = made(cache) / "bin" / "qemu"
    about = program.stat()
    change(program)
    os.utime(program, ns=(about.st_atime_ns, about.st_mtime_ns))
    made(cache)
    assert warnings(cache) == []
    [entry] = entries(cache)
    assert read_whole(entry).wrong == "bin/qemu is not what was made: its SHA-256 is another"


def test_a_link_that_leads_elsewhere_is_found(cache: Cache) -> None:
    link = made(cache) / "link"
    link.unlink()
    link.symlink_to("/etc/passwd")
    [entry] = entries(cache)
    assert "link is not the link to bin/qemu" in (read_whole(entry).wrong or "")


def test_an_entry_of_before_sums_were_kept_gets_them(cache: Cache) -> None:
    place = made(cache, "kernel")
    sums_file(place).unlink()
    [entry] = entries(cache)
    assert read_whole(entry) == care.Checked(entry, None, known=False)
    assert read_whole(entry).known


@pytest.mark.parametrize("facts", [None, "{", '{"sha256": "00"}', "[]"])
def test_an_old_qemu_is_held_against_its_facts(cache: Cache, facts: str | None) -> None:
    place = made(cache)
    sums_file(place).unlink()
    (place / "qemu-system-x86_64").write_bytes(b"x")
    if facts is not None:
        (place / "facts.json").write_text(facts)
    [entry] = entries(cache)
    assert read_whole(entry).wrong is not None
    assert not sums_file(place).exists()


def test_sums_that_cannot_be_read_are_none(tmp_path: Path) -> None:
    for text in ("", "[]", "{}", '{"files": {"a": [1]}, "links": {}}', '{"files": [], "links": {}}'):
        (tmp_path / "sums").write_text(text)
        assert Sums.load(tmp_path / "sums") is None
    assert Sums.load(tmp_path / "none") is None


# A cache that others own.


def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Cache, Cache]:
    """One that others have filled, and that of a user who cannot write to it."""
    theirs = Cache(tmp_path / "theirs", EventStream())
    made(theirs)
    theirs.remember("apt-bookworm", {"binary": 1})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv(CACHE_VARIABLE, str(theirs.root))
    may = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: not (mode & os.W_OK and path == theirs.root) and may(path, mode)
    )
    return theirs, Cache(None, EventStream())


def test_a_cache_of_others_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, ours = shared(tmp_path, monkeypatch)
    assert ours.root == tmp_path / "home" / "freepage-testbed"
    assert ours.behind == (theirs.root,)
    assert made(ours) == theirs.root / "store" / "qemu" / "key"
    assert ours.recall("apt-bookworm") == {"binary": 1}
    # Whoever may use it may read it.
    assert (theirs.root / "facts" / "apt-bookworm.json").stat().st_mode & 0o777 == 0o644
    # What it lacks is made in our own.
    assert made(ours, key="other") == ours.root / "store" / "qemu" / "other"
    with ours.lock("x", "it"):
        pass
    assert not (theirs.root / "store" / "qemu" / "other").exists()
    ours.remember("apt-bookworm", {"binary": 2})
    assert ours.recall("apt-bookworm") == {"binary": 2}
    assert ours.recall_all("apt-bookworm") == [{"binary": 2}, {"binary": 1}]
    ours.forget("apt-bookworm")
    assert ours.recall("apt-bookworm") is None
    assert ours.recall_all("apt-bookworm") == []
    assert theirs.recall("apt-bookworm") is not None


def test_what_is_damaged_at_others_is_made_in_our_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, ours = shared(tmp_path, monkeypatch)
    cut(theirs.root / "store" / "qemu" / "key" / "bin" / "qemu")
    assert made(ours) == ours.root / "store" / "qemu" / "key"
    assert len(warnings(ours)) == 1
    # From now on ours is in front.
    made(ours)
    assert len(warnings(ours)) == 1


def test_several_folders_may_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, f"{tmp_path / 'a'}:{tmp_path / 'b'}::{tmp_path / 'a'}")
    assert cache_layers() == (tmp_path / "a", tmp_path / "b")
    assert cache_layers(tmp_path / "c") == (tmp_path / "c",)


# What may go.


def test_what_is_unused_goes(cache: Cache) -> None:
    old, new = made(cache, key="old"), made(cache, key="new")
    for path in (old, sums_file(old)):
        os.utime(path, (1, 1))
    assert [one.path for one in prune(cache, unused_for=1000, dry_run=True)] == [old]
    assert old.exists()
    assert [one.path for one in prune(cache, unused_for=1000)] == [old]
    assert not old.exists()
    assert not sums_file(old).exists()
    assert new.exists()


def test_a_use_is_remembered(cache: Cache) -> None:
    place = made(cache)
    for path in (place, sums_file(place)):
        os.utime(path, (1, 1))
    made(cache)
    assert list(prune(cache, unused_for=1000)) == []


def test_what_killed_runs_left_goes_and_what_is_being_built_stays(cache: Cache) -> None:
    left, busy = cache.folder("store", "qemu", ".left.abc"), cache.folder("store", "qemu", ".busy.abc")
    # Locks of this very process would be granted again.
    reading, writing = os.pipe()
    go, gone = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(gone)
        with cache.lock("qemu-busy", "it"):
            os.write(writing, b"x")
            os.read(go, 1)
        os._exit(0)
    os.read(reading, 1)
    lists = cache.folder("apt", "bookworm")
    assert [one.path for one in prune(cache, unused_for=1e9)] == [left, lists.parent]
    assert not lists.parent.exists()
    assert busy.exists()
    os.close(gone)
    os.waitpid(child, 0)


# Taking it elsewhere.


def test_a_parcel_brings_everything(cache: Cache, tmp_path: Path) -> None:
    made(cache)
    made(cache, "kernel", "k")
    cache.remember("apt-bookworm", {"binary": 1})
    cache.remember("kvm-probe-1", {"usable": True})
    file = tmp_path / "parcel.tar"
    assert [entry.kind for entry in pack_parcel(cache, file)] == ["kernel", "qemu"]
    other = Cache(tmp_path / "other", EventStream())
    assert [outcome for *_, outcome in unpack_parcel(other, file)] == ["taken in"] * 2
    assert [outcome for *_, outcome in unpack_parcel(other, file)] == ["there already"] * 2
    assert made(other) / "bin" / "qemu" == other.root / "store" / "qemu" / "key" / "bin" / "qemu"
    assert warnings(other) == []
    assert all(read_whole(entry).wrong is None and read_whole(entry).known for entry in entries(other))
    assert other.recall("apt-bookworm") == {"binary": 1}
    # What KVM does here says nothing of another machine.
    assert other.recall("kvm-probe-1") is None
    assert not list((other.root / "store").glob(".*"))


def test_only_some_kinds(cache: Cache, tmp_path: Path) -> None:
    made(cache)
    made(cache, "kernel", "k")
    assert [entry.kind for entry in pack_parcel(cache, tmp_path / "p", ["kernel"])] == ["kernel"]
    for kinds, words in ((["nosuch"], "nothing of the kind 'nosuch'"), ([], "exists already")):
        with pytest.raises(InputError, match=words):
            list(pack_parcel(cache, tmp_path / "p", kinds))
    with pytest.raises(InputError, match="is empty"):
        list(pack_parcel(Cache(tmp_path / "none", EventStream()), tmp_path / "q"))


def parcel(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for member, data in members:
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def member(name: str, data: bytes = b"x", **more: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    for key, value in more.items():
        setattr(info, key, value)
    return info, data


def sums_of(**files: bytes) -> bytes:
    import hashlib

    rows = {name: [len(data), 0, hashlib.sha256(data).hexdigest()] for name, data in files.items()}
    return json.dumps({"files": rows, "links": {}}).encode()


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([member("etc/passwd")], "not a parcel"),
        ([member("store/../../x")], "not a parcel|leads out"),
        ([member("/store/k/e/f")], "not a parcel"),
        ([member("store/k/e/../../../x")], "leads out"),
        ([member("store/k/e/f")], "no sums"),
        ([member("sums/k/e.json", b"nonsense")], "no sums in it"),
        ([member("sums/k/e.json", sums_of(f=b"y")), member("store/k/e/f", b"x")], "damaged"),
        ([member("sums/k/e.json", sums_of(g=b"y")), member("store/k/e/f", b"x")], "g is gone"),
        (
            [
                member("sums/k/e.json", sums_of(f=b"x")),
                member("store/k/e/way", b"", type=tarfile.SYMTYPE, linkname="/etc"),
                member("store/k/e/way/passwd"),
            ],
            "through a link",
        ),
        (
            [member("store/k/e/f", b"", type=tarfile.SYMTYPE, linkname="/etc/x"), member("store/k/e/f")],
            "twice",
        ),
        ([member("store/k/e/d", b"", type=tarfile.CHRTYPE)], "neither a file nor a link"),
        ([member("facts/apt-x.json", b"{")], "not JSON"),
        ([member("facts/kvm-probe.json", b"{}")], "not a parcel"),
        ([member("store/k/.e/f")], "not a parcel"),
        ([], "no entry"),
    ],
)
def test_parcels_that_are_none(
    tmp_path: Path, members: list[tuple[tarfile.TarInfo, bytes]], words: str
) -> None:
    cache = Cache(tmp_path / "cache", EventStream())
    with pytest.raises(InputError, match=words):
        list(unpack_parcel(cache, parcel(tmp_path / "p.tar", *members)))
    assert entries(cache) == []
    assert not list((cache.root / "store").glob(".*"))


def test_a_parcel_that_is_cut_off(cache: Cache, tmp_path: Path) -> None:
    made(cache)
    list(pack_parcel(cache, tmp_path / "p"))
    os.truncate(tmp_path / "p", 6000)
    other = Cache(tmp_path / "other", EventStream())
    with pytest.raises(InputError, match=r"cut off|damaged"):
        list(unpack_parcel(other, tmp_path / "p"))
    assert entries(other) == []
    for path in (tmp_path / "none", Path("/dev/zero"), tmp_path):
        with pytest.raises(InputError):
            list(unpack_parcel(other, path))


@pytest.mark.parametrize("damage", [None, "cut", "no facts", "facts of another"])
def test_a_qemu_of_before_sums_is_looked_at_once(tmp_path: Path, damage: str | None) -> None:
    folder = tmp_path / "store" / "qemu" / "key"
    folder.mkdir(parents=True)
    program = folder / qemu.TARGET
    program.write_bytes(b"program")
    (folder / "facts.json").write_text(json.dumps({"version": "10", "sha256": file_digest(program)}))
    if damage == "cut":
        cut(program)
    elif damage == "no facts":
        (folder / "facts.json").unlink()
    elif damage == "facts of another":
        (folder / "facts.json").write_text(json.dumps({"version": "10", "sha256": "00"}))
    assert (qemu._read_facts(folder) is None) == (damage is not None)
    # From now on it has sums as all others.
    assert sums_file(folder).exists() == (damage is None)
