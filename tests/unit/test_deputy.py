# SPDX-License-Identifier: GPL-2.0-or-later
"""The deputy as it runs on another machine, here in a process of its own."""

from __future__ import annotations

import io
import mmap
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.deputy import wire
from harness.deputy.tidy import Traces, tidy
from harness.errors import HostLost, MachineryError
from harness.events import Deadline
from harness.hosts.remote_deputy import DeputyClient, archive, unpacked
from harness.hosts.remote_files import bring, fetch
from harness.hosts.remote_memory import CHUNK_PAGES, ORACLE, LookContext, RemoteImage
from harness.memory.compare import compare
from harness.memory.image import RamImage
from harness.scenario.remote_uri import RemoteUri
from harness.units import PAGE_SIZE

KEY = b"k" * 32
PAGES = 3 * CHUNK_PAGES + 5


class FakeSsh:
    """A deputy at the other end of two pipes instead of a connection."""

    uri = RemoteUri("elsewhere")

    def __init__(self, *, deaf: bool = False) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="freepage-test-deputy-"))
        program = self.folder / "deputy.zip"
        program.write_bytes(archive())
        self.process = subprocess.Popen(
            [sys.executable, "-I", str(program), str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if deaf else None,
        )
        if deaf:
            assert self.process.stderr is not None
            self.process.stderr.close()
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdout = self.process.stdout
        self._begun = self.process.stdin

    @property
    def stdin(self) -> Any:
        return self._begun

    def said(self) -> tuple[str, ...]:
        return ()

    def close(self) -> None:
        self._begun.close()
        self.process.wait(30)
        self.stdout.close()


class SilentStart:
    """Swallows the program, which the process has already, and then is the pipe."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe
        self._first = True

    def write(self, data: bytes) -> None:
        if self._first:
            self._first = False
            return
        self._pipe.write(data)

    def flush(self) -> None:
        self._pipe.flush()

    def close(self) -> None:
        self._pipe.close()


def client(ssh: FakeSsh) -> DeputyClient:
    ssh._begun = SilentStart(ssh._begun)
    deputy = DeputyClient("source", ssh)  # type: ignore[arg-type]
    deputy.call("facts", session=False)
    deputy.call("key", KEY)
    return deputy


@pytest.fixture
def ssh() -> Iterator[FakeSsh]:
    fake = FakeSsh()
    yield fake
    fake.close()


def gone(*paths: Path) -> bool:
    """Whether they all go within a while: the keeper is nobody's child that could be waited for."""
    deadline = Deadline(30, "the keeper")
    while any(os.path.lexists(path) for path in paths) and not deadline.expired:
        time.sleep(0.02)
    return not any(os.path.lexists(path) for path in paths)


class Ram:
    """A mapped memfd of this process, as a QEMU would have it."""

    def __init__(self, content: bytes, pages: int = PAGES) -> None:
        self.used = pages * PAGE_SIZE
        self.name = "pc.ram"
        self.fd = os.memfd_create("ram")
        os.truncate(self.fd, self.used)
        self.map = mmap.mmap(self.fd, self.used)
        for start in range(0, len(content), PAGE_SIZE):
            page = content[start : start + PAGE_SIZE]
            if any(page):
                os.pwrite(self.fd, page, start)
        buffer = np.frombuffer(self.map, dtype=np.uint8)
        self.address = buffer.ctypes.data

    def here(self) -> RamImage:
        return RamImage(os.dup(self.fd), self.used, self.name)

    def there(self, deputy: DeputyClient, shared: LookContext | None = None) -> RemoteImage:
        blocks = [[self.name, self.address, self.used]]
        header, _ = deputy.call("open", pid=os.getpid(), blocks=blocks)
        images = header["images"]
        assert isinstance(images, dict)
        return RemoteImage(deputy, images[self.name], self.name, self.used, shared or LookContext(KEY))


def noise(seed: int, pages: int = PAGES) -> bytearray:
    """Pages of which every third is zero."""
    random = np.random.default_rng(seed)
    content = random.integers(0, 256, (pages, PAGE_SIZE), dtype=np.uint8)
    content[::3] = 0
    return bytearray(content.tobytes())


def flip(content: bytearray, page: int) -> None:
    content[page * PAGE_SIZE + 77] ^= 0x40


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        [1],
        [CHUNK_PAGES - 1, CHUNK_PAGES],
        [PAGES - 1],
        [0, 3, 4, 2 * CHUNK_PAGES, PAGES - 1],
        list(range(PAGES)),
    ],
    ids=["none", "one", "border", "last", "some", "all"],
)
def test_the_pages_that_differ_are_those_that_differ(ssh: FakeSsh, wrong: list[int]) -> None:
    """Digests exchanged find what a comparison byte for byte finds."""
    deputy = client(ssh)
    content = noise(1)
    source = Ram(bytes(content))
    for page in wrong:
        flip(content, page)
    for skipped in range(10, 200):
        content[skipped * PAGE_SIZE : (skipped + 1) * PAGE_SIZE] = bytes(PAGE_SIZE)
    destination = Ram(bytes(content))
    far = compare(source.there(deputy), destination.there(deputy))
    near = compare(source.here(), destination.here())
    assert far.differing.tolist() == near.differing.tolist()
    for name in ("zero_on_source", "zero_on_destination", "hole_on_source"):
        assert (getattr(far, name) == getattr(near, name)).all(), name
    expected = {page for page in wrong if not 10 <= page < 200} | {p for p in range(10, 200) if p % 3}
    assert set(far.differing.tolist()) == expected


