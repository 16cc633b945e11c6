# SPDX-License-Identifier: GPL-2.0-or-later
"""The way into a guest by its own ssh server: what is refused of it, and who is let in."""

from __future__ import annotations

import base64
import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest
import yaml

from harness.errors import GuestLost, InputError
from harness.events import Deadline
from harness.guest.login import HostKey, Login, LoginError, read_login
from harness.guest.shell import NotLetInError, Shell, WrongHostKeyError
from harness.guest.ssh import Keys
from harness.scenario.guest_ssh import GuestSsh
from harness.scenario.load import load_scenario
from harness.scenario.paths import with_whole_paths
from tests.unit.test_shell import Server

PASSWORD = "correct horse"


class PasswordServer(Server):
    """Lets in ``debian`` with a password, and root with the run's key."""

    def get_allowed_auths(self, username: str) -> str:  # noqa: ARG002 - paramiko asks by that name
        return "publickey,password"

    def check_auth_password(self, username: str, password: str) -> int:
        good = (username, password) == ("debian", PASSWORD)
        return paramiko.AUTH_SUCCESSFUL if good else paramiko.AUTH_FAILED


@pytest.fixture
def server() -> Iterator[PasswordServer]:
    with contextlib.closing(PasswordServer(Keys.generate())) as server:
        yield server


def soon() -> Deadline:
    return Deadline(30, "the guest's ssh server")


def keygen(path: Path, *, passphrase: str = "", kind: str = "ed25519") -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-f", str(path)], check=True)
    return path


def scenario(tmp_path: Path, ssh: object, **keys: object) -> str:
    path = tmp_path / "own.yaml"
    guest = {"image": "./x", "memory": "768MiB", "ssh": ssh, **keys.pop("guest", {})}  # type: ignore[dict-item]
    path.write_text(yaml.safe_dump({"name": "own", "guest": guest, **keys}))
    return str(path)


GOOD = {"key": "./key", "host_key": "first-shown"}


