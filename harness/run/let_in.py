# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent goes into a guest of the user's own image by the image's own ssh server.

The guest asks for its address (:mod:`harness.hosts.dhcp`).  Its server is waited for, and its host key is
checked; then the same programs as on a seed disk (:mod:`harness.run.seed`) are copied into a folder of the
guest's, and started.
"""

from __future__ import annotations

import base64
import hashlib
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Final

from harness.errors import DeadlineExceeded, FreepageError, GuestLost, InputError, MachineryError
from harness.events import Deadline, EventStream
from harness.guest.control import GuestControl
from harness.guest.ssh import Keys
from harness.hosts.dhcp import PROGRAM, AddressServer
from harness.hosts.interface import Nic
from harness.plan.plan import RunPlan
from harness.run.seed import programs_and_start

if TYPE_CHECKING:
    from harness.guest.shell import Shell

#: Where the programs are in the guest.  /run may be mounted noexec.
_FOLDER: Final = "/var/lib/freepage"
#: Seconds for one attempt to log in, of a guest that may be emulated, and between two of them.
_ATTEMPT_SECONDS: Final = 60.0
_PAUSE_SECONDS: Final = 1.0
#: What makes a root of whoever logs in.
_SUDO: Final = ("sudo", "-n", "--")


class WayIn:
    """The way into one guest.  Made before the guest starts, it gives the guest its address."""

    def __init__(self, plan: RunPlan, nic: Nic | None, log: Path) -> None:
        if nic is None:
            raise MachineryError("guest.ssh: the guest has no NIC in this lab")
        assert plan.login is not None
        self._plan, self._login, self._address = plan, plan.login, nic.address
        self._addresses = AddressServer(plan.programs[PROGRAM], nic, log)

    def close(self) -> None:
        """No more addresses are given."""
        self._addresses.stop()

    def let_in(self, keys: Keys, control: GuestControl, events: EventStream, deadline: Deadline) -> Keys:
        """Log in, and start the agent; the keys with which the guest is reached from now on.

        Raises :class:`InputError`, at its key, for what the guest refuses, and :class:`GuestLost` where no
        server answers by the deadline.
        """
        with self._log_in(control, deadline) as shell:
            shown = shell.host_key
            if not self._login.host_keys:
                digest = base64.b64encode(hashlib.sha256(shown.blob).digest()).decode().rstrip("=")
                told = f"the guest shows the host key {shown.kind} SHA256:{digest}: taken as its own"
                events.emit("message", text=told)
            self._bring_agent(shell, keys, deadline)
        events.emit("message", text=f"the agent was copied into the guest by ssh, as {self._login.user}")
        return keys.of_guest(shown, self._login.user)

    def _log_in(self, control: GuestControl, deadline: Deadline) -> Shell:
        # Only such a guest pays for it.
        from harness.guest.shell import NotLetInError, Shell, WrongHostKeyError

        while True:
            self._addresses.check()
            seconds = min(deadline.remaining(), _ATTEMPT_SECONDS)
            try:
                return Shell.connect_as(self._address, self._login, Deadline(seconds, "the ssh server"))
            except NotLetInError as error:
                key = "key" if self._login.key is not None else "password_file"
                raise self._wrong(
                    key, f"the guest's ssh server does not let {self._login.user!r} in: {error.message}"
                ) from error
            except WrongHostKeyError as error:
                raise self._wrong("host_key", error.message) from error
            except (GuestLost, DeadlineExceeded) as error:
                if deadline.expired:
                    raise self._nobody(error) from error
            # Nobody tells when its server is there; but the guest may be gone meanwhile.
            control.stay(_PAUSE_SECONDS)

    def _nobody(self, error: FreepageError) -> GuestLost:
        return GuestLost(
            f"no ssh server let the testbed into the guest of guest.image: {self._addresses.how_far()}; "
            f"at last: {error.message}",
            hint="the image needs an ssh server that starts with it, and DHCP on its first NIC; a slow guest "
            "needs a longer guest.boot_timeout_s (docs/image.md)",
        )

    def _bring_agent(self, shell: Shell, keys: Keys, deadline: Deadline) -> None:
        """Copy the agent with its programs, let the run's key in as well, and start the agent."""
        user = self._login.user
        become = () if user == "root" else _SUDO
        made = shell.run([*become, "mkdir", "-p", "-m", "0700", _FOLDER], deadline)
        if made.status and become:
            said = made.stderr.strip() or f"status {made.status}"
            raise self._wrong("user", f"{user!r} cannot become root in the guest by 'sudo -n': {said}")
        made.check()
        put = 'cat >"$1" && chmod 0755 "$1"'
        for name, content in programs_and_start(self._plan).items():
            shell.run([*become, "sh", "-c", put, "sh", f"{_FOLDER}/{name}"], deadline, given=content).check()
        learn = 'umask 077 && mkdir -p "$HOME/.ssh" && { echo; cat; } >>"$HOME/.ssh/authorized_keys"'
        shell.run(["sh", "-c", learn], deadline, given=keys.authorized_keys()).check()
        # In a session of its own: this one ends.
        start = f"setsid sh {shlex.quote(f'{_FOLDER}/start')} </dev/null >/dev/null 2>&1 &"
        shell.run([*become, "sh", "-c", start], deadline).check()

    def _wrong(self, key: str, words: str) -> InputError:
        return self._plan.resolved.scenario.wrong(f"guest.ssh.{key}", words)