def test_equal_memory_costs_next_to_nothing(ssh: FakeSsh) -> None:
    deputy = client(ssh)
    content = bytes(noise(2))
    before = deputy.bytes_for(ORACLE)
    found = compare(Ram(content).there(deputy), Ram(content).there(deputy))
    assert found.equal
    assert deputy.bytes_for(ORACLE) - before < PAGES * PAGE_SIZE // 1000


def test_what_changed_between_two_looks(ssh: FakeSsh) -> None:
    deputy = client(ssh)
    content = noise(3)
    ram = Ram(bytes(content))
    image = ram.there(deputy)
    before = image.digests()
    os.pwrite(ram.fd, b"\1", 3 * PAGE_SIZE)  # was zero
    os.pwrite(ram.fd, bytes(PAGE_SIZE), 4 * PAGE_SIZE)  # is zero now
    flip(content, 700)
    os.pwrite(ram.fd, content[700 * PAGE_SIZE : 701 * PAGE_SIZE], 700 * PAGE_SIZE)
    unchanged = before.unchanged(image.digests())
    assert np.flatnonzero(~unchanged).tolist() == [3, 4, 700]
    pages = np.array([5, 6, 700])
    firsts, digests = before.marks(pages)
    for page, first, digest in zip(pages.tolist(), firsts.tolist(), digests.tolist(), strict=True):
        now = noise(3)[page * PAGE_SIZE : (page + 1) * PAGE_SIZE]
        assert first == int.from_bytes(now[:8], "little")
        assert digest == before.digest(bytes(now))


def test_pages_are_read_again_only_if_they_have_changed(ssh: FakeSsh) -> None:
    deputy = client(ssh)
    content = bytes(noise(4))
    ram = Ram(content)
    image = ram.there(deputy)
    assert image.read(5, 100).tobytes() == content[5 * PAGE_SIZE : 105 * PAGE_SIZE]
    before = deputy.bytes_for(ORACLE)
    os.pwrite(ram.fd, b"changed", 50 * PAGE_SIZE)
    again = image.again().read(5, 100).tobytes()
    assert again[45 * PAGE_SIZE :].startswith(b"changed")
    assert again[: 45 * PAGE_SIZE] == content[5 * PAGE_SIZE : 50 * PAGE_SIZE]
    assert deputy.bytes_for(ORACLE) - before < 2 * PAGE_SIZE


def test_what_was_read_on_one_side_is_not_read_again_on_the_other(ssh: FakeSsh) -> None:
    deputy, shared = client(ssh), LookContext(KEY)
    content = bytes(noise(4))
    source, destination = Ram(content).there(deputy, shared), Ram(content).there(deputy, shared)
    source.read(5, 100)
    before = deputy.bytes_for(ORACLE)
    assert destination.read(5, 100).tobytes() == content[5 * PAGE_SIZE : 105 * PAGE_SIZE]
    assert deputy.bytes_for(ORACLE) - before < PAGE_SIZE


def test_what_is_looked_for_is_found(ssh: FakeSsh) -> None:
    deputy = client(ssh)
    ram = Ram(bytes(noise(5)))
    for page in (7, 900):
        os.pwrite(ram.fd, b"VMCOREINFO", page * PAGE_SIZE + 100)
    assert [first for first, _ in ram.there(deputy).blocks_with(b"VMCOREINFO")] == [7, 900]


def test_files_arrive_whole_or_not_at_all(ssh: FakeSsh, tmp_path: Path) -> None:
    deputy = client(ssh)
    folder = tmp_path / "run"
    deputy.call("folder", path=str(folder), owner=os.geteuid(), group=os.getegid())
    file = tmp_path / "program"
    file.write_bytes(os.urandom(5_000_000))
    file.chmod(0o755)
    there = folder / bring(deputy, file, "program")
    assert there.read_bytes() == file.read_bytes()
    assert os.access(there, os.X_OK)
    fetch(deputy, str(there), tmp_path / "back", purpose="logs")
    assert (tmp_path / "back").read_bytes() == file.read_bytes()
    damaged = {"first": True, "mode": 0o644, "sha256": "0" * 64}
    with pytest.raises(MachineryError, match="did not arrive as it was sent"):
        deputy.call("put", b"x", name="files/damaged", **damaged)
    for name in ("../outside", "files/../../outside", "/etc/outside"):
        with pytest.raises(MachineryError, match="not in the run's folder"):
            deputy.call("put", b"x", name=name, **damaged)
    assert deputy.call("leave")[0]["left"] == []
    assert not folder.exists()


