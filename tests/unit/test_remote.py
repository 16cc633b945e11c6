# SPDX-License-Identifier: GPL-2.0-or-later
"""Where remote hosts are, and whether they will do: the parts that need none."""

from __future__ import annotations

from typing import Any

import pytest

from harness.errors import InputError, MachineryError
from harness.guest.devices import BalloonDevice
from harness.guest.domain import Boot, DomainSpec, domain_xml
from harness.hosts.interface import Sockets
from harness.hosts.remote_fit import (
    DaemonFacts,
    DeputyFacts,
    common_parent,
    demand_machine,
    demand_machine_memory,
    no_libvirt,
    working_socket,
)
from harness.scenario.load import load_scenario
from harness.scenario.remote_uri import RemoteUri

SYSTEM = RemoteUri.parse("qemu+ssh://root@a/system")
SESSION = RemoteUri.parse("qemu+ssh://me@a:2222/session")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("qemu+ssh://root@a/system", RemoteUri("a", "root")),
        ("qemu+ssh://a.example.org/system", RemoteUri("a.example.org")),
        ("qemu+ssh://me@10.0.0.1:2222/session", RemoteUri("10.0.0.1", "me", 2222, session=True)),
        ("qemu+ssh://root@[fe80::1%eth0]:22/system", RemoteUri("fe80::1%eth0", "root", 22)),
        ("qemu+ssh://a/system?socket=/run/x.sock", RemoteUri("a", socket="/run/x.sock")),
    ],
)
def test_uris(text: str, wanted: RemoteUri) -> None:
    assert RemoteUri.parse(text) == wanted
    assert RemoteUri.parse(str(wanted)) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "qemu:///system",
        "qemu+tcp://a/system",
        "qemu+ssh://a/",
        "qemu+ssh://a/other",
        "qemu+ssh:///system",
        "qemu+ssh://root:secret@a/system",
        "qemu+ssh://root@-oProxyCommand=x/system",
        "qemu+ssh://-lroot@a/system",
        "qemu+ssh://root@a b/system",
        "qemu+ssh://root@a;b/system",
        "qemu+ssh://root@$(x)/system",
        "qemu+ssh://root@a:99999/system",
        "qemu+ssh://root@a:x/system",
        "qemu+ssh://a/system?keyfile=/x",
        "qemu+ssh://a/system?socket=relative",
        "qemu+ssh://a/system?socket=/a:b",
        "qemu+ssh://a/system#x",
    ],
)
def test_what_is_no_uri_of_a_remote_host(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected|not known|no place"):
        RemoteUri.parse(text)


def test_a_scenario_names_both_or_none() -> None:
    source = "remote.source.uri=qemu+ssh://root@a/system"
    destination = "remote.destination.uri=qemu+ssh://root@b/system"
    remote = load_scenario("freed", [source, destination]).remote
    assert remote is not None
    assert (remote.source.uri, remote.destination.uri) == (
        "qemu+ssh://root@a/system",
        "qemu+ssh://root@b/system",
    )
    assert load_scenario("freed").remote is None
    with pytest.raises(InputError, match=r"remote.destination"):
        load_scenario("freed", [source])
    with pytest.raises(InputError, match="a password has no place"):
        load_scenario("freed", [source, "remote.destination.uri=qemu+ssh://root:x@b/system"])
    with pytest.raises(InputError, match="expected an absolute path"):
        load_scenario("freed", [source, destination, "remote.source.qemu=qemu"])


def facts(**changed: Any) -> DeputyFacts:
    room = {"path": "/var/tmp", "writable": True, "programs": True, "free": 10 << 30}
    known = {
        "python": "3.11.2",
        "arch": "x86_64",
        "kernel": "6.1",
        "node": "a",
        "uid": 0,
        "user": "root",
        "cpus": 2,
        "memory_available": 4 << 30,
        "sockets": {"/run/libvirt/libvirt-sock": ""},
        "parents": [room],
        "kvm": "",
    }
    return DeputyFacts.of({**known, **changed}, "root@a")


def test_a_machine_that_will_do() -> None:
    demand_machine(facts(), SYSTEM)
    demand_machine(facts(uid=1000, user="me"), SESSION)
    demand_machine_memory(4 << 30, 2 << 30, 256 << 20, "source", "a")


def test_machines_that_will_not_do() -> None:
    with pytest.raises(InputError, match="is a aarch64 machine"):
        demand_machine(facts(arch="aarch64"), SYSTEM)
    with pytest.raises(InputError, match="belong to another user") as told:
        demand_machine(facts(uid=1000, user="me"), SYSTEM)
    assert "qemu+ssh://me@a/session" in str(told.value.hint)
    with pytest.raises(InputError, match=r"4096 MiB do not fit on the source \(a\), which needs 4352"):
        demand_machine_memory(4 << 30, 4 << 30, 256 << 20, "source", "a")
    with pytest.raises(MachineryError, match="makes no sense"):
        facts(uid="0; rm")
    with pytest.raises(MachineryError, match="makes no sense"):
        facts(parents=[{"path": "/"}])


def test_which_socket_is_libvirts() -> None:
    missing = "No such file or directory"
    new, old = "/run/libvirt/virtqemud-sock", "/run/libvirt/libvirt-sock"
    assert working_socket({new: "", old: ""}, SYSTEM) == new
    assert working_socket({new: missing, old: ""}, SYSTEM) == old
    assert working_socket({new: missing, old: missing}, SYSTEM) is None
    with pytest.raises(InputError, match="does not let this user speak with libvirt"):
        working_socket({new: missing, old: "Permission denied"}, SYSTEM)
    assert "install" in str(no_libvirt({new: missing}, SYSTEM).hint)
    assert "start it" in str(no_libvirt({new: missing, old: "Connection refused"}, SYSTEM).hint)


def room(path: str, free: int = 10 << 30, *, writable: bool = True, programs: bool = True) -> dict[str, Any]:
    return {"path": path, "writable": writable, "programs": programs, "free": free}


def test_a_folder_for_the_run_on_both() -> None:
    a = facts(parents=[room("/var/tmp"), room("/tmp"), room("/run", programs=False)])
    b = facts(parents=[room("/var/tmp", 1 << 20), room("/tmp"), room("/run", programs=False)])
    assert common_parent([("a", a), ("b", b)], 1 << 30) == "/tmp"
    assert common_parent([("a", a), ("a", a)], 1 << 30) == "/var/tmp"
    with pytest.raises(InputError, match=r"no folder in common.*mounted noexec"):
        common_parent([("a", a), ("b", b)], 11 << 30)
    c = facts(parents=[room("/tmp", writable=False)])
    with pytest.raises(InputError, match="not writable"):
        common_parent([("a", a), ("c", c)], 1)


CAPABILITIES = """\
<capabilities><host><uuid>1-2-3</uuid>
<secmodel><model>apparmor</model><doi>0</doi></secmodel>
<secmodel><model>dac</model><doi>0</doi>
<baselabel type='kvm'>+64055:+109</baselabel><baselabel type='qemu'>+64055:+109</baselabel></secmodel>
</host></capabilities>
"""


def test_who_qemu_is_and_what_confines_it() -> None:
    daemon = DaemonFacts.of(CAPABILITIES)
    assert daemon == DaemonFacts("1-2-3", ("apparmor",), (64055, 109))
    assert DaemonFacts.of("<capabilities><host/></capabilities>") == DaemonFacts("", (), None)


def test_a_domain_for_a_machine_that_is_not_ours() -> None:
    from pathlib import Path
    from uuid import UUID

    spec = DomainSpec(
        name="freepage-1",
        uuid=UUID(int=1),
        qemu=Path("/q"),
        firmware=(),
        boot=Boot(Path("/k"), Path("/i"), "x"),
        memory=256 << 20,
        vcpus=1,
        machine="pc",
        accelerator="tcg",
        balloon=BalloonDevice("off"),
        sockets=Sockets.below(Path("/s")),
        nics=(),
        ram="memfd",
        unconfined=("apparmor",),
    )
    text = domain_xml(spec)
    assert "<interface" not in text
    assert '<source type="memfd" />' in text
    assert '<seclabel type="none" model="apparmor" />' in text
