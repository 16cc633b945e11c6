# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's archive, read by ourselves: a small one on disk, and everything that can be wrong with it."""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
from pathlib import Path

import pytest

from harness.arch import HOST
from harness.errors import MachineryError
from harness.events import EventStream
from harness.toolchain import debian_archive, run, signatures
from harness.toolchain.cache import Cache
from harness.toolchain.debian_archive import DebianArchive
from harness.toolchain.download import apt_proxies
from harness.toolchain.signatures import carried_keys
from tests.unit.small_archive import Key, SmallArchive, entry, tarball

SEEN = entry("./usr/bin/seen", b"seen", mode=0o4755)


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallArchive:
    small = SmallArchive(tmp_path / "archive", architecture=HOST.debian)
    monkeypatch.setattr(signatures, "KEYRINGS", (small.keyring,))
    monkeypatch.setenv(debian_archive.MIRROR_VARIABLE, small.mirror)
    return small


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", EventStream())


def small(cache: Cache) -> DebianArchive:
    return DebianArchive(cache, "small")


def said(cache: Cache, kind: str = "message") -> str:
    return "\n".join(str(event.data.get("text")) for event in cache.events.history() if event.kind == kind)


class TestWhatIsThere:
    def test_packages_are_found_and_unpacked(
        self, archive: SmallArchive, cache: Cache, tmp_path: Path
    ) -> None:
        archive.add("seen", [entry("./usr", kind=tarfile.DIRTYPE, mode=0o755), SEEN], Depends="other | more")
        archive.publish()
        (package,) = small(cache).packages(["seen"])
        assert (package.version, package.depends) == ("1.0", ("other",))
        into = tmp_path / "into"
        into.mkdir()
        small(cache).unpack([package], into)
        seen = into / "usr" / "bin" / "seen"
        assert seen.read_bytes() == b"seen"
        # Nobody becomes another user by a program in a cache.
        assert seen.stat().st_mode & 0o7777 == 0o755
        assert int(seen.stat().st_mtime) == 1_700_000_000

    def test_the_newest_version_counts(self, archive: SmallArchive, cache: Cache) -> None:
        for version in ("1.9", "1.10", "1.10~rc1"):
            archive.add("seen", Version=version)
        archive.publish()
        assert small(cache).packages(["seen"])[0].version == "1.10"
        assert small(cache).names("se") == ["seen"]
        with pytest.raises(MachineryError, match="Debian small has no package none"):
            small(cache).packages(["none"])

    def test_all_that_packages_need(self, archive: SmallArchive, cache: Cache) -> None:
        archive.add("top", Depends="lib (>= 2), gone | there, awk, editor", Pre_Depends="base:any")
        archive.add("lib", Version="2.0", Depends="top, base")
        archive.add("base", Provides="editor (= 2)")
        archive.add("there")
        archive.add("aawk", Provides="awk", Priority="optional")
        archive.add("mawk", Provides="awk", Priority="required")
        archive.add("unasked", Depends="lib")
        archive.publish()
        names = [package.name for package in small(cache).closure(["top"])]
        assert names == ["base", "lib", "mawk", "there", "top"]

    def test_what_is_there_but_too_old(self, archive: SmallArchive, cache: Cache) -> None:
        archive.add("top", Depends="lib (>= 2)")
        archive.add("lib")
        archive.publish()
        with pytest.raises(MachineryError, match=r"has not what top needs: lib"):
            small(cache).closure(["top"])

    def test_a_suite_goes_before_its_base(
        self, archive: SmallArchive, cache: Cache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        archive.add("both")
        archive.add("old")
        archive.publish()
        newer = SmallArchive(archive.root, "newer", HOST.debian)
        monkeypatch.setattr(signatures, "KEYRINGS", (newer.keyring,))
        newer.add("both", Version="1.0~newer")
        newer.publish()
        archive.publish(keys=[newer.key])
        packages = DebianArchive(cache, "newer", base=("small",)).packages(["both", "old"])
        assert [package.version for package in packages] == ["1.0~newer", "1.0"]
        # What the suite has alone is remembered apart from what it has with its base.
        with pytest.raises(MachineryError, match="no package old"):
            DebianArchive(cache, "newer").packages(["old"])

    def test_asked_once_then_remembered(self, archive: SmallArchive, cache: Cache) -> None:
        archive.add("seen")
        archive.add_source("src", "1.0", {"src_1.0.tar.xz": tarball([entry("src/file")])}, "3.0 (native)")
        archive.publish()
        found = small(cache).packages(["seen"]), small(cache).source("src")
        shutil.rmtree(archive.root)
        shutil.rmtree(cache.root / "archive")
        assert (small(cache).packages(["seen"]), small(cache).source("src")) == found
        small(cache).forget()
        with pytest.raises(MachineryError, match="there is no such file"):
            small(cache).packages(["seen"])

    def test_what_others_have_looked_up_is_not_looked_up_again(
        self, archive: SmallArchive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        archive.add("theirs")
        archive.add("ours")
        archive.publish()
        places = [tmp_path / "own", tmp_path / "behind"]
        assert small(Cache(places[1], EventStream())).packages(["theirs"])
        monkeypatch.setenv("FREEPAGE_CACHE", ":".join(map(str, places)))
        both = Cache(None, EventStream())
        assert small(both).packages(["ours"])
        shutil.rmtree(archive.root)
        assert [package.name for package in small(both).packages(["theirs", "ours"])] == ["theirs", "ours"]

    def test_a_mirror_without_sums_as_names(self, archive: SmallArchive, cache: Cache) -> None:
        archive.release["Acquire-By-Hash"] = "no"
        archive.add("seen")
        archive.publish()
        assert small(cache).packages(["seen"])


class TestSources:
    def patched(self, archive: SmallArchive, patch: bytes) -> None:
        orig = tarball([entry("src-1.0/file", b"old\n"), entry("src-1.0/debian/stale", b"")])
        debian = tarball(
            [
                entry("debian/patches/series", b"# none\nmore.patch\n"),
                entry("debian/patches/more.patch", patch),
            ]
        )
        extra = tarball([entry("deep/part", b"part")])
        files = {
            "src_1.0.orig.tar.xz": orig,
            "src_1.0.orig-extra.tar.xz": extra,
            "src_1.0-1.debian.tar.xz": debian,
        }
        archive.add_source("src", "1.0-1", files)
        archive.publish()

    def test_a_source_is_unpacked_and_patched(
        self, archive: SmallArchive, cache: Cache, tmp_path: Path
    ) -> None:
        self.patched(archive, b"--- a/file\n+++ b/file\n@@ -1 +1 @@\n-old\n+new\n")
        source = small(cache).source("src")
        assert (source.upstream, source.dsc) == ("1.0", "src_1.0-1.dsc")
        tree = tmp_path / "tree"
        small(cache).unpack_source(source, tree)
        assert (tree / "file").read_bytes() == b"new\n"
        assert (tree / "extra" / "part").read_bytes() == b"part"
        assert sorted(path.name for path in (tree / "debian").iterdir()) == ["patches"]

    def test_a_patch_that_does_not_fit(self, archive: SmallArchive, cache: Cache, tmp_path: Path) -> None:
        self.patched(archive, b"--- a/file\n+++ b/file\n@@ -1 +1 @@\n-other\n+new\n")
        with pytest.raises(MachineryError, match=r"cannot apply Debian's patch more\.patch"):
            small(cache).unpack_source(small(cache).source("src"), tmp_path / "tree")

    @pytest.mark.parametrize("target", ["../outside", "../../outside"])
    def test_a_patch_that_leads_out(
        self, archive: SmallArchive, cache: Cache, tmp_path: Path, target: str
    ) -> None:
        folder = tmp_path / "in"
        folder.mkdir()
        self.patched(archive, f"--- /dev/null\n+++ b/{target}\n@@ -0,0 +1 @@\n+x\n".encode())
        with pytest.raises(MachineryError, match="cannot apply"):
            small(cache).unpack_source(small(cache).source("src"), folder / "tree")
        assert not list(tmp_path.rglob("outside"))

    def test_a_format_that_is_not_known(self, archive: SmallArchive, cache: Cache, tmp_path: Path) -> None:
        archive.add_source("src", "1.0", {"src_1.0.tar.gz": b""}, "1.0")
        archive.publish()
        with pytest.raises(MachineryError, match=r"the format 1\.0 is not known"):
            small(cache).unpack_source(small(cache).source("src"), tmp_path / "tree")


@pytest.fixture(params=["gpgv", "sqv"])
def program(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Only this one of the two programs that check signatures."""
    name = str(request.param)
    if shutil.which(name, path=run.search_path()) is None:
        pytest.skip(f"there is no {name} here")
    other = {"gpgv": "sqv", "sqv": "gpgv"}[name]
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda word, **more: None if word == other else which(word, **more))
    return name


@pytest.mark.usefixtures("program")
class TestSignatures:
    def fails(self, cache: Cache, match: str) -> None:
        with pytest.raises(MachineryError, match=match):
            small(cache).packages(["seen"])
        assert not (cache.root / "archive" / "small" / "lists").exists()

    def test_one_good_signature_of_several_will_do(self, archive: SmallArchive, cache: Cache) -> None:
        archive.add("seen")
        archive.publish(keys=[Key(), archive.key])
        assert small(cache).packages(["seen"])

    def test_a_key_that_is_not_known(self, archive: SmallArchive, cache: Cache) -> None:
        archive.add("seen")
        archive.publish(keys=[Key()])
        self.fails(cache, "is not signed by Debian")

    def test_a_text_that_was_changed(self, archive: SmallArchive, cache: Cache) -> None:
        archive.add("seen")
        archive.publish()
        text = archive.in_release.read_text()
        archive.in_release.write_text(text.replace("Codename: small", "Codename: smell"))
        self.fails(cache, "is not signed by Debian")

    def test_a_key_that_has_expired(self, archive: SmallArchive, cache: Cache) -> None:
        archive.key = Key(days=5)
        archive.keyring.write_bytes(archive.key.public)
        archive.publish()
        self.fails(cache, "is not signed by Debian")

    def test_a_sum_that_proves_nothing_any_more(self, archive: SmallArchive, cache: Cache) -> None:
        archive.publish(digest="sha1")
        self.fails(cache, "is not signed by Debian")

    def test_no_signature(self, archive: SmallArchive, cache: Cache) -> None:
        archive.publish(keys=[])
        self.fails(cache, "is not signed by Debian")


class TestWhatIsWrong:
    def fails(self, cache: Cache, match: str) -> MachineryError:
        with pytest.raises(MachineryError, match=match) as caught:
            small(cache).packages(["seen"])
        return caught.value

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("-----BEGIN PGP SIGNED", "Suite: other\n\n-----BEGIN PGP SIGNED"),
            ("-----END PGP SIGNATURE-----", ""),
            ("-----END PGP SIGNATURE-----", "-----END PGP SIGNATURE-----\nSuite: other"),
            ("\nSuite: small", "\n-----BEGIN PGP SIGNED MESSAGE-----\n\nSuite: small"),
            ("Hash: SHA256", "Suite: other"),
        ],
        ids=["before", "cut", "behind", "two", "header"],
    )
    def test_what_stands_around_the_signed_text(
        self, archive: SmallArchive, cache: Cache, old: str, new: str
    ) -> None:
        archive.publish()
        archive.in_release.write_text(archive.in_release.read_text().replace(old, new, 1))
        self.fails(cache, "is not one clear-signed text")

    def test_another_suite_in_its_place(self, archive: SmallArchive, cache: Cache) -> None:
        archive.release |= {"Suite": "old", "Codename": "old"}
        archive.publish()
        self.fails(cache, "is that of old: the mirror is not what it says")

    def test_lists_that_have_expired_are_read_and_told_of(self, archive: SmallArchive, cache: Cache) -> None:
        archive.add("seen")
        archive.release["Valid-Until"] = "Thu, 01 Jan 2026 00:00:00 UTC"
        archive.publish()
        assert small(cache).packages(["seen"])
        assert "the lists of Debian small have expired (Thu, 01 Jan 2026" in said(cache)

    @pytest.mark.parametrize(("cut", "why"), [(0, "its SHA-256 is another"), (5, r"it has \d+ of \d+ bytes")])
    def test_a_list_that_is_another(self, archive: SmallArchive, cache: Cache, cut: int, why: str) -> None:
        archive.add("seen")
        archive.publish()
        for path in archive.lists:
            data = path.read_bytes()
            path.write_bytes(data[: len(data) - cut - 1] + (b"" if cut else b"x"))
        self.fails(cache, f"is not what the archive's signed index promises: {why}")

    @pytest.mark.parametrize("size", [-1, 0, 1])
    def test_a_package_that_is_another(
        self, archive: SmallArchive, cache: Cache, tmp_path: Path, size: int
    ) -> None:
        data = archive.add("seen", [SEEN])
        archive.publish()
        archive.place("seen_1.0.deb").write_bytes({-1: data[:-1], 0: data[:-1] + b"x", 1: data + b"x"}[size])
        packages = small(cache).packages(["seen"])
        with pytest.raises(MachineryError, match="is not what the archive's signed index promises"):
            small(cache).unpack(packages, tmp_path)
        assert not list(cache.root.glob("store/deb/*"))

    def test_a_list_that_was_damaged_in_the_cache(self, archive: SmallArchive, cache: Cache) -> None:
        archive.add("seen")
        archive.add("other")
        archive.publish()
        assert small(cache).packages(["other"])
        (packed,) = (cache.root / "archive" / "small" / "lists").glob("*Packages.xz")
        packed.write_bytes(packed.read_bytes()[:-1])
        error = self.fails(cache, "is damaged in the cache")
        assert "--update" in str(error.hint)
        small(cache).forget()
        assert small(cache).packages(["seen"])

    def test_a_package_that_has_gone(self, archive: SmallArchive, cache: Cache, tmp_path: Path) -> None:
        archive.add("seen")
        archive.publish()
        packages = small(cache).packages(["seen"])
        archive.place("seen_1.0.deb").unlink()
        with pytest.raises(MachineryError, match="there is no such file") as caught:
            small(cache).unpack(packages, tmp_path)
        assert "--update" in str(caught.value.hint)

    def test_a_file_outside_of_the_archive(self, archive: SmallArchive, cache: Cache, tmp_path: Path) -> None:
        archive.add("seen")
        archive._packages[0] = archive._packages[0].replace("pool/", "../pool/")
        archive.publish()
        with pytest.raises(MachineryError, match="names a file outside of it"):
            small(cache).unpack(small(cache).packages(["seen"]), tmp_path)

    def test_no_program_to_check_with(
        self, archive: SmallArchive, cache: Cache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        archive.publish()
        monkeypatch.setenv("PATH", "/nowhere")
        monkeypatch.setattr(run, "_EXTRA_PATH", ())
        error = self.fails(cache, "the program 'gpgv' is missing")
        assert "gpgv" in str(error.hint)

    @pytest.mark.usefixtures("archive")
    def test_no_archive_at_all(self, cache: Cache) -> None:
        error = self.fails(cache, "cannot read the lists of small: .*there is no such file")
        assert debian_archive.MIRROR_VARIABLE in str(error.hint)

    def test_an_address_of_another_kind(self, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(debian_archive.MIRROR_VARIABLE, "ftp://old.example/debian")
        self.fails(cache, "only http, https, file can be read")


class TestUnpacking:
    def unpack(
        self, archive: SmallArchive, cache: Cache, into: Path, *members: tuple[tarfile.TarInfo, bytes]
    ) -> None:
        archive.add("seen", members)
        archive.publish()
        into.mkdir(exist_ok=True)
        small(cache).unpack(small(cache).packages(["seen"]), into)

    @pytest.mark.parametrize(
        ("members", "why"),
        [
            ([entry("../out", b"x")], "leads out of its folder"),
            ([entry("./a/../../out", b"x")], "leads out of its folder"),
            ([entry("/out", b"x")], "leads out of its folder"),
            ([entry("./in", kind=tarfile.SYMTYPE, link="../out")], "a link that leads out"),
            ([entry("./a/in", kind=tarfile.SYMTYPE, link="../b/../../out")], "a link that leads out"),
            ([entry("./in", kind=tarfile.LNKTYPE, link="../out")], "leads out of its folder"),
            ([entry("./in", kind=tarfile.LNKTYPE, link="none")], "a link to what is no file"),
            (
                [
                    entry("./ln", kind=tarfile.SYMTYPE, link="/etc/passwd"),
                    entry("./in", kind=tarfile.LNKTYPE, link="ln"),
                ],
                "a link to what is no file",
            ),
            ([entry("./dev", kind=tarfile.CHRTYPE)], "neither a file nor a folder nor a link"),
            ([entry("./pipe", kind=tarfile.FIFOTYPE)], "neither a file nor a folder nor a link"),
            ([entry(".", b"x")], "is no folder"),
            (
                [
                    entry("./a", kind=tarfile.SYMTYPE, link="b"),
                    entry("./b", kind=tarfile.SYMTYPE, link="a"),
                    entry("./a/in", b"x"),
                ],
                "lead in a circle",
            ),
        ],
    )
    def test_what_is_not_safe_is_refused(
        self,
        archive: SmallArchive,
        cache: Cache,
        tmp_path: Path,
        members: list[tuple[tarfile.TarInfo, bytes]],
        why: str,
    ) -> None:
        (tmp_path / "out").write_bytes(b"ours")
        with pytest.raises(MachineryError, match=f"not unpacked, for safety: .*{why}"):
            self.unpack(archive, cache, tmp_path / "into", *members)
        assert (tmp_path / "out").read_bytes() == b"ours"

    def test_links_are_followed_inside(self, archive: SmallArchive, cache: Cache, tmp_path: Path) -> None:
        outside = tmp_path / "outside"
        outside.mkdir()
        into = tmp_path / "into"
        self.unpack(
            archive,
            cache,
            into,
            entry("./usr/lib", kind=tarfile.DIRTYPE, mode=0o755),
            entry("./lib", kind=tarfile.SYMTYPE, link="usr/lib"),
            entry("./abs", kind=tarfile.SYMTYPE, link=str(outside)),
            entry("./lib", kind=tarfile.DIRTYPE, mode=0o755),
            entry("./lib/one", b"one"),
            entry("./abs/two", b"two"),
            entry("./three", kind=tarfile.LNKTYPE, link="./lib/one"),
        )
        assert (into / "lib").is_symlink()
        assert (into / "usr" / "lib" / "one").read_bytes() == (into / "three").read_bytes() == b"one"
        # As it would be below the folder as a root.
        assert (into / str(outside).lstrip("/") / "two").read_bytes() == b"two"
        assert not list(outside.iterdir())

    def test_a_file_in_place_of_a_link_does_not_follow_it(
        self, archive: SmallArchive, cache: Cache, tmp_path: Path
    ) -> None:
        (tmp_path / "out").write_bytes(b"ours")
        into = tmp_path / "into"
        members = entry("./in", kind=tarfile.SYMTYPE, link=str(tmp_path / "out")), entry("./in", b"theirs")
        self.unpack(archive, cache, into, *members)
        assert (tmp_path / "out").read_bytes() == b"ours"
        assert not (into / "in").is_symlink()

    def test_what_is_in_the_way(self, archive: SmallArchive, cache: Cache, tmp_path: Path) -> None:
        with pytest.raises(MachineryError, match=r"cannot unpack seen_1\.0\.deb: "):
            self.unpack(archive, cache, tmp_path / "into", entry("./a", b"x"), entry("./a/b", b"x"))

    def test_what_is_no_package(self, archive: SmallArchive, tmp_path: Path) -> None:
        archive.add("seen", [entry("./usr/file", b"x" * 100_000)])
        whole = archive.place("seen_1.0.deb").read_bytes()
        for number, data in enumerate((b"", whole[:100], whole[:-100], b"!<arch>\n", b"<html>")):
            file = tmp_path / f"{number}.deb"
            file.write_bytes(data)
            with pytest.raises(MachineryError, match=rf"{number}\.deb is no whole package"):
                debian_archive.unpack_deb(file, tmp_path / "into")


class TestCarriedKeys:
    def test_they_are_whole_and_are_those_that_are_named(self, repository: Path) -> None:
        text = (repository / "harness" / "toolchain" / "debian_keys.asc").read_text()
        named = [
            line for line in text.splitlines() if len(line) == 40 and set(line) <= set("0123456789ABCDEF")
        ]
        assert [fingerprint.hex().upper() for fingerprint in fingerprints(carried_keys())] == named
        assert len(named) == 4

    def test_where_there_is_no_keyring_they_are_used(
        self, archive: SmallArchive, cache: Cache, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        archive.add("seen")
        archive.publish()
        monkeypatch.setattr(signatures, "KEYRINGS", (tmp_path / "none",))
        with pytest.raises(MachineryError, match="is not signed by Debian"):
            small(cache).packages(["seen"])
        monkeypatch.setattr(signatures, "carried_keys", lambda: archive.key.public)
        assert small(cache).packages(["seen"])


def fingerprints(keys: bytes) -> list[bytes]:
    """Of the primary keys among OpenPGP packets."""
    found, stream = [], io.BytesIO(keys)
    while head := stream.read(1):
        assert head[0] & 0xC0 == 0x80  # as GnuPG writes them
        tag, length = head[0] >> 2 & 15, 1 << (head[0] & 3)
        body = stream.read(int.from_bytes(stream.read(length), "big"))
        if tag == 6:
            found.append(hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body).digest())
    return found


def test_the_proxies_of_the_systems_apt() -> None:
    text = 'Acquire::http::Proxy "http://p:3142";\nAcquire::https::Proxy "DIRECT";\n'
    text += 'Acquire::http::Proxy::h "x";\n'
    assert apt_proxies(text) == {"http": "http://p:3142"}
    assert apt_proxies("") == {}
