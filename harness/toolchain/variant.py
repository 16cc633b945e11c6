# SPDX-License-Identifier: GPL-2.0-or-later
"""The ways to compile QEMU's tree: what ``configure`` is told, and which build folder is whose."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from harness.arch import GUEST, HOST, Architecture
from harness.toolchain.worktree import WorkTree

# No debug information: it doubles the time of a build.  Whoever wants it builds a QEMU
# of their own and names it with --qemu.
_KVM = "--enable-kvm"
_OPTIONS = (
    "--without-default-features",
    "--enable-system",
    _KVM,
    "--enable-tcg",
    "--enable-slirp",
    "--enable-pixman",
    "--enable-zstd",
    "--enable-vhost-kernel",
    "--enable-vhost-net",
    "--enable-vhost-user",
    "--enable-vhost-user-blk-server",
    "--enable-vhost-vdpa",
    "--enable-gnutls",
    "--enable-linux-aio",
    "--enable-linux-io-uring",
    "--enable-numa",
    "--enable-tpm",
    "--enable-vnc",
    "--enable-spice",
    "--enable-spice-protocol",
    "--enable-tools",
    "--disable-docs",
    "--disable-install-blobs",
    "--disable-debug-info",
)


def options(architecture: Architecture = GUEST) -> tuple[str, ...]:
    """What QEMU's ``configure`` is told for guests of this architecture."""
    # KVM runs guests of the machine's own; asked for where there can be none, it is an error.
    plain = (word for word in _OPTIONS if word != _KVM or architecture is HOST)
    return (f"--target-list={architecture.qemu_target}", *plain)


OPTIONS = options()


@dataclasses.dataclass(frozen=True)
class Variant:
    """A way to compile the tree, in a build folder of its own beside the others."""

    name: str
    options: tuple[str, ...]

    def folder(self, tree: WorkTree) -> Path:
        """The name of the variant's build folder."""
        return tree.build.with_name(f"{tree.build.name}-{self.name}") if self.name else tree.build


PLAIN_BUILD = Variant("" if GUEST is HOST else GUEST.name, OPTIONS)


def with_option(name: str, option: str) -> Variant:
    """As PLAIN_BUILD, with one more option of configure's; ``name`` is added to its name."""
    return Variant("-".join(filter(None, (PLAIN_BUILD.name, name))), (*PLAIN_BUILD.options, option))


#: Else QEMU has no COLO to refuse anything to.
WITH_COLO = with_option("colo", "--enable-replication")
