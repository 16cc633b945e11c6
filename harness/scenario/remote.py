# SPDX-License-Identifier: GPL-2.0-or-later
"""The scenario's section ``remote``: two machines of the user's own instead of the lab."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator

from harness.scenario.remote_uri import RemoteUri
from harness.scenario.values import Section, Text


def _uri(text: str) -> str:
    return str(RemoteUri.parse(text))


def _absolute(text: str) -> str:
    if not text.startswith("/") or "\n" in text or "\0" in text:
        raise ValueError(f"expected an absolute path, got {text!r}")
    return text


class RemoteSide(Section):
    """One of the two machines."""

    uri: Annotated[Text, AfterValidator(_uri)]
    """``qemu+ssh://USER@HOST[:PORT]/system`` or ``/session``, as libvirt has it; ``?socket=PATH`` names
    libvirt's socket there. Keys, jumps and known hosts are ssh's own."""
    qemu: Annotated[Text, AfterValidator(_absolute)] | None = None
    """The path of a QEMU on that machine; null: the one from here is copied there."""
    python: Text = "python3"
    """What Python is called there: 3.9 or newer."""


class Remote(Section):
    """Two machines that are reached by ssh."""

    source: RemoteSide
    """Where the guest starts."""
    destination: RemoteSide
    """Where it goes."""
    stream: Literal["forwarded", "direct"] = "forwarded"
    """forwarded: the migration goes through ssh and this machine. direct: by TCP from one to
    the other, unencrypted; libvirt picks a port from 49152 on."""
    ssh_config: Annotated[Text, AfterValidator(_absolute)] | None = None
    """A file for ``ssh -F``; null: the user's own configuration."""
