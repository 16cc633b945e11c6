# SPDX-License-Identifier: GPL-2.0-or-later
"""The key ``guest.ssh``: how the agent comes into a guest whose image has an ssh server and no cloud-init."""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import AfterValidator, model_validator
from pydantic_core import PydanticCustomError

from harness.scenario.values import Section, Text

#: In place of a file: whichever host key the guest shows first.
FIRST_SHOWN: Final = "first-shown"
#: As useradd has them (shadow's chkname.c): nothing that ssh or a shell would take for more than a name.
_USER: Final = re.compile(r"[a-z_][a-z0-9_-]{0,31}")


def _user(text: str) -> str:
    if not _USER.fullmatch(text):
        raise ValueError(f"expected the name of a user, such as root or debian, got {text!r}")
    return text


def _path(text: str) -> str:
    if "/" not in text:
        raise ValueError(f"expected a path (with a slash), got {text!r}")
    return text


def _host_key(text: str) -> str:
    if text != FIRST_SHOWN and "/" not in text:
        raise ValueError(f"expected {FIRST_SHOWN}, or a path (with a slash), got {text!r}")
    return text


PathText = Annotated[Text, AfterValidator(_path)]


class GuestSsh(Section):
    """The way into a guest by its own ssh server.

    The guest is given its address by DHCP. `key` or `password_file` has to be given.
    """

    user: Annotated[Text, AfterValidator(_user)] = "root"
    """Who logs in. Whoever is not root needs a sudo that asks for no password."""
    key: PathText | None = None
    """The file of a private key that lets the user in, as ssh-keygen writes it, without a passphrase."""
    password_file: PathText | None = None
    """A file whose first line is the user's password."""
    host_key: Annotated[Text, AfterValidator(_host_key)]
    """The file of the public keys that the guest's server may show: lines as in ssh_host_ed25519_key.pub, or
    in known_hosts, where the names do not count. first-shown: the image makes one when it boots, so the one
    that it shows first is taken, said, and demanded from then on."""

    @model_validator(mode="after")
    def _one_way(self) -> GuestSsh:
        if (self.key is None) == (self.password_file is None):
            raise PydanticCustomError("one_way", "expected either key or password_file")
        return self

    @property
    def files(self) -> tuple[str, ...]:
        """The keys of this section that are paths of files."""
        names = ("key", "password_file", "host_key")
        return tuple(name for name in names if "/" in (getattr(self, name) or ""))