def end_by_closing(ssh: FakeSsh) -> None:
    ssh._begun.close()


def end_in_mid_frame(ssh: FakeSsh) -> None:
    ssh._begun.write(wire.pack({"id": 99, "verb": "put"}, b"x" * 100_000)[:5000])
    ssh._begun.flush()
    ssh._begun.close()


def end_by_killing(ssh: FakeSsh) -> None:
    ssh.process.send_signal(signal.SIGKILL)


@pytest.mark.parametrize("end", [end_by_closing, end_in_mid_frame, end_by_killing])
def test_a_connection_that_ends_leaves_nothing(tmp_path: Path, end: Callable[[FakeSsh], None]) -> None:
    ssh = FakeSsh(deaf=True)
    deputy = client(ssh)
    folder = tmp_path / "run"
    deputy.call("folder", path=str(folder), owner=os.geteuid(), group=os.getegid())
    # A program of the run's own, which does not end by itself.
    sleeper = folder / bring(deputy, Path("/bin/sleep").resolve(), "sleep")
    process = subprocess.Popen([sleeper, "600"])
    end(ssh)
    assert gone(folder, ssh.folder)
    assert process.wait(30) == -signal.SIGKILL
    with pytest.raises(HostLost, match="is lost"):
        deputy.call("memory")
    ssh.process.wait(30)
    ssh.stdout.close()


def test_only_the_runs_own_is_taken_away(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    log = tmp_path / "guest.log"
    log.write_text("x")
    # Has the folder in its arguments, and is no QEMU of the run.
    bystander = subprocess.Popen(["/bin/sleep", "600"], cwd=folder)
    reader = subprocess.Popen(
        ["/usr/bin/tail", "-f", str(log), str(folder)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    # It says the file's name when it has opened it; one that comes too late has nothing to read, and ends.
    assert reader.stdout is not None
    assert str(log).encode() in reader.stdout.readline()
    left = tidy(Traces(guest="freepage-x", folder=str(folder), files=[str(log), str(tmp_path / "never")]))
    assert left == []
    assert not folder.exists()
    assert not log.exists()
    assert bystander.poll() is None
    assert reader.poll() is None
    for process in (bystander, reader):
        process.kill()
        process.wait()
    reader.stdout.close()


def test_a_libvirt_that_does_not_notice_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.deputy.tidy._NOTICE_SECONDS", 0.2)
    (tmp_path / "run").mkdir()
    (tmp_path / "guest.pid").write_text("1")
    left = tidy(Traces(folder=str(tmp_path / "run"), states=[str(tmp_path / "guest.pid")]))
    assert left == [f"{tmp_path / 'guest.pid'}: libvirt has not removed it"]


@pytest.mark.timeout(60)
def test_libvirts_notes_are_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Whoever does not hear of it waits for longer than this test may.
    monkeypatch.setattr("harness.deputy.tidy._NOTICE_SECONDS", 3600.0)
    notes = [tmp_path / "guest.xml", tmp_path / "guest.pid"]
    for note in notes:
        note.write_text("1")

    def forget() -> None:
        for note in notes:
            note.unlink()

    (tmp_path / "run").mkdir()
    thread = threading.Timer(0.2, forget)
    thread.start()
    try:
        left = tidy(Traces(folder=str(tmp_path / "run"), states=[str(note) for note in notes]))
    finally:
        thread.join()
    assert left == []


def test_notes_in_a_folder_that_is_not_there_are_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert tidy(Traces(folder=str(tmp_path / "run"), states=[str(tmp_path / "never" / "guest.pid")])) == []


def test_what_comes_from_another_machine_is_bounded() -> None:
    with pytest.raises(MachineryError, match="more than"):
        unpacked(zlib.compress(bytes(1 << 20)), 1000)
    with pytest.raises(MachineryError, match="damaged"):
        unpacked(b"nonsense", 1000)
    for head in (b"\xff" * 8, b"\0\0\0\1\xff\xff\xff\xff"):
        with pytest.raises(wire.WireError):
            wire.read_frame(io.BytesIO(head).read)


def test_a_deputy_answers_nonsense_with_words(ssh: FakeSsh) -> None:
    deputy = client(ssh)
    for verb, what in (
        ("dance", {}),
        ("digest", {}),
        ("digest", {"image": 99}),
        ("fetch", {"path": "/nowhere"}),
    ):
        with pytest.raises(MachineryError):
            deputy.call(verb, **what)
    assert deputy.call("memory")[0]["available"]
