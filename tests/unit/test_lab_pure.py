# SPDX-License-Identifier: GPL-2.0-or-later
"""Those parts of the lab, the console and the shell that need neither namespaces nor a guest."""

from __future__ import annotations

import hashlib
import shutil
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from harness.errors import GuestLost, MachineryError
from harness.events import Deadline, Event, EventStream
from harness.guest.console import Console
from harness.guest.ssh import HOST_KEY, OPENSSH_HOST_KEY, Keys, dropbear_key, public_blob
from harness.hosts import capscache, enter, netns, relay
from harness.hosts.libvirtd import find_libvirt
from harness.hosts.shaping import bucket
from harness.hosts.userns import restriction

WHOLE = "<qemuCaps>learnt</qemuCaps>\n"


# --- entering


def test_a_mark_alone_is_not_believed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(enter.MARK, "cafe")
    assert not enter.inside_lab()
    token = tmp_path / "token"
    monkeypatch.setattr(enter, "_TOKEN", token)
    token.write_text("beef")
    assert not enter.inside_lab()
    token.write_text("cafe")
    assert enter.inside_lab()
    monkeypatch.delenv(enter.MARK)
    assert not enter.inside_lab()


@pytest.mark.parametrize("status", [0, 1, 2, 3, 4, 130, 143, 129])
def test_statuses_are_passed_on(status: int) -> None:
    assert enter._translate(status) == status


def test_a_command_that_was_killed_is_an_error_of_the_machinery() -> None:
    with pytest.raises(MachineryError, match="SIGKILL") as caught:
        enter._translate(137)
    assert caught.value.hint is not None
    with pytest.raises(MachineryError, match="SIGSEGV"):
        enter._translate(139)


@pytest.mark.parametrize(
    ("name", "forbids", "allows", "advice"),
    [
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "0", "AppArmor"),
        ("kernel/unprivileged_userns_clone", "0", "1", "unprivileged_userns_clone=1"),
        ("user/max_user_namespaces", "0", "100", "max_user_namespaces"),
    ],
)
def test_restrictions_are_told_with_the_way_to_lift_them(
    tmp_path: Path, name: str, forbids: str, allows: str, advice: str
) -> None:
    assert restriction(tmp_path) is None
    switch = tmp_path / name
    switch.parent.mkdir(parents=True)
    switch.write_text(f"{allows}\n")
    assert restriction(tmp_path) is None
    switch.write_text(f"{forbids}\n")
    assert advice in (restriction(tmp_path) or "")


# --- what libvirt has learnt


def test_capabilities_go_there_and_back(tmp_path: Path) -> None:
    private, kept, other = tmp_path / "private", tmp_path / "kept", tmp_path / "other"
    private.mkdir()
    (private / "a.xml").write_text(WHOLE)
    capscache.save(private, kept)
    capscache.load_capabilities(kept, other)
    assert (other / "a.xml").read_text() == WHOLE
    assert [path.name for path in kept.iterdir()] == ["a.xml"]


def test_newer_capabilities_replace_older_ones_and_halves_are_not_kept(tmp_path: Path) -> None:
    private, kept = tmp_path / "private", tmp_path / "kept"
    private.mkdir()
    (private / "a.xml").write_text(WHOLE)
    capscache.save(private, kept)
    newer = WHOLE.replace("learnt", "more")
    (private / "a.xml").write_text(newer)
    (private / "b.xml").write_text(WHOLE[:-5])
    capscache.save(private, kept)
    assert (kept / "a.xml").read_text() == newer
    assert [path.name for path in kept.iterdir()] == ["a.xml"]


def test_no_cache_is_no_error(tmp_path: Path) -> None:
    capscache.load_capabilities(tmp_path / "nothing", tmp_path / "private")
    capscache.save(tmp_path / "nothing", tmp_path / "kept")
    (tmp_path / "private" / "a.xml").write_text(WHOLE)
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    capscache.save(tmp_path / "private", in_the_way / "kept")


def test_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FREEPAGE_CACHE", str(tmp_path))
    assert capscache.capability_cache().parent == tmp_path / "libvirt"


def test_no_daemon_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_args, **_kwargs: None)
    with pytest.raises(MachineryError, match="no libvirt daemon") as caught:
        find_libvirt()
    assert "libvirt-daemon" in (caught.value.hint or "")


# --- the network


@pytest.mark.parametrize("bandwidth", [1 << 20, 100 << 20, 10 << 30])
def test_the_bucket_holds_a_whole_segment_and_a_tick(bandwidth: int) -> None:
    burst, limit = bucket(bandwidth)
    assert burst >= 64 << 10
    assert burst >= bandwidth // 100
    assert limit > burst


def test_the_hosts_know_each_other_by_name() -> None:
    names = dict(reversed(line.split()) for line in netns.HOSTS_FILE.splitlines())
    assert names["source"] != names["destination"]
    assert names["localhost"] == "127.0.0.1"


def test_the_relay_carries_both_ways() -> None:
    wire, packets = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    datagrams, qemu = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    threading.Thread(target=relay.carry, args=(packets, datagrams), daemon=True).start()
    wire.settimeout(10)
    qemu.settimeout(10)
    wire.send(b"to the guest")
    assert qemu.recv(100) == b"to the guest"
    qemu.send(b"from the guest")
    assert wire.recv(100) == b"from the guest"


# --- the console


def console(tmp_path: Path, **more: int) -> tuple[Console, Path, list[Event]]:
    events = EventStream()
    seen: list[Event] = []
    events.subscribe(seen.append)
    return Console(events, tmp_path / "console.log", **more), tmp_path / "s", seen


