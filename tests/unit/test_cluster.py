# SPDX-License-Identifier: GPL-2.0-or-later
"""What goes between the machines of a cluster, and who may listen."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from harness.cluster.artefacts import NOT_BROUGHT, pack_run, unpack_run
from harness.cluster.security import demand_safe, security_of, write_cluster_certificates
from harness.cluster.serve import dask_resources, find_scheduler, host_of
from harness.errors import ExitCode, InputError, MachineryError
from harness.invoke import invoke
from harness.suite.needs import Resources


def run_folder(place: Path) -> Path:
    (place / "hosts").mkdir(parents=True)
    (place / "result.json").write_bytes(b"r" * 5000)
    (place / "pages.npz").write_bytes(b"p" * 4000)
    (place / "hosts" / "source.log").write_bytes(b"s" * 100)
    return place


def test_a_run_folder_comes_back_whole(tmp_path: Path) -> None:
    sent = run_folder(tmp_path / "sent")
    unpack_run(pack_run(sent, 1 << 20), tmp_path / "back")
    names = {path.relative_to(sent): path.read_bytes() for path in sent.rglob("*") if path.is_file()}
    back = tmp_path / "back"
    assert {path.relative_to(back): path.read_bytes() for path in back.rglob("*") if path.is_file()} == names


def test_what_is_too_large_is_named_and_never_the_verdict(tmp_path: Path) -> None:
    unpack_run(pack_run(run_folder(tmp_path / "sent"), 200), tmp_path / "back")
    assert (tmp_path / "back" / "result.json").stat().st_size == 5000
    assert (tmp_path / "back" / "hosts" / "source.log").exists()
    assert not (tmp_path / "back" / "pages.npz").exists()
    assert "pages.npz" in (tmp_path / "back" / NOT_BROUGHT).read_text()


@pytest.mark.parametrize("name", ["../out", "/out", "a/../../out"])
def test_a_worker_cannot_write_elsewhere(tmp_path: Path, name: str) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        member = tarfile.TarInfo(name)
        member.size = 1
        archive.addfile(member, io.BytesIO(b"x"))
    with pytest.raises(MachineryError, match="no file of a run folder"):
        unpack_run(data.getvalue(), tmp_path / "back" / "run")
    assert not list(tmp_path.rglob("out*"))


def test_links_and_damage_of_a_worker_are_refused(tmp_path: Path) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        member = tarfile.TarInfo("link")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(member)
    with pytest.raises(MachineryError):
        unpack_run(data.getvalue(), tmp_path / "one")
    with pytest.raises(MachineryError, match="cannot be read"):
        unpack_run(pack_run(run_folder(tmp_path / "sent"), 1 << 20)[:60], tmp_path / "two")


def test_nothing_listens_beyond_this_machine_without_certificates(tmp_path: Path) -> None:
    for host in ("127.0.0.1", "localhost", "::1", "127.3.2.1"):
        demand_safe(host, None, "it")
    for host in ("0.0.0.0", "10.0.0.1", "::", "scheduler", ""):
        with pytest.raises(InputError, match="could run programs"):
            demand_safe(host, None, "it")
    demand_safe("10.0.0.1", tmp_path, "it")


def test_certificates_are_a_folder_that_only_its_owner_reads(tmp_path: Path) -> None:
    folder = tmp_path / "tls"
    write_cluster_certificates(folder)
    assert (folder / "key.pem").stat().st_mode & 0o777 == 0o600
    security = security_of(folder)
    assert security is not None and security.require_encryption
    with pytest.raises(InputError, match="cannot make"):
        write_cluster_certificates(folder)
    (folder / "key.pem").chmod(0o644)
    with pytest.raises(InputError, match="others can read"):
        security_of(folder)
    (folder / "cert.pem").unlink()
    with pytest.raises(InputError, match="no such file"):
        security_of(folder)


def test_a_scheduler_is_named_by_address_or_by_its_file(tmp_path: Path) -> None:
    assert find_scheduler("tcp://h:1") == "tcp://h:1"
    file = tmp_path / "s.json"
    for text in ("", "{}", "[]", '{"address": 3}'):
        file.write_text(text)
        with pytest.raises(InputError, match="not the file of a scheduler"):
            find_scheduler(str(file))
    file.write_text(json.dumps({"address": "tls://h:2"}))
    assert find_scheduler(str(file)) == "tls://h:2"
    assert host_of("tls://[::1]:80") == "::1"
    for wrong in ("tcp://h", "http://h:1", "tcp://h:x", "h:1", "tcp://:1"):
        with pytest.raises(InputError, match="no address of a scheduler"):
            host_of(wrong)


def test_a_worker_offers_what_runs_take() -> None:
    offered = dask_resources(Resources(1 << 30, 4, {2 << 20: 8, 1 << 30: 0}), kvm=True)
    assert offered == {"memory": 2.0**30, "cpus": 4.0, "kvm": 4.0, "huge-pages-2097152": 8.0}
    assert "kvm" not in dask_resources(Resources(1 << 30, 4), kvm=False)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run", "idle", "--workers", "tcp://127.0.0.1:1"), "no scheduler answers"),
        (("run", "idle", "--workers", "nowhere.json"), "No such file"),
        (("run", "idle", "--workers", "tcp://192.0.2.1:1"), "could run programs"),
        (("run", "idle", "--tls", "x"), "without --workers"),
        (("run", "idle", "--workers", "tcp://127.0.0.1:1", "--artefacts", "much"), "--artefacts much"),
        (("faults", "run", "--tls", "x"), "without --workers"),
        (("cluster", "scheduler", "--host", "0.0.0.0"), "could run programs"),
        (("cluster", "worker", "tcp://127.0.0.1:1", "--memory", "much"), "--memory much"),
        (("cluster", "worker", "tcp://127.0.0.1:1", "--host", "0.0.0.0"), "could run programs"),
    ],
)
def test_what_is_wrong_is_said(words: tuple[str, ...], said: str) -> None:
    done = invoke(words, timeout=60)
    assert done.exit_code == (ExitCode.ERROR if "answers" in said else ExitCode.INPUT), str(done)
    assert said in done.stderr and "Traceback" not in done.stderr
