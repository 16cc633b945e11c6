# SPDX-License-Identifier: GPL-2.0-or-later
"""What identifies a QEMU, where its source comes from, and binaries that are none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import InputError, MachineryError
from harness.events import EventStream
from harness.toolchain import Toolchain
from harness.toolchain.cache import Cache
from harness.toolchain.probe import probe_binary, properties_of
from harness.toolchain.qemu import QemuBuilder, build_tool_option, known_options
from harness.toolchain.run import run_program
from harness.toolchain.source import LocalSource, find_source, source_files
from harness.toolchain.worktree import WorkTree

#: The monitor of a QEMU without a machine.
MONITOR = """\
import json, socket, sys
place = sys.argv[sys.argv.index("-qmp") + 1].removeprefix("unix:")
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect(place)
    with connection.makefile("rwb", buffering=0) as monitor:
        monitor.write(b'{"QMP": {}}\\n')
        while monitor.readline():
            monitor.write(b'{"return": []}\\n')
"""

FAKE = """\
#!/bin/sh
case "$*" in
*-qmp*) exec {python} -I -S {monitor} '{properties}' "$@";;
-version) echo 'QEMU emulator version 10.0.99 (Debian)';;
'-machine help') echo 'pc      Standard PC';;
'-device virtio-balloon-pci,help') echo '  {properties}=<bool>        - (default: false)';;
'-device migration,help') echo '  {properties}=<bool>        - (default: false)';;
'-L help') echo /usr/share/qemu;;
esac
"""


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", EventStream())


def program(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


def tree(path: Path, version: str = "10.0.5") -> Path:
    (path / "hw" / "virtio").mkdir(parents=True)
    (path / "configure").touch()
    (path / "VERSION").write_text(version + "\n")
    (path / "hw" / "virtio" / "virtio-balloon.c").write_text("/* nothing */\n")
    return path


def series(path: Path, *names: str) -> Path:
    (path / "10.0").mkdir(parents=True)
    for name in names:
        (path / "10.0" / name).write_text(name)
    (path / "10.0" / "series").write_text("\n".join(names) + "\n")
    for kind in ("instrument", "moments"):
        (path / kind / "10.0").mkdir(parents=True)
        (path / kind / "10.0" / "series").write_text(f"{kind}.patch\n")
        (path / kind / "10.0" / f"{kind}.patch").write_text(kind)
    return path


@pytest.fixture
def fake(tmp_path: Path) -> str:
    """A QEMU's text, but for its ``properties``."""
    monitor = tmp_path / "monitor.py"
    monitor.write_text(MONITOR)
    return FAKE.replace("{python}", sys.executable).replace("{monitor}", str(monitor))


