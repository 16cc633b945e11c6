# SPDX-License-Identifier: GPL-2.0-or-later
"""The modes of a migration: which of them libvirt knows, and what QEMU is told directly.

libvirt sets every capability and parameter that it knows when a job begins, so
those go by its flags; it leaves alone what it has never heard of.  Which is which
stands on each key of the scenario's section (:class:`harness.scenario.mode.Mode`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from harness.scenario.mode import Mode, ModeSetting, settings_of

if TYPE_CHECKING:
    from harness.scenario.load import Migration

#: As good as no limit, in bytes a second; QEMU takes no zero for it.
NO_LIMIT: Final = 1 << 50

#: Leave shared memory in files with names where it is.  No key of the migration's: it goes with the guest.
IGNORE_SHARED: Final = ModeSetting(Mode("x-ignore-shared"))


@dataclass(frozen=True, slots=True)
class Modes:
    """What one migration has switched on."""

    settings: tuple[ModeSetting, ...] = ()
    #: Bytes a second; None: no limit.
    bandwidth: int | None = None

    @classmethod
    def of(cls, how: Migration, *, ignore_shared: bool = False) -> Modes:
        """As the scenario has it."""
        settings = tuple(setting for _, setting in settings_of(how))
        return cls((*settings, IGNORE_SHARED) if ignore_shared else settings, how.bandwidth)

    def flags(self) -> int:
        """Libvirt's flags, beside those that every migration has."""
        import libvirt

        flags = 0
        for setting in self.settings:
            if setting.mode.flag is not None:
                flags |= getattr(libvirt, f"VIR_MIGRATE_{setting.mode.flag}")
        return flags

    def parameters(self) -> dict[str, object]:
        """Libvirt's typed parameters."""
        import libvirt

        parameters: dict[str, object] = {}
        for mode, value in ((setting.mode, setting.value) for setting in self.settings):
            if mode.parameter is not None:
                name = getattr(libvirt, f"VIR_MIGRATE_PARAM_{mode.parameter}")
                parameters[name] = value if mode.value is None else mode.value
        return parameters

    @property
    def direct(self) -> tuple[str, ...]:
        """QEMU's capabilities that libvirt refuses, or does not know; with any of them, it is passed by."""
        # Postcopy is one. libvirt: "post-copy migration is not supported with non-live or paused migration".
        modes = (setting.mode for setting in self.settings)
        return tuple(mode.capability for mode in modes if mode.capability is not None and mode.flag is None)

    def qemu_parameters(self) -> dict[str, object]:
        """For migrate-set-parameters on the source."""
        parameters: dict[str, object] = {
            setting.mode.qemu_parameter: setting.value
            for setting in self.settings
            if setting.mode.qemu_parameter is not None
        }
        if self.direct:
            # Nobody else tells it; QEMU's own default is 128 MiB/s.
            parameters["max-bandwidth"] = self.bandwidth or NO_LIMIT
        return parameters


#: One stream, and nothing else.
PLAIN: Final = Modes()
