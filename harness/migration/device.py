# SPDX-License-Identifier: GPL-2.0-or-later
"""The balloon device, seen through QOM: where it is, and what it has counted."""

from __future__ import annotations

from collections.abc import Mapping

from harness.errors import MachineryError
from harness.migration.qmp import CommandError, Monitor

#: Where libvirt's devices hang.
PERIPHERAL = "/machine/peripheral"

#: The counters of free page info, a struct; absent in a QEMU without the feature.
STATISTICS = "free-page-info-stats"

#: Setting it lets a migration go on that is held at ``applied``.
RELEASE = "x-free-page-info-release"


def find_balloon(monitor: Monitor) -> str:
    """The QOM path of the virtio-balloon device behind its transport."""
    entries = monitor.execute("qom-list", {"path": PERIPHERAL})
    for entry in entries if isinstance(entries, list) else ():
        if str(entry.get("type", "")).startswith("child<virtio-balloon"):
            # The PCI device is a proxy; the balloon itself is its child.
            return f"{PERIPHERAL}/{entry['name']}/virtio-backend"
    raise MachineryError(f"the {monitor.side} QEMU has no virtio-balloon device")


def read_counters(monitor: Monitor, path: str) -> dict[str, object]:
    """The device's counters; empty where the QEMU knows no free page info."""
    try:
        counters = monitor.execute("qom-get", {"path": path, "property": STATISTICS})
    except CommandError:
        return {}
    return dict(counters) if isinstance(counters, Mapping) else {}
