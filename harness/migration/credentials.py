# SPDX-License-Identifier: GPL-2.0-or-later
"""What encrypts a migration past libvirt: an object of QEMU's on each side, made before it begins.

libvirt makes such objects itself, of certificates; of keys that both sides share (PSK) it knows nothing.
The files are the lab's (:mod:`harness.hosts.certificates`), in one folder on each host.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

from harness.errors import MachineryError
from harness.migration.qmp import Monitor

Tls: TypeAlias = Literal["x509", "psk"]

_OBJECTS: Final = "/objects"


@dataclass(frozen=True, slots=True)
class Credentials:
    """For one migration.  ``folders``: the files' place for the QEMU of each side, by side."""

    kind: Tls
    folders: Mapping[str, Path]
    #: The destination's address, which its certificate is for.
    address: str

    def parameters(self, monitor: Monitor) -> Mapping[str, object]:
        """Make the side's object, unless it has it, and say which parameters name it."""
        client = monitor.side == "source"
        role = "client" if client else "server"
        name = f"freepage-{self.kind}-{role}"
        # It stays when a migration is given up, and when the guest has come here and moves on.
        entries = monitor.execute("qom-list", {"path": _OBJECTS})
        if not isinstance(entries, list):
            raise MachineryError(f"the {monitor.side} QEMU does not tell its objects: {entries!r}")
        if not any(entry.get("name") == name for entry in entries):
            new = {"qom-type": f"tls-creds-{self.kind}", "id": name, "endpoint": role}
            monitor.execute("object-add", {**new, "dir": str(self.folders[monitor.side])})
        return {"tls-creds": name, **({"tls-hostname": self.address} if client else {})}
