# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that boots from a disk image of the user's, which knows nothing of the testbed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from harness.testing import Freepage
from harness.testing.outcome import WrongInput
from harness.toolchain import Toolchain
from tests.vm.support.cloud_image import ServerImage, cloud_image, server_image

#: A distribution that is emulated boots in minutes.
LONGEST = 3600


@pytest.fixture(scope="module")
def image() -> Path:
    return cloud_image(Toolchain())


@pytest.fixture(scope="module")
def server() -> ServerImage:
    return server_image(Toolchain())


def by_ssh(server: ServerImage, **keys: object) -> dict[str, object]:
    """The scenario's keys for a guest that is entered by ssh; others, or other values, by ``keys``."""
    ssh = {"user": "root", "key": str(server.key), "host_key": str(server.host_keys), **keys}
    return {"guest.image": str(server.disk), "guest.ssh": {k: v for k, v in ssh.items() if v is not None}}


@pytest.mark.slow
@pytest.mark.timeout(LONGEST)
def test_a_cloud_image_is_migrated(freepage: Freepage, image: Path, folder: Path) -> None:
    """As they are published: qcow2, compressed."""
    published = folder / "published.qcow2"
    convert = [*Toolchain().host_program("qemu-img"), "convert", "-c", "-O", "qcow2"]
    subprocess.run([*convert, str(image), str(published)], check=True)
    before = published.stat()
    run = freepage.without_defaults().run("own-image", set={"guest.image": str(published)}, timeout=LONGEST)
    assert run.verdict == "pass", run
    command = (run.folder / "source.command").read_text()
    assert "-kernel" not in command
    assert run.result.versions["kernel"]["path"] is None
    assert "cloud-amd64" in run.result.versions["kernel"]["release"]
    assert "cloud-init" in (run.folder / "console.log").read_text(errors="replace")
    # Its memory was walked by its own kernel's word.
    assert run.result.witnesses is not None
    assert run.result.witnesses.kernel == run.result.versions["kernel"]["release"]
    # The user's own file is as it was, and the run's copy is gone.
    assert (published.stat().st_mtime_ns, published.stat().st_size) == (before.st_mtime_ns, before.st_size)
    assert not list(run.folder.glob("disk.*"))


@pytest.mark.slow
@pytest.mark.timeout(LONGEST)
def test_a_kernel_without_the_module_is_said(freepage: Freepage, image: Path) -> None:
    with pytest.raises(WrongInput, match=r"arm: info: the kernel .* of guest\.image has no module"):
        freepage.without_defaults().run(
            "own-image", arm="info", set={"guest.image": str(image)}, timeout=LONGEST
        )


def test_an_image_that_is_not_there_is_said_before_anything_boots(freepage: Freepage) -> None:
    with pytest.raises(WrongInput, match=r"guest\.image: the file /.*/image\.qcow2 cannot be read"):
        freepage.without_defaults().run("own-image")


@pytest.mark.slow
@pytest.mark.timeout(LONGEST)
def test_an_image_without_cloud_init_is_entered_by_ssh(freepage: Freepage, server: ServerImage) -> None:
    run = freepage.without_defaults().run("own-image", set=by_ssh(server), timeout=LONGEST)
    assert run.verdict == "pass", run
    # No seed: the only disk is the image's.
    command = (run.folder / "source.command").read_text()
    assert "cidata" not in command and ".iso" not in command
    assert "cloud-amd64" in run.result.versions["kernel"]["release"]
    assert "DHCPACK(lab0) 10.77.0.10" in (run.folder / "dnsmasq.log").read_text()
    # What lets somebody in is named, and not repeated.
    written = "".join(path.read_text(errors="replace") for path in run.folder.glob("*.yaml"))
    assert str(server.key) in written and "PRIVATE KEY" not in written


@pytest.mark.slow
@pytest.mark.timeout(LONGEST)
def test_a_user_with_a_password_and_sudo_does_as_well(freepage: Freepage, server: ServerImage) -> None:
    """Of a server whose host key nobody knows; and its guest answers on its network after it has moved."""
    ssh = by_ssh(
        server,
        user=server.users[1],
        key=None,
        password_file=str(server.password),
        host_key="first-shown",
    )
    # The agent is root's in any case, and its first NIC, which DHCP has set up, carries datagrams.
    commands = {"guest.commands.after": [["test", "-r", "/etc/shadow"]], "guest.nics": [{"device": "nic"}]}
    run = freepage.without_defaults().run("own-image", set=ssh | commands, timeout=LONGEST)
    assert run.verdict == "pass", run
    events = (run.folder / "events.jsonl").read_text()
    assert "the guest shows the host key ssh-ed25519 SHA256:" in events
    assert f"copied into the guest by ssh, as {server.users[1]}" in events
    assert [one.device for one in run.result.liveness] == ["nic"]


@pytest.mark.slow
@pytest.mark.timeout(LONGEST)
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("key", r"guest\.ssh\.key: the guest's ssh server does not let 'root' in"),
        ("host_key", r"guest\.ssh\.host_key: .* shows another host key than those that are known"),
        ("user", r"guest\.ssh\.user: 'careful' cannot become root in the guest by 'sudo -n'"),
    ],
)
def test_what_the_guest_refuses_is_said_at_its_key(
    freepage: Freepage, server: ServerImage, folder: Path, wrong: str, words: str
) -> None:
    other = folder / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(other)], check=True)
    values = {"key": str(other), "host_key": f"{other}.pub", "user": server.careful}
    with pytest.raises(WrongInput, match=words):
        freepage.without_defaults().run(
            "own-image", set=by_ssh(server, **{wrong: values[wrong]}), timeout=LONGEST
        )


@pytest.mark.slow
@pytest.mark.timeout(LONGEST)
def test_an_image_that_lets_nobody_in_is_said_when_its_time_is_up(
    freepage: Freepage, server: ServerImage, image: Path
) -> None:
    """Of the cloud image, which waits for its seed, and has no host keys without one."""
    keys = by_ssh(server) | {"guest.image": str(image), "guest.boot_timeout_s": 60}
    ended = freepage.without_defaults().start("own-image", set=keys, timeout=LONGEST).end()
    assert ended.exit_code == 3, str(ended)
    assert "no ssh server let the testbed into the guest of guest.image: it has" in ended.stderr
    assert "the image needs an ssh server that starts with it" in ended.stderr