def connect(path: Path) -> socket.socket:
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    peer.connect(str(path))
    return peer


def soon() -> Deadline:
    return Deadline(10, "the word")


def test_console_logs_every_byte_and_emits_clean_lines(tmp_path: Path) -> None:
    it, path, seen = console(tmp_path)
    with it:
        it.listen("source", path)
        with connect(path) as guest:
            guest.sendall(b"\x1b[0;32mfirst\x1b[0m\r\nsec")
            guest.sendall(b"ond \xff\r\nlogin: ")
            assert it.wait_for("login: $", soon())
            assert it.wait_for(r"^sec(ond)", soon()).group(1) == "ond"
        assert it.tail() == ("first", "second \ufffd", "login: ")
    assert (tmp_path / "console.log").read_bytes() == b"\x1b[0;32mfirst\x1b[0m\r\nsecond \xff\r\nlogin: "
    lines = [event for event in seen if event.kind == "console"]
    assert [event.data["text"] for event in lines] == ["first", "second \ufffd"]
    assert {event.source for event in lines} == {"source.console"}


def test_a_line_goes_on_at_the_destination(tmp_path: Path) -> None:
    it, path, _ = console(tmp_path)
    there = tmp_path / "d"
    with it:
        it.listen("source", path)
        it.listen("destination", there)
        with connect(path) as before, connect(there) as after:
            before.sendall(b"half a ")
            assert it.wait_for("half", soon())
            before.close()
            after.sendall(b"line\n")
            assert it.wait_for("^half a line$", soon())


def test_a_panic_ends_every_wait_with_the_last_lines(tmp_path: Path) -> None:
    it, path, seen = console(tmp_path)
    with it:
        it.listen("source", path)
        with connect(path) as guest:
            guest.sendall(b"fine\nKernel panic - not syncing: no init\n")
            with pytest.raises(GuestLost, match="no init") as caught:
                it.wait_for("ready", soon())
        assert caught.value.last_lines[0] == "fine"
        assert it.panic is not None
    assert "guest-panic" in [event.kind for event in seen]


def test_a_guest_that_ends_is_lost_and_one_that_is_silent_too(tmp_path: Path) -> None:
    it, path, _ = console(tmp_path)
    with it:
        it.listen("source", path)
        with pytest.raises(GuestLost, match="ready word: not within"):
            it.wait_for("ready", Deadline(0.01, "ready word"))
        with connect(path) as guest:
            guest.sendall(b"goodbye\n")
        with pytest.raises(GuestLost, match="has ended") as caught:
            it.wait_for("ready", soon())
    assert caught.value.last_lines == ("goodbye",)


def test_the_last_words_of_a_qemu_that_has_ended_are_read(tmp_path: Path) -> None:
    it, path, _ = console(tmp_path)
    with it:
        it.listen("source", path)
        with connect(path) as guest:
            guest.sendall(b"a word\n")
            it.wait_for("a word", soon())
            it.drain(Deadline(0.01, "the end of one that runs on"))
            guest.sendall(b"line\n" * 30_000 + b"Kernel panic - not syncing: no init\n")
        it.drain(soon())
        assert it.panic is not None


def test_only_the_last_lines_are_kept_but_all_are_waited_for(tmp_path: Path) -> None:
    it, path, _ = console(tmp_path, keep=5)
    with it:
        it.listen("source", path)
        with connect(path) as guest:
            guest.sendall(b"".join(b"line %d\n" % n for n in range(100)))
            assert it.wait_for("line 99", soon())
        assert it.tail(100) == tuple(f"line {n}" for n in range(95, 100))


# --- keys


def test_keys_of_two_runs_differ_and_the_guests_are_where_it_looks() -> None:
    one, two = Keys.generate(), Keys.generate()
    assert one.guest_files()[HOST_KEY] != two.guest_files()[HOST_KEY]
    assert one.authorized_keys().startswith(b"ssh-ed25519 AAAA")
    assert one.known_hosts("10.0.0.1").split()[:2] == [b"10.0.0.1", b"ssh-ed25519"]


@pytest.mark.skipif(shutil.which("dropbearkey") is None, reason="no dropbearkey")
def test_dropbear_reads_the_host_key(tmp_path: Path) -> None:
    keys = Keys.generate()
    file = tmp_path / "key"
    file.write_bytes(dropbear_key(keys.host))
    said = subprocess.run(
        ["dropbearkey", "-y", "-f", file], capture_output=True, text=True, check=True
    ).stdout
    assert keys.known_hosts("x").decode().split()[2] in said


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="no ssh-keygen")
def test_openssh_reads_the_host_key(tmp_path: Path) -> None:
    keys = Keys.generate()
    file = tmp_path / "key"
    file.touch(mode=0o600)
    file.write_bytes(keys.openssh_files()[OPENSSH_HOST_KEY])
    said = subprocess.run(["ssh-keygen", "-y", "-f", file], capture_output=True, text=True, check=True).stdout
    assert keys.known_hosts("x").decode().split()[2] in said


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="no ssh-keygen")
def test_openssh_reads_the_client_key(tmp_path: Path) -> None:
    keys = Keys.generate()
    file = tmp_path / "key"
    file.touch(mode=0o600)
    file.write_bytes(keys.client_key())
    said = subprocess.run(["ssh-keygen", "-y", "-f", file], capture_output=True, text=True, check=True).stdout
    assert said.split()[1] in keys.authorized_keys().decode()


def test_public_blob_is_what_fingerprints_are_made_of() -> None:
    blob = public_blob(Keys.generate().host)
    assert len(blob) == 4 + 11 + 4 + 32
    assert len(hashlib.sha256(blob).digest()) == 32