class TestExternal:
    def test_a_good_one(self, tmp_path: Path, fake: str) -> None:
        found = probe_binary(program(tmp_path / "qemu", fake.format(properties="free-page-info")))
        assert (found.version, found.has_free_page_info, found.has_free_page_hint) == ("10.0.99", True, False)

    def test_arm_that_it_cannot(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake: str) -> None:
        monkeypatch.setattr("harness.toolchain.external.firmware", lambda _cache: ())
        toolchain = Toolchain(tmp_path / "cache")
        qemu = toolchain.external_qemu(program(tmp_path / "qemu", fake.format(properties="free-page-hint")))
        qemu.require_arm("off")
        qemu.require_arm("hint")
        with pytest.raises(
            InputError, match=r"no virtio-balloon property 'free-page-info', which the arm 'info' needs"
        ):
            qemu.require_arm("info")

    def test_free_page_info_that_cannot_be_watched(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake: str
    ) -> None:
        """A QEMU of somebody's own: bad input, not a QEMU that fails at its start."""
        monkeypatch.setattr("harness.toolchain.external.firmware", lambda _cache: ())
        toolchain = Toolchain(tmp_path / "cache")
        bare = toolchain.external_qemu(program(tmp_path / "qemu", fake.format(properties="free-page-info")))
        bare.require_arm("off")
        with pytest.raises(InputError, match="but not x-record and x-free-page-info-hold"):
            bare.require_arm("info")
        every = "free-page-info=<a>\n  x-free-page-info-hold=<s>\n  x-record"
        toolchain.external_qemu(program(tmp_path / "q2", fake.format(properties=every))).require_arm("info")

    def test_asked_again_when_what_runs_changes(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake: str
    ) -> None:
        monkeypatch.setattr("harness.toolchain.external.firmware", lambda _cache: ())
        path = program(tmp_path / "qemu", fake.format(properties="free-page-hint"))
        toolchain = Toolchain(tmp_path / "cache")
        first = toolchain.external_qemu(path)
        assert toolchain.external_qemu(path) == first
        # Its own arguments are part of what runs; its text is not.
        program(path, fake.format(properties="free-page-info"))
        second = toolchain.external_qemu(path)
        assert second.has_free_page_info
        assert second.identity != first.identity
        asked: list[Path] = []
        monkeypatch.setattr("harness.toolchain.external.probe_binary", asked.append)
        program(path, fake.format(properties="free-page-info") + "# another byte\n")
        assert toolchain.external_qemu(path) == second
        assert asked == []

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("#!/bin/sh\necho 'Python 3.11'\n", "is not a QEMU system emulator"),
            ("#!/bin/sh\necho oops; exit 7\n", "is not a QEMU that runs here: .*status 7"),
            ("#!/nowhere/interpreter\n", "is not a QEMU that runs here|cannot be run"),
            ("\x7fELFgarbage", "is not a QEMU that runs here|cannot be run"),
            (FAKE.replace("pc ", "virt "), "does not emulate a PC"),
        ],
    )
    def test_no_qemu(self, tmp_path: Path, text: str, message: str) -> None:
        with pytest.raises(InputError, match=message):
            probe_binary(program(tmp_path / "qemu", text))

    def test_missing_folder_not_executable(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="there is no QEMU at"):
            Toolchain(tmp_path / "cache").external_qemu(tmp_path / "none")
        with pytest.raises(InputError, match="is not a file"):
            probe_binary(tmp_path)
        (tmp_path / "plain").touch()
        with pytest.raises(InputError, match="is not executable"):
            probe_binary(tmp_path / "plain")

    def test_properties(self) -> None:
        text = (
            "virtio-balloon-pci options:\n  free-page-hint=<bool>  - on/off (default: false)\n  x-a.b=<str>\n"
        )
        assert properties_of(text) == {"free-page-hint", "x-a.b"}


class TestConfigure:
    def test_what_an_older_version_does_not_know(self, tmp_path: Path) -> None:
        source = tree(tmp_path / "qemu", "7.2.22")
        (source / "configure").write_text("  --enable-system) system=yes ;;\n")
        (source / "scripts").mkdir()
        known = "    --enable-slirp) printf x ;;\n    --enable-slirp-smbd) printf x ;;\n"
        (source / "scripts" / "meson-buildoptions.sh").write_text(known)
        wanted = ["--target-list=x", "--enable-system", "--enable-slirp", "--enable-pixman"]
        assert known_options(source, wanted) == (wanted[:3], ["--enable-pixman"])
        # Its name is no part of another's.
        assert known_options(source, ["--enable-slirp-s"]) == ([], ["--enable-slirp-s"])

    def test_meson_by_itself_or_by_its_python(self, tmp_path: Path) -> None:
        source, python = tree(tmp_path / "qemu", "7.2.22"), Path("/tools/bin/python")
        assert build_tool_option(source, python) == "--meson=/tools/bin/meson"
        (source / "python" / "scripts").mkdir(parents=True)
        (source / "python" / "scripts" / "mkvenv.py").touch()
        assert build_tool_option(source, python) == "--python=/tools/bin/python"


