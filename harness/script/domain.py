# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest as libvirt has it, for the actions of a script."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.errors import InputError, MachineryError

if TYPE_CHECKING:
    import libvirt


class ScriptDomain:
    """The domain of the host that the guest leaves; ``is_here`` says which, before the script begins."""

    def __init__(self) -> None:
        self._domain: libvirt.virDomain | None = None

    def is_here(self, domain: libvirt.virDomain) -> None:
        """The guest is about to be migrated from here."""
        self._domain = domain

    @property
    def libvirt(self) -> libvirt.virDomain:
        """The object of libvirt.  Raises :class:`MachineryError` before there is one."""
        if self._domain is None:
            raise MachineryError("there is no domain yet")
        return self._domain

    def attach(self, xml: str) -> None:
        """Plug a device in, so that a migration takes it along."""
        import libvirt

        try:
            self.libvirt.attachDeviceFlags(xml, libvirt.VIR_DOMAIN_AFFECT_LIVE)
        except libvirt.libvirtError as error:
            raise _refused("device-add", error) from error

    def start_postcopy(self) -> None:
        """Have libvirt switch its migration to postcopy.  Raises :class:`MachineryError` if it does not."""
        import libvirt

        try:
            self.libvirt.migrateStartPostCopy()
        except libvirt.libvirtError as error:
            raise MachineryError(
                f"libvirt does not switch to postcopy: {error.get_error_message()}"
            ) from error

    def pause_postcopy(self) -> None:
        """Have libvirt break its migration in postcopy, which it then takes for one to be recovered."""
        import libvirt

        try:
            self.libvirt.abortJobFlags(libvirt.VIR_DOMAIN_ABORT_JOB_POSTCOPY)
        except libvirt.libvirtError as error:
            raise MachineryError(
                f"libvirt does not break its migration in postcopy: {error.get_error_message()}"
            ) from error

    def detach(self, xml: str) -> None:
        """Ask the guest to let go of a device."""
        import libvirt

        try:
            self.libvirt.detachDeviceFlags(xml, libvirt.VIR_DOMAIN_AFFECT_LIVE)
        except libvirt.libvirtError as error:
            raise _refused("device-del", error) from error

    @property
    def vcpus(self) -> int:
        """How many vCPUs are plugged in."""
        import libvirt

        return int(self.libvirt.vcpusFlags(libvirt.VIR_DOMAIN_AFFECT_LIVE))

    def set_vcpus(self, count: int) -> None:
        """Plug vCPUs in or out."""
        import libvirt

        try:
            self.libvirt.setVcpusFlags(count, libvirt.VIR_DOMAIN_AFFECT_LIVE)
        except libvirt.libvirtError as error:
            raise _refused(f"change to {count} vCPUs", error) from error


def _refused(action: str, error: libvirt.libvirtError) -> InputError:
    return InputError(f"the script's {action}: libvirt refuses it: {error.get_error_message()}")
