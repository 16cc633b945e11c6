# SPDX-License-Identifier: GPL-2.0-or-later
"""The version of the guest's machine between two QEMUs that are not of one version.

``pc`` stands for another machine in each version of QEMU, and a guest can only go to a
QEMU that has its very machine.  So between two versions a plain name means the newest
version of it that both have: that of the older QEMU.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from harness.toolchain.questions import MachineType


def newest_common(wanted: str, known: Sequence[Mapping[str, MachineType]]) -> str | None:
    """Of the versions of a plain machine that all QEMUs have, the newest; None: there is none.

    ``known``: what each QEMU's :func:`harness.toolchain.questions.machine_types` says.
    """
    kinds = {_kind(machines[wanted].name) for machines in known if wanted in machines}
    common = set.intersection(*({machine.name for machine in machines.values()} for machines in known))
    return max((name for name in common if _kind(name) in kinds), key=_version, default=None)


def _kind(machine: str) -> str:
    """A machine's name without its version: ``pc-q35`` of ``pc-q35-7.2``."""
    return re.sub(r"-\d+(\.\d+)*$", "", machine)


def _version(machine: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", machine.removeprefix(_kind(machine))))