class TestKey:
    def test_every_patch_counts(self, tmp_path: Path, cache: Cache) -> None:
        source = find_source(cache, tree(tmp_path / "qemu"))
        builder = QemuBuilder(cache, source, series(tmp_path / "patches", "a.patch", "b.patch"))
        stock, patched = (builder.key(builder.patches(flavour, [])) for flavour in ("stock", "patched"))
        fault = tmp_path / "fault.patch"
        fault.write_text("fault")
        faulty = builder.key(builder.patches("patched", [fault]))
        (tmp_path / "patches" / "10.0" / "b.patch").write_text("changed")
        changed = builder.key(builder.patches("patched", []))
        assert len({stock, patched, faulty, changed}) == 4

    def test_what_each_flavour_has_and_in_which_order(self, tmp_path: Path, cache: Cache) -> None:
        source = find_source(cache, tree(tmp_path / "qemu"))
        builder = QemuBuilder(cache, source, series(tmp_path / "patches", "a.patch"))

        def names(flavour: str) -> list[str]:
            return [patch.name for patch in builder.patches(flavour, [])]

        assert names("stock") == []
        assert names("instrumented") == ["instrument.patch"]
        assert names("patched") == ["a.patch", "instrument.patch", "moments.patch"]
        assert builder.flavour_without_info == "instrumented"

    def test_a_version_that_has_the_instruments_alone(self, tmp_path: Path, cache: Cache) -> None:
        folder = series(tmp_path / "patches", "a.patch")
        (folder / "instrument" / "9.2").mkdir()
        (folder / "instrument" / "9.2" / "series").write_text("")
        builder = QemuBuilder(cache, find_source(cache, tree(tmp_path / "qemu", "9.2.1")), folder)
        assert (builder.has_series, builder.has_instruments) == (False, True)
        assert builder.flavour_without_info == "instrumented"
        older = QemuBuilder(cache, find_source(cache, tree(tmp_path / "older", "9.1.0")), folder)
        assert older.flavour_without_info == "stock"

    def test_unknown_flavour(self, tmp_path: Path, cache: Cache) -> None:
        builder = QemuBuilder(cache, find_source(cache, tree(tmp_path / "qemu")), tmp_path)
        with pytest.raises(InputError, match="no QEMU flavour 'sour'"):
            builder.patches("sour", [])

    def test_no_series_for_this_version(self, tmp_path: Path, cache: Cache) -> None:
        builder = QemuBuilder(
            cache, find_source(cache, tree(tmp_path / "qemu", "9.1.0")), series(tmp_path / "patches")
        )
        with pytest.raises(InputError, match=r"no patch series for QEMU 9\.1\.0") as caught:
            builder.patches("patched", [])
        assert "10.0" in (caught.value.hint or "")