@pytest.mark.parametrize(
    ("ssh", "words"),
    [
        ({"host_key": "first-shown"}, "expected either key or password_file"),
        (GOOD | {"password_file": "./p"}, "expected either key or password_file"),
        ({"key": "./key"}, r"guest\.ssh\.host_key: missing"),
        (GOOD | {"key": "key"}, r"guest\.ssh\.key: expected a path"),
        (GOOD | {"host_key": "any"}, r"guest\.ssh\.host_key: expected first-shown, or a path"),
        (GOOD | {"user": "-oProxyCommand=x"}, r"guest\.ssh\.user: expected the name of a user"),
        (GOOD | {"user": "a b"}, r"guest\.ssh\.user: expected the name of a user"),
        (GOOD | {"port": 22}, r"guest\.ssh\.port: "),
    ],
)
def test_a_wrong_way_in_is_refused_at_its_key(tmp_path: Path, ssh: object, words: str) -> None:
    with pytest.raises(InputError, match=rf"own\.yaml:\d+:\d+: .*{words}"):
        load_scenario(scenario(tmp_path, ssh))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"guest": {"image": "small"}}, r"guest\.ssh: is for the path of an image"),
        ({"guests": 2}, r"guest\.ssh: does not go together with several guests"),
        ({"guest": {"nics": [{"plugged": "later"}]}}, r"guest\.ssh: needs the guest's first NIC"),
        (
            {"script": [{"at": "pass", "number": 1, "do": [{"action": "reset"}]}]},
            r"script\[0\]\.do\[0\]\.action: reset does not go together with guest\.ssh",
        ),
    ],
)
def test_what_does_not_go_together_with_it(tmp_path: Path, more: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        load_scenario(scenario(tmp_path, GOOD, **more))


def test_its_files_have_whole_paths_in_the_run_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ssh = with_whole_paths(load_scenario(scenario(tmp_path, GOOD))).guest.ssh
    assert ssh is not None
    assert (ssh.key, ssh.host_key, ssh.password_file) == (str(tmp_path / "key"), "first-shown", None)


@pytest.mark.parametrize("kind", ["ed25519", "rsa", "ecdsa"])
def test_a_private_key_and_host_keys_are_read(tmp_path: Path, kind: str) -> None:
    key = keygen(tmp_path / "key", kind=kind)
    kinds, blob, _ = Path(f"{key}.pub").read_text().split()
    known = tmp_path / "known"
    # As in known_hosts, and as in the server's own file; what must not be taken is passed over.
    lines = ("# mine", f"@revoked * {kinds} x", f"a,b {kinds} {blob}", "", f"{kinds} {blob} x@y")
    known.write_text("\n".join(lines))
    login = read_login(GuestSsh(key=str(key), host_key=str(known)))
    assert login.key is not None and login.key.get_base64() == blob
    assert login.host_keys == (HostKey(kinds, base64.b64decode(blob)),) * 2
    assert login.password is None


def test_a_password_is_the_first_line(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(f"{PASSWORD}\nnot this\n")
    ssh = GuestSsh(password_file=str(file), host_key="first-shown")
    assert (read_login(ssh).password, read_login(ssh).host_keys) == (PASSWORD, ())


@pytest.mark.parametrize(
    ("ssh", "content", "words"),
    [
        ({"key": "{}"}, None, "cannot read"),
        ({"key": "{}"}, "ssh-ed25519 AAAA", "is no private key"),
        ({"key": "{}"}, "", "is no private key"),
        ({"password_file": "{}"}, "\nsecond", "first line, which is the password, is empty"),
        ({"password_file": "{}"}, None, "cannot read"),
        ({"key": "/dev/null", "host_key": "{}"}, "# nothing\n", "has no public host key"),
        ({"key": "/dev/null", "host_key": "{}"}, "host ssh-ed25519 %%%\n", ":1: no public key"),
        (
            {"key": "/dev/null", "host_key": "{}"},
            "ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIA==\n",
            ":1: no public key",
        ),
    ],
)
def test_files_that_are_something_else(
    tmp_path: Path, ssh: dict[str, str], content: str | None, words: str
) -> None:
    file = tmp_path / "file"
    if content is not None:
        file.write_text(content)
    keys = {"host_key": "first-shown"} | {key: value.format(file) for key, value in ssh.items()}
    with pytest.raises(LoginError, match=words) as caught:
        read_login(GuestSsh(**keys))
    assert caught.value.key == next(key for key, value in ssh.items() if value == "{}")


def test_a_key_with_a_passphrase_is_refused_in_words(tmp_path: Path) -> None:
    key = keygen(tmp_path / "key", passphrase="secret")
    with pytest.raises(LoginError, match="has a passphrase, and nobody is asked"):
        read_login(GuestSsh(key=str(key), host_key="first-shown"))


def test_a_user_is_let_in_by_a_password_and_its_host_key_is_learnt(server: PasswordServer) -> None:
    login = Login("debian", (), password=PASSWORD)
    with Shell.connect_as("127.0.0.1", login, soon(), port=server.port) as shell:
        assert shell.host_key == server.keys.host_key_shown
        assert shell.run(["sh", "-c", "cat; echo end"], soon(), given=b"what is given\n").stdout == (
            "what is given\nend\n"
        )


def test_who_is_refused_is_not_tried_again(server: PasswordServer) -> None:
    with pytest.raises(NotLetInError, match="Authentication failed"):
        Shell.connect_as("127.0.0.1", Login("debian", (), password="wrong"), soon(), port=server.port)


def test_a_server_that_goes_away_during_the_login_may_only_be_not_ready(server: PasswordServer) -> None:
    """As sshd does where users are not let in while the system boots (pam_nologin)."""

    def hang_up(username: str, password: str) -> int:
        assert server.transport is not None
        server.transport.close()
        return paramiko.AUTH_FAILED

    server.check_auth_password = hang_up  # type: ignore[method-assign]
    with pytest.raises(GuestLost) as caught:
        Shell.connect_as("127.0.0.1", Login("debian", (), password=PASSWORD), soon(), port=server.port)
    assert not isinstance(caught.value, NotLetInError)


def test_another_host_key_is_refused_before_the_password_is_told(server: PasswordServer) -> None:
    login = Login("debian", (Keys.generate().host_key_shown,), password=PASSWORD)
    with pytest.raises(WrongHostKeyError, match="another host key than those that are known"):
        Shell.connect_as("127.0.0.1", login, soon(), port=server.port)


def test_a_server_without_a_host_key_of_the_known_kind(server: PasswordServer, tmp_path: Path) -> None:
    rsa, blob, _ = Path(f"{keygen(tmp_path / 'key', kind='rsa')}.pub").read_text().split()
    login = Login("debian", (HostKey(rsa, base64.b64decode(blob)),), password=PASSWORD)
    with pytest.raises(WrongHostKeyError, match="no host key of a kind that is known"):
        Shell.connect_as("127.0.0.1", login, soon(), port=server.port)


def test_the_run_goes_by_the_guests_own_key_from_then_on(server: PasswordServer) -> None:
    other = Keys.generate()
    keys = Keys(other.host, server.keys.client).of_guest(server.keys.host_key_shown, "root")
    assert keys.known_hosts("x") == server.keys.known_hosts("x")
    with Shell.connect("127.0.0.1", keys, soon(), port=server.port) as shell:
        assert shell.run(["echo", "here"], soon()).check() == "here\n"
