# SPDX-License-Identifier: GPL-2.0-or-later
"""The one door to the toolchain: each call returns a finished thing, made if need be."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path

from harness.arch import GUEST
from harness.errors import FreepageError, InputError, MachineryError
from harness.events import EventStream
from harness.toolchain.archived_kernels import archived_kernels
from harness.toolchain.cache import Cache
from harness.toolchain.compiling import build_compile_archive, read_compile_recipe
from harness.toolchain.debian_archive import DebianArchive
from harness.toolchain.debian_kernel import debian_kernel
from harness.toolchain.debian_qemu import SUITES, debian_qemu
from harness.toolchain.debug_kernel import debug_kernel
from harness.toolchain.device_modules import build_device_modules
from harness.toolchain.disk import build_formula_disk
from harness.toolchain.distribution import (
    Distribution,
    Sources,
    build_distribution,
    read_distribution_recipe,
)
from harness.toolchain.external import emulator_of, external_qemu
from harness.toolchain.host_programs import host_program
from harness.toolchain.image import GuestImage, build_image
from harness.toolchain.kernel import Kernel, named_kernel
from harness.toolchain.kernel_tree import DEFCONFIG, is_source_tree, tree_kernel
from harness.toolchain.module import SHIPPED, TEST, build_module
from harness.toolchain.ovmf import GuestFirmware, ovmf
from harness.toolchain.own_image import build_guest_programs
from harness.toolchain.preload import no_manual_protect
from harness.toolchain.qemu import (
    FAULTS,
    FLAVOURS,
    INSTRUMENTED,
    PATCHED,
    STOCK,
    QemuBinary,
    QemuBuilder,
)
from harness.toolchain.qemu_names import DEBIAN
from harness.toolchain.qemu_tools import QEMU_TOOLS, build_qemu_tools
from harness.toolchain.qtests import QemuTests, build_fuzzer, build_qtests
from harness.toolchain.recipe import Recipe, read_recipe
from harness.toolchain.source import SUITE, find_source
from harness.toolchain.sources import sources
from harness.toolchain.user_program import build_program_archive
from harness.toolchain.variant import PLAIN_BUILD, Variant

SOURCE_VARIABLE = "FREEPAGE_QEMU_SOURCE"
PARTS = ("qemu", "qtests", "kernel", "module", "image")
#: Built only when it is asked for: QEMU's fuzzer, a whole QEMU of its own with sanitizers.
FUZZER = "fuzzer"
#: Built only when it is asked for: what has deliberate faults (harness/faults).
FAULTY = "faults"

#: Kernels by name, beside those of newer suites, which the image's recipe names.
DEFAULT_KERNEL, DEBUG, ALL = "default", "debug", "all"


class Toolchain:
    """QEMU, kernel, module and image, from a cache that any number of runs share.

    ``qemu_source`` (or the environment's FREEPAGE_QEMU_SOURCE) names a QEMU
    source tree or tarball to use instead of Debian's.
    """

    def __init__(
        self,
        cache_dir: Path | None = None,
        events: EventStream | None = None,
        *,
        qemu_source: Path | None = None,
    ) -> None:
        self.events = events or EventStream()
        self.cache = Cache(cache_dir, self.events)
        named = os.environ.get(SOURCE_VARIABLE)
        self._trees: dict[tuple[Path, str], Kernel] = {}
        self._qemu_source = qemu_source or (Path(named) if named else None)

    @cached_property
    def recipe(self) -> Recipe:
        """What a guest is made of."""
        return read_recipe(sources() / "vm-images" / "image.yaml")

    @cached_property
    def _builder(self) -> QemuBuilder:
        source = find_source(self.cache, self._qemu_source)
        return QemuBuilder(self.cache, source, sources() / "qemu-patches")

    def qemu(
        self, flavour: str = PATCHED, *, extra_patches: Sequence[Path] = (), variant: Variant = PLAIN_BUILD
    ) -> QemuBinary:
        """A QEMU of ours, by its flavour; ``extra_patches`` go on top (a deliberate fault)."""
        found = self._builder.get(flavour, extra_patches, variant)
        return dataclasses.replace(found, emulator=emulator_of(self.cache, found.path))

    def qemu_for(self, arm: str, flavour: str = PATCHED) -> QemuBinary:
        """A QEMU of ours for an arm: without a series for the source, the instruments are what it gets."""
        plain = flavour == PATCHED and arm != "info"
        if plain and not self._builder.source.has_feature and not self._builder.has_series:
            flavour = self._builder.flavour_without_info
        return self.qemu(flavour)

    def qtests(self) -> QemuTests:
        """QEMU's own tests of balloon and migration, and ours."""
        return build_qtests(self._builder)

    def fuzzer(self, *, extra_patches: Sequence[Path] = ()) -> QemuTests:
        """QEMU's fuzzer, emulator and our qtest, with ASan and UBSan."""
        return build_fuzzer(self._builder, extra_patches)

    def named_qemu(self, name: str) -> QemuBinary:
        """The QEMU of a canonical name (harness/toolchain/qemu_names.py), fetched or built if need be."""
        if name in FLAVOURS:
            return self.qemu(name)
        if not name.startswith(DEBIAN):
            return self.external_qemu(Path(name))
        launcher = debian_qemu(self.cache, name.removeprefix(DEBIAN))
        # All of the folder is of one piece: whoever hides or copies the program has to know.
        return dataclasses.replace(self.external_qemu(launcher), flavour=name, folder=launcher.parent)

    def external_qemu(self, path: Path) -> QemuBinary:
        """A QEMU that somebody names.  Raises :class:`InputError` if it is none."""
        return external_qemu(self.cache, path)

    def flavours(self) -> tuple[str, ...]:
        """What can be built of the source, in the order in which that is quickest."""
        if self._builder.source.has_feature:
            return (PATCHED,)
        if self._builder.has_series:
            return (STOCK, PATCHED)
        return (STOCK, INSTRUMENTED) if self._builder.has_instruments else (STOCK,)

    def guest_firmware(self, name: str) -> GuestFirmware | None:
        """Firmware by the name that a scenario gives it; None: what QEMU takes by itself."""
        if name == "seabios":
            return None
        if "/" in name:
            return GuestFirmware(Path(name).absolute())
        return ovmf(self.cache, smm=name == "ovmf-smm")

    def kernel(self, name: str | Path = DEFAULT_KERNEL, configuration: str = DEFCONFIG) -> Kernel:
        """Debian's cloud kernel, of the image's suite or a newer one; the debug kernel; one at a path.

        ``configuration``: of a source tree at that path (harness/toolchain/kernel_tree.py).
        """
        recipe = self.recipe
        if name == DEFAULT_KERNEL:
            return debian_kernel(self.cache, recipe.suite, recipe.kernel)
        if name == DEBUG:
            return debug_kernel(self.cache, recipe.suite, sources() / "vm-images" / "debug.config")
        if name in recipe.kernels:
            other = recipe.kernels[str(name)]
            if not other.is_here:
                raise InputError(
                    f"there is no kernel {name} for {GUEST.name}",
                    hint=f"there is one with --arch {' or '.join(other.architectures)}",
                )
            return debian_kernel(self.cache, other.suite, other.package or recipe.kernel, other.tools)
        path = Path(name)
        if not is_source_tree(path):
            return named_kernel(path)
        # Built once in a process, however often it is asked for: somebody may go on editing the tree.
        if (path, configuration) not in self._trees:
            self._trees[path, configuration] = tree_kernel(self.cache, path, configuration)
        return self._trees[path, configuration]

    def kernel_names(self) -> tuple[str, ...]:
        """Debian's kernels, by the names that :meth:`kernel` knows; the debug kernel is not one of them."""
        return (DEFAULT_KERNEL, *(name for name, other in self.recipe.kernels.items() if other.is_here))

    def module(self, kernel: Kernel, variant: str = SHIPPED) -> Path:
        """The balloon driver with free page info, for this kernel: ``shipped``, or ``test`` with controls."""
        return build_module(self.cache, kernel, sources() / "guest-module", variant)

    def image(self, kernel: Kernel, variant: str = SHIPPED) -> GuestImage:
        """The initramfs for this kernel, with that build of the module in it."""
        module = self.module(kernel, variant)
        return build_image(self.cache, kernel, module, self.recipe, sources() / "vm-images" / "guest")

    def guest_programs(self) -> Path:
        """A folder with the guest's programs, for a guest that boots from an image of the user's."""
        return build_guest_programs(self.cache, self.recipe, sources() / "vm-images" / "guest")

    def compile_archive(self) -> Path:
        """A compiler and sources, to be unpacked over the image: for guests that compile."""
        recipe = read_compile_recipe(sources() / "vm-images" / "compile.yaml")
        return build_compile_archive(self.cache, recipe)

    def program_archive(self, path: Path) -> Path:
        """A program of the user's, to be unpacked over the image, unless no guest could start it."""
        return build_program_archive(self.cache, path)

    def device_modules(self, kernel: Kernel, names: Sequence[str]) -> Path | None:
        """These modules of the kernel's, to be unpacked over the image; None: none is needed."""
        return build_device_modules(self.cache, kernel, names)

    def host_program(self, name: str) -> tuple[str, ...]:
        """The words that start a program which serves a device: ``swtpm``, ``virtiofsd``, those of QEMU's."""
        if name in QEMU_TOOLS:
            return (str(build_qemu_tools(self._builder) / name),)
        return host_program(self.cache, name)

    def distribution(self, kernel: Kernel, variant: str = SHIPPED) -> Distribution:
        """A Debian guest on a disk, with that build of the module in it."""
        guest, module = sources() / "vm-images", sources() / "guest-module"
        recipe = read_distribution_recipe(guest / "debian.yaml")
        parts = Sources(guest / "guest", module, guest / "debian" / "hook")
        return build_distribution(self.cache, kernel, self.module(kernel, variant), recipe, parts)

    def formula_disk(self, size: int) -> Path:
        """A raw disk of ``size`` bytes with the content that ``pagecache`` expects."""
        return build_formula_disk(self.cache, size)

    def no_manual_protect(self) -> Path:
        """The library that hides KVM's manual dirty log protection from a QEMU."""
        return no_manual_protect(self.cache, sources() / "vm-images" / "host" / "no_manual_protect.c")

    def update(self) -> None:
        """Forget what Debian had: the next call looks, and builds anew what has changed there."""
        kernels = self.recipe.kernels.values()
        others = {suite for other in kernels for suite in (other.suite, other.tools) if suite is not None}
        for suite in {SUITE, self.recipe.suite, *SUITES} | others:
            DebianArchive(self.cache, suite).forget()
        for suite, base in SUITES.items():
            DebianArchive(self.cache, suite, base=base).forget()


@dataclasses.dataclass(frozen=True)
class Built:
    """One thing that ``freepage build`` has made or found; or what it could not make, and why."""

    part: str
    path: Path | None
    detail: str
    failure: FreepageError | None = None


def build_all(
    toolchain: Toolchain,
    parts: Sequence[str] = PARTS,
    *,
    kernel: str | Path = DEFAULT_KERNEL,
    configuration: str = DEFCONFIG,
) -> list[Built]:
    """Make these parts (both flavours of QEMU), with progress on the toolchain's event stream.

    ``kernel`` may be ``all``: those that have a name, and of each suite and series of Debian's the earliest
    and the latest; then one for which something cannot be built keeps none of the others.
    """
    known = (*PARTS, FUZZER, FAULTY)
    unknown = [part for part in parts if part not in known]
    if unknown:
        raise InputError(
            f"there is nothing called '{unknown[0]}' to build", hint=f"one of {', '.join(known)}, all"
        )
    built: list[Built] = []
    # The image first: it is quick, and what is wrong with it shows before a long build.
    if {"kernel", "module", "image"} & set(parts):
        if kernel == ALL:
            built += _build_for_all(toolchain, parts)
        else:
            built += _build_guest(toolchain, parts, toolchain.kernel(kernel, configuration))
    if "qemu" in parts:
        # Stock first: what the patches touch is then compiled again, and little else.
        for flavour in toolchain.flavours():
            qemu = toolchain.qemu(flavour)
            built.append(Built(f"qemu ({flavour})", qemu.path, qemu.version))
    if "qtests" in parts:
        built.append(Built("qtests", toolchain.qtests().folder, "of the patched QEMU"))
    if FUZZER in parts:
        built.append(Built(FUZZER, toolchain.fuzzer().folder, "with sanitizers"))
    if FAULTY in parts:
        name = DEFAULT_KERNEL if kernel == ALL else kernel
        image = toolchain.image(toolchain.kernel(name, configuration), TEST)
        built.append(Built("image (faults)", image.initrd, f"{image.size} bytes"))
        qemu = toolchain.qemu(FAULTS)
        built.append(Built("qemu (faults)", qemu.path, qemu.version))
    return built


def _build_for_all(toolchain: Toolchain, parts: Sequence[str]) -> list[Built]:
    """For every kernel that there is, each once."""
    named = [(name, partial(toolchain.kernel, name)) for name in toolchain.kernel_names()]
    archived = [
        (f"{one.suite} {one.release}", partial(one.get, toolchain.cache))
        for one in archived_kernels(toolchain.cache)
    ]
    built, seen = list[Built](), set[str]()
    for name, get in (*named, *archived):
        try:
            kernel = get()
            if kernel.release not in seen:
                seen.add(kernel.release)
                built += _build_guest(toolchain, parts, kernel)
        except MachineryError as error:
            # What is wrong with one says nothing of the others.
            built.append(Built(parts[0] if len(parts) == 1 else "kernel", None, f"for {name}", error))
    return built


def _build_guest(toolchain: Toolchain, parts: Sequence[str], kernel: Kernel) -> list[Built]:
    built = []
    if "kernel" in parts:
        built.append(Built("kernel", kernel.vmlinuz, kernel.release))
    if "module" in parts:
        built.append(Built("module", toolchain.module(kernel), f"for {kernel.release}"))
    if "image" in parts:
        image = toolchain.image(kernel)
        built.append(Built("image", image.initrd, f"{image.size} bytes"))
    return built
