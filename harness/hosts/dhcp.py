# SPDX-License-Identifier: GPL-2.0-or-later
"""An address for a guest that asks for one: dnsmasq, on the lab's end of the guest's segment.

A guest of the testbed's is told its address when it boots.  One that boots from an image of the user's asks,
by DHCP, as a machine does that is new in a network.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from harness.errors import MachineryError
from harness.hosts.interface import Nic
from harness.hosts.netns import LAB_LINK, NETMASK

#: dnsmasq's name in :mod:`harness.toolchain.host_programs`.
PROGRAM: Final = "dnsmasq"


class AddressServer:
    """dnsmasq, from its making on until :meth:`stop`; call it where the lab's own link is."""

    def __init__(self, program: Sequence[str], nic: Nic, log: Path) -> None:
        """Give ``nic`` its address, and nobody else any.  ``log``: what the server says."""
        self._log, self._mac = log, nic.mac
        words = [
            *program,
            "--no-daemon",  # in the foreground, and as whoever it is
            "--user=root",
            "--conf-file=/dev/null",
            "--port=0",  # no name server
            f"--interface={LAB_LINK}",
            "--bind-interfaces",
            f"--dhcp-range={nic.lab},static,{NETMASK},infinite",
            f"--dhcp-host={nic.mac},{nic.address},infinite",
            # Neither a router nor a name server: nothing leads out.
            "--dhcp-option=option:router",
            "--dhcp-option=option:dns-server",
            "--dhcp-authoritative",
            "--no-ping",
            f"--dhcp-leasefile={log.with_suffix('.leases')}",
            f"--log-facility={log}",
        ]
        try:
            self._process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            raise MachineryError(f"cannot start {words[0]}: {error.strerror}") from error

    def check(self) -> None:
        """Raise unless it serves."""
        if self._process.poll() is not None:
            said = self._said().strip().splitlines()[-1:]
            raise MachineryError(f"dnsmasq, which gives the guest its address, has ended: {' '.join(said)}")

    def how_far(self) -> str:
        """How far the guest has come with its address, in words."""
        said = self._said()
        if f"DHCPACK({LAB_LINK})" in said and self._mac in said:
            return "it has taken its address"
        if self._mac in said:
            return "it has asked for an address by DHCP, and has not taken the one that it was offered"
        return "it has not asked for an address by DHCP"

    def stop(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()

    def _said(self) -> str:
        try:
            return self._log.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""
