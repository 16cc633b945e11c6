# SPDX-License-Identifier: GPL-2.0-or-later
"""The modes of a migration: which of them libvirt knows, and what QEMU is told directly.

libvirt sets every capability and parameter that it knows when a job begins, so
those go by its flags; it leaves alone what it has never heard of.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from harness.scenario.load import Migration

#: As good as no limit, in bytes a second; QEMU takes no zero for it.
NO_LIMIT: Final = 1 << 50


@dataclass(frozen=True, slots=True)
class Modes:
    """What of a scenario's migration section is a mode.  ``multifd`` counts channels; 0 is one stream."""

    multifd: int = 0
    zero_pages: str | None = None
    xbzrle: bool = False
    auto_converge: bool = False
    tls: bool = False
    postcopy: bool = False
    #: Leave shared memory in files with names where it is.
    ignore_shared: bool = False
    #: Bytes a second; None: no limit.
    bandwidth: int | None = None

    @classmethod
    def of(cls, how: Migration, *, ignore_shared: bool = False) -> Modes:
        """As the scenario has it."""
        return cls(
            how.multifd,
            how.zero_pages,
            how.xbzrle,
            how.auto_converge,
            how.tls,
            how.postcopy,
            ignore_shared,
            how.bandwidth,
        )

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
        """QEMU's capabilities that libvirt refuses, or does not know; with any of them, it is passed by."""
        # libvirt: "post-copy migration is not supported with non-live or paused migration".
        chosen = ((self.postcopy, "postcopy-ram"), (self.ignore_shared, "x-ignore-shared"))
        return tuple(name for wanted, name in chosen if wanted)

    def qemu_parameters(self) -> dict[str, object]:
        """For migrate-set-parameters on the source."""
        parameters: dict[str, object] = {}
        if self.zero_pages is not None:
            parameters["zero-page-detection"] = self.zero_pages
        if self.direct:
            # Nobody else tells it; QEMU's own default is 128 MiB/s.
            parameters["max-bandwidth"] = self.bandwidth or NO_LIMIT
        return parameters


#: One stream, and nothing else.
PLAIN: Final = Modes()
