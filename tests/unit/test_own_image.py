# SPDX-License-Identifier: GPL-2.0-or-later
"""A disk image of the user's: what of it is refused, and what its guest is given."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from types import SimpleNamespace
from uuid import UUID

import pycdlib
import pytest
import yaml

from harness.errors import GuestLost, InputError
from harness.events import Deadline
from harness.guest.ssh import Keys
from harness.hosts.netns import nic_of
from harness.run.seed import demand_driver, silence_explained, write_seed
from harness.scenario.load import load_scenario
from harness.toolchain.own_image import OwnImage, read_own_image


def qcow2(path: Path, *, version: int = 3, backing: int = 0, features: int = 0) -> Path:
    head = struct.pack(">4sIQI", b"QFI\xfb", version, backing, 0)
    path.write_bytes(head.ljust(72, b"\0") + struct.pack(">Q", features) + bytes(1000))
    return path


def raw(path: Path) -> Path:
    path.write_bytes(bytes(510) + b"\x55\xaa" + bytes((1 << 20) - 512))
    return path


def test_raw_and_qcow2_are_told_apart(tmp_path: Path) -> None:
    assert read_own_image(raw(tmp_path / "a")) == OwnImage(tmp_path / "a", "raw")
    for version in (2, 3):
        assert read_own_image(qcow2(tmp_path / "b", version=version)).kind == "qcow2"


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"backing": 104}, "whose data is in another file"),
        ({"features": 4}, "whose data is in another file"),
        ({"version": 4}, "version 4"),
    ],
)
def test_a_qcow2_that_names_other_files_is_refused(tmp_path: Path, keys: dict[str, int], words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_own_image(qcow2(tmp_path / "image", **keys))


def test_the_feature_bits_of_version_2_are_none(tmp_path: Path) -> None:
    assert read_own_image(qcow2(tmp_path / "image", version=2, features=4)).kind == "qcow2"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"KDMV" + bytes(2000), "the format vmdk"),
        (b"\x1f\x8b" + bytes(2000), "the format gzip"),
        (b"QFI\xfb", "ends within its qcow2 header"),
        (bytes(1 << 20), "no partition table"),
        (b"", "no partition table"),
    ],
)
def test_what_is_no_disk_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "image"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words):
        read_own_image(path)


def test_a_file_that_is_not_there_is_refused_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file") as caught:
        read_own_image(tmp_path / "image")
    assert "--set guest.image=PATH" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"guest.kernel": "trixie"}, "guest.kernel"),
        ({"guest.cmdline": "quiet"}, "guest.cmdline"),
        ({"guest.module": "test"}, "guest.module"),
        ({"guest.shared": "128MiB"}, "guest.shared"),
        ({"workload": {"kind": "database"}}, "workload.kind"),
        ({"workload": {"kind": "compile"}}, "workload.kind"),
        ({"workload": {"kind": "pagecache"}}, "workload.kind"),
        ({"workload": {"kind": "journal"}}, "workload.kind"),
    ],
)
def test_what_needs_a_guest_of_ours_is_refused_at_its_key(
    tmp_path: Path, changes: dict[str, object], place: str
) -> None:
    tree: dict[str, object] = {"name": "own", "guest": {"image": "./x", "memory": "768MiB"}}
    for key, value in changes.items():
        section, _, name = key.partition(".")
        if name:
            tree[section] = {**tree.get(section, {}), name: value}  # type: ignore[dict-item]
        else:
            tree[section] = value
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(tree))
    with pytest.raises(
        InputError, match=rf"own\.yaml:\d+:\d+: {place}: .*does not go together|expected a blank"
    ):
        load_scenario(str(path))


def test_a_journal_goes_on_a_disk_of_the_scenarios(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    guest = "{image: ./x, memory: 768MiB, disks: [{size: 128MiB}]}"
    path.write_text(f"name: own\nguest: {guest}\nworkload: {{kind: journal}}\n")
    assert load_scenario(str(path)).guest.own_image


def plan(tmp_path: Path, driver: str = "info") -> SimpleNamespace:
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "agent").write_bytes(b"the agent")
    resolved = SimpleNamespace(scenario=load_scenario("own-image"))
    return SimpleNamespace(
        driver=driver, own_image=True, seeded=True, guest_programs=programs, resolved=resolved
    )


def test_cloud_init_finds_what_it_looks_for(tmp_path: Path) -> None:
    keys, seed = Keys.generate(), tmp_path / "seed.iso"
    nics = [nic_of(1, tap=True, segment=number) for number in (0, 1)]
    write_seed(seed, plan(tmp_path), keys, UUID(int=7), nics)  # type: ignore[arg-type]
    disk = pycdlib.PyCdlib()
    disk.open(str(seed))
    assert disk.pvd.volume_identifier.decode().strip() == "cidata"

    def content(name: str) -> bytes:
        out = io.BytesIO()
        disk.get_file_from_iso_fp(out, rr_path=f"/{name}")
        return out.getvalue()

    assert content("agent") == b"the agent"
    assert content("driver") == b"info\n"
    assert json.loads(content("meta-data"))["instance-id"] == str(UUID(int=7))
    said = content("user-data")
    assert said.startswith(b"#cloud-config\n")
    wanted = yaml.safe_load(said)
    (script,) = wanted["write_files"]
    assert script["path"].startswith("/var/lib/cloud/scripts/per-boot/")
    assert script["content"].startswith("#!/bin/sh\n")
    public = wanted["ssh_keys"]["ed25519_public"].removesuffix(" freepage\n")
    assert keys.known_hosts("x").decode() == f"x {public}\n"
    wired = yaml.safe_load(content("network-config"))["ethernets"]
    assert {name: (one["set-name"], one["addresses"]) for name, one in wired.items()} == {
        "eth0": ("eth0", ["10.77.0.10/24"]),
        "eth1": ("eth1", ["10.77.17.10/24"]),
    }
    assert seed.stat().st_mode & 0o777 == 0o600


def test_silence_is_explained_only_when_time_is_up(tmp_path: Path) -> None:
    own = plan(tmp_path)
    with (
        pytest.raises(GuestLost, match="no agent came up") as caught,
        silence_explained(own, Deadline(0, "x")),
    ):  # type: ignore[arg-type]
        raise GuestLost("the ready word: not within 0 s")
    assert "NoCloud" in str(caught.value.hint)
    with pytest.raises(GuestLost, match=r"^QEMU has ended$"), silence_explained(own, Deadline(60, "x")):  # type: ignore[arg-type]
        raise GuestLost("QEMU has ended")


def test_arm_info_needs_the_module_in_the_image(tmp_path: Path) -> None:
    own = plan(tmp_path)
    demand_driver(own, {"driver": "info", "release": "6.1"})  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"the kernel 6\.1 of guest\.image has no module"):
        demand_driver(own, {"driver": "stock", "release": "6.1"})  # type: ignore[arg-type]