class TestSource:
    def test_local_tree(self, tmp_path: Path, cache: Cache) -> None:
        path = tree(tmp_path / "qemu")
        source = find_source(cache, path)
        assert (source.version, source.series, source.has_feature) == ("10.0.5", "10.0", False)
        assert find_source(cache, path) == source
        (path / "hw" / "virtio" / "virtio-balloon.c").write_text('DEFINE("free-page-info")\n')
        changed = find_source(cache, path)
        assert changed.identity != source.identity
        assert changed.tree == source.tree  # built on, not anew
        assert changed.has_feature

    def test_tree_with_the_feature_is_built_as_it_is(self, tmp_path: Path, cache: Cache) -> None:
        path = tree(tmp_path / "qemu")
        (path / "hw" / "virtio" / "virtio-balloon.c").write_text('DEFINE("free-page-info")\n')
        builder = QemuBuilder(cache, find_source(cache, path), series(tmp_path / "patches", "a.patch"))
        assert builder.patches("patched", []) == ()
        with pytest.raises(InputError, match="cannot give a stock QEMU"):
            builder.patches("stock", [])
        with pytest.raises(InputError, match="cannot give a stock QEMU"):
            builder.patches("instrumented", [])

    def test_what_is_not_source_is_left_out(self, tmp_path: Path) -> None:
        path = tree(tmp_path / "qemu")
        for name in (".git/HEAD", "build/config.status", "build/x.o", "python/__pycache__/x.pyc"):
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).touch()
        names = {name for name, _ in source_files(path)}
        assert names == {"configure", "VERSION", "hw/virtio/virtio-balloon.c"}

    def test_copied_and_copied_again(self, tmp_path: Path, cache: Cache) -> None:
        path = tree(tmp_path / "qemu")
        source = find_source(cache, path)
        assert isinstance(source, LocalSource)
        work = WorkTree(cache.folder("work", source.tree))
        source.prepare(work, cache)
        assert (work.source / "VERSION").read_text() == "10.0.5\n"
        (path / "VERSION").write_text("10.0.6\n")
        os.utime(path / "VERSION", (1, 1))
        (path / "hw" / "virtio" / "virtio-balloon.c").unlink()
        with pytest.raises(MachineryError, match="was changed meanwhile"):
            source.prepare(work, cache)
        find_source(cache, path).prepare(work, cache)
        assert (work.source / "VERSION").read_text() == "10.0.6\n"
        # An older file of upstream's is a change here, and ninja has to see it as one.
        assert (work.source / "VERSION").stat().st_mtime > 1
        assert not (work.source / "hw" / "virtio" / "virtio-balloon.c").exists()

    def test_a_link_to_a_folder_is_copied_as_a_link(self, tmp_path: Path, cache: Cache) -> None:
        path = tree(tmp_path / "qemu")
        (path / "headers").symlink_to("hw/virtio")
        source = find_source(cache, path)
        work = WorkTree(cache.folder("work", source.tree))
        source.prepare(work, cache)
        assert (work.source / "headers").readlink() == Path("hw/virtio")
        assert (work.source / "headers" / "virtio-balloon.c").exists()

    def test_tarball(self, tmp_path: Path, cache: Cache) -> None:
        tree(tmp_path / "qemu-10.0.5")
        tarball = tmp_path / "qemu.tar.gz"
        subprocess.run(["tar", "-czf", tarball, "-C", tmp_path, "qemu-10.0.5"], check=True)
        source = find_source(cache, tarball)
        assert source.version == "10.0.5"
        assert find_source(cache, tarball) == source
        work = WorkTree(cache.folder("work", source.tree))
        source.prepare(work, cache)
        assert (work.source / "configure").exists()

    @pytest.mark.parametrize("kind", ["missing", "folder", "file"])
    def test_no_source(self, tmp_path: Path, cache: Cache, kind: str) -> None:
        path = tmp_path / "thing"
        if kind == "folder":
            path.mkdir()
        elif kind == "file":
            path.write_text("text")
        with pytest.raises(InputError, match=r"there is no QEMU source|is not a QEMU source"):
            find_source(cache, path)


class TestRun:
    def test_missing_program_is_named_with_its_package(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "/nowhere")
        monkeypatch.setattr("harness.toolchain.run._EXTRA_PATH", ())
        with pytest.raises(MachineryError, match="the program 'pahole' is missing") as caught:
            run_program(["pahole", "-x"], what="look")
        assert "dwarves" in (caught.value.hint or "")

    def test_failure_has_the_last_lines(self, tmp_path: Path) -> None:
        log = tmp_path / "log"
        with pytest.raises(
            MachineryError, match=r"cannot count: sh failed with status 5\n  \| two\n"
        ) as caught:
            run_program(["sh", "-c", "echo two; exit 5"], what="count", log=log)
        assert str(log) in str(caught.value)

    def test_full_disk_is_recognised(self) -> None:
        with pytest.raises(MachineryError, match="no disk space for compile"):
            run_program(["sh", "-c", "echo 'ld: No space left on device'; exit 1"], what="compile")

    def test_too_slow(self) -> None:
        with pytest.raises(MachineryError, match=r"cannot wait: sleep took over 0\.2 s"):
            run_program(["sleep", "60"], what="wait", seconds=0.2)

    def test_interrupted_program_is_ended(self) -> None:
        seen: list[int] = []

        def interrupt(line: str) -> None:
            seen.append(int(line))
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run_program(["sh", "-c", "echo $$; exec sleep 60"], what="wait", on_line=interrupt)
        with pytest.raises(ProcessLookupError):
            os.kill(seen[0], 0)
