# SPDX-License-Identifier: GPL-2.0-or-later
"""The modes of a migration: which of them libvirt knows, and what QEMU is told directly.

libvirt sets every capability that it knows when a job begins, to on or off, and
every parameter that it was asked for, on both sides; so those go by its flags.
What it has never heard of it leaves alone, but it also gives nobody time to tell
the destination's QEMU, which it starts and uses at once.  So a mode that libvirt
has no word for goes past it (:class:`harness.migration.direct.DirectJob`), and
with it all others of that migration.  Which is which stands on each key of the
scenario's section (:class:`harness.scenario.mode.Mode`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from harness.errors import MachineryError
from harness.scenario.mode import (
    LIBVIRTS_OWN,
    Mode,
    ModeSetting,
    goes_past_libvirt,
    settings_of,
    switched_off,
)
from harness.scenario.transport import ONE_WAY

if TYPE_CHECKING:
    from harness.migration.credentials import Tls
    from harness.scenario.load import Migration, Scenario

#: As good as no limit, in bytes a second; QEMU takes no zero for it.
NO_LIMIT: Final = 1 << 50

#: Leave shared memory in files with names where it is.  No key of the migration's: it goes with the guest.
IGNORE_SHARED: Final = ModeSetting(Mode("x-ignore-shared"))

#: Off where nothing comes back.
_GOES_ONE_WAY: Final = frozenset({"return-path"})
_BANDWIDTH: Final = "max-bandwidth"


@dataclass(frozen=True, slots=True)
class Modes:
    """What one migration has switched on."""

    settings: tuple[ModeSetting, ...] = ()
    #: Bytes a second; None: no limit.
    bandwidth: int | None = None
    #: The keys for which libvirt has no words; with any of them it is passed by.
    direct: tuple[str, ...] = ()
    #: What it is encrypted with; None: it is not.
    tls: Tls | None = None
    #: Capabilities that are to be off, though every migration of ours has them.
    off: frozenset[str] = frozenset()

    @classmethod
    def of(cls, how: Migration, *, ignore_shared: bool = False, past: Sequence[str] = ()) -> Modes:
        """As the scenario has it; ``past``: keys elsewhere in it by which libvirt is passed by."""
        settings = [setting for _, setting in settings_of(how)]
        direct = [*goes_past_libvirt(how), *past]
        if ignore_shared:
            settings.append(IGNORE_SHARED)
            direct.append("guest.shared")
        # libvirt sets this one whenever a job begins: it is told so, and QEMU with it.
        limit = how.bandwidth or how.parameters.get(_BANDWIDTH)
        if isinstance(limit, int):
            settings = [one for one in settings if one.mode.qemu_parameter != _BANDWIDTH]
        return cls(
            tuple(settings),
            limit if isinstance(limit, int) else None,
            tuple(direct),
            None if not how.tls else "psk" if how.tls == "psk" else "x509",
            (switched_off(how) | (_GOES_ONE_WAY if how.over in ONE_WAY else frozenset()))
            & frozenset(LIBVIRTS_OWN),
        )

    @property
    def lets_guest_run(self) -> bool:
        """Whether libvirt has the guest run on the destination as soon as it can."""
        return not self.direct and any(one.mode.flag == "POSTCOPY" for one in self.settings)

    def flags(self) -> int:
        """Libvirt's flags, beside those that every migration has."""
        import libvirt

        flags = 0
        for setting in self.settings:
            if setting.mode.flag is not None and not setting.past_libvirt:
                flags |= getattr(libvirt, f"VIR_MIGRATE_{setting.mode.flag}")
        return flags

    def parameters(self) -> dict[str, object]:
        """Libvirt's typed parameters."""
        import libvirt

        parameters: dict[str, object] = {}
        for mode, value in ((setting.mode, setting.value) for setting in self.settings):
            given = value if mode.value is None else mode.value
            if mode.parameter is not None and given is not None:
                parameters[getattr(libvirt, f"VIR_MIGRATE_PARAM_{mode.parameter}")] = given
        return parameters

    def capabilities(self) -> tuple[str, ...]:
        """QEMU's capabilities, past libvirt: those that every such migration has, and those asked for."""
        return self.all_capabilities() if self.direct else ()

    def asked_capabilities(self) -> tuple[str, ...]:
        """Those that the scenario asks for, beside what every migration has."""
        names = (setting.mode.capability for setting in self.settings)
        return tuple(dict.fromkeys(name for name in names if name is not None))

    def all_capabilities(self) -> tuple[str, ...]:
        """QEMU's capabilities, whoever switches them on."""
        names = (*LIBVIRTS_OWN, *(setting.mode.capability for setting in self.settings))
        return tuple(dict.fromkeys(name for name in names if name is not None and name not in self.off))

    def qemu_parameters(self) -> dict[str, object]:
        """For migrate-set-parameters: on the source, and past libvirt on both sides."""
        if not self.direct:
            by_libvirt = {one.mode.qemu_parameter for one in self.settings if one.mode.parameter is not None}
            return {name: value for name, value in self.all_parameters().items() if name not in by_libvirt}
        for mode in (setting.mode for setting in self.settings):
            if mode.parameter is not None and mode.value is None and mode.qemu_parameter is None:
                raise MachineryError(f"{mode} does not say QEMU's parameter, and libvirt is passed by")
        # Nobody else tells it; QEMU's own default is 128 MiB/s.
        return {**self.all_parameters(), _BANDWIDTH: self.bandwidth or NO_LIMIT}

    def all_parameters(self) -> dict[str, object]:
        """QEMU's parameters, whoever sets them; all but the bandwidth."""
        return {
            setting.mode.qemu_parameter: setting.value
            for setting in self.settings
            if setting.mode.qemu_parameter is not None and setting.value is not None
        }


def modes_of_move(scenario: Scenario, number: int) -> Modes:
    """What one of a scenario's moves has switched on, counted from 1."""
    shared, past = scenario.guest.shared is not None, scenario.past_libvirt(number)
    return Modes.of(scenario.migration_of(number), ignore_shared=shared, past=past)


#: Parameters that a script's actions change while a migration goes on.
LIMITS: Final = frozenset(
    {_BANDWIDTH, "max-postcopy-bandwidth", "downtime-limit", "avail-switchover-bandwidth"}
)

#: One stream, and nothing else.
PLAIN: Final = Modes()
