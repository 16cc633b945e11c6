# SPDX-License-Identifier: GPL-2.0-or-later
"""The modes of a migration: which of them libvirt knows, and what QEMU is told directly.

libvirt sets every capability and parameter that it knows when a job begins, so
those go by its flags; it leaves alone what it has never heard of.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from harness.scenario import Migration


@dataclass(frozen=True, slots=True)
class Modes:
    """What of a scenario's migration section is a mode.  ``multifd`` counts channels; 0 is one stream."""

    multifd: int = 0
    zero_pages: str | None = None
    xbzrle: bool = False
    auto_converge: bool = False
    tls: bool = False
    postcopy: bool = False

    @classmethod
    def of(cls, how: Migration) -> Modes:
        """As the scenario has it."""
        return cls(how.multifd, how.zero_pages, how.xbzrle, how.auto_converge, how.tls, how.postcopy)

    def flags(self) -> int:
        """Libvirt's flags, beside those that every migration has."""
        import libvirt

        chosen = (
            (self.multifd, libvirt.VIR_MIGRATE_PARALLEL),
            (self.xbzrle, libvirt.VIR_MIGRATE_COMPRESSED),
            (self.auto_converge, libvirt.VIR_MIGRATE_AUTO_CONVERGE),
            (self.tls, libvirt.VIR_MIGRATE_TLS),
        )
        flags = 0
        for wanted, flag in chosen:
            flags |= flag if wanted else 0
        return flags

    def parameters(self) -> dict[str, object]:
        """Libvirt's typed parameters."""
        import libvirt

        parameters: dict[str, object] = {}
        if self.multifd:
            parameters[libvirt.VIR_MIGRATE_PARAM_PARALLEL_CONNECTIONS] = self.multifd
        if self.xbzrle:
            parameters[libvirt.VIR_MIGRATE_PARAM_COMPRESSION] = "xbzrle"
        return parameters

    @property
    def direct(self) -> tuple[str, ...]:
        """QEMU's capabilities that libvirt would refuse; with any of them, it is passed by."""
        # libvirt: "post-copy migration is not supported with non-live or paused migration".
        return ("postcopy-ram",) if self.postcopy else ()

    def qemu_parameters(self) -> dict[str, object]:
        """For migrate-set-parameters on the source."""
        return {} if self.zero_pages is None else {"zero-page-detection": self.zero_pages}


#: One stream, and nothing else.
PLAIN: Final = Modes()
