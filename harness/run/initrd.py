# SPDX-License-Identifier: GPL-2.0-or-later
"""The initrd of a run: the image, what the workload needs, and the run's own keys."""

from __future__ import annotations

import shutil
from pathlib import Path

from harness.guest.ssh import Keys
from harness.plan.plan import RunPlan
from harness.scenario.script import actions
from harness.toolchain import cpio


def write_initrd(path: Path, plan: RunPlan, keys: Keys) -> None:
    """Write the archives one behind the other: the kernel unpacks all of them.

    ``path`` must not exist yet.
    """
    with path.open("xb") as file:
        for archive in (plan.image.initrd, plan.archive, plan.device_modules):
            if archive is not None:
                with archive.open("rb") as part:
                    shutil.copyfileobj(part, file)
        distribution = plan.disk is not None and plan.disk.distribution
        files = keys.openssh_files() if distribution else keys.guest_files()
        entries = [cpio.file(f"/{name}", files[name], 0o600) for name in files]
        if any(action.needs_kernel for action in actions(plan.resolved.scenario.script)):
            # The kernel has unpacked, and thrown away, what it was started from.
            entries.append(cpio.file("/kexec/vmlinuz", plan.kernel.vmlinuz.read_bytes(), 0o600))
            entries.append(cpio.file("/kexec/initrd", plan.image.initrd.read_bytes(), 0o600))
        cpio.write_cpio(file, cpio.with_parents(entries))
