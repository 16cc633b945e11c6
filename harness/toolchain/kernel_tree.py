# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel source tree of the user's: built beside it, with what a guest of the testbed needs.

    kernel = tree_kernel(cache, Path("~/linux"), "defconfig")

Nothing is written into the tree (``make O=``).  The folder of the build stays in the cache, under the
tree's path and configuration, so that the next build compiles what has changed.  What a run uses is
copied out of it into an entry of the cache, under what it is: another build may change the folder while
the run goes on.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from harness.arch import GUEST
from harness.errors import InputError
from harness.toolchain.cache import GIB, Cache, file_digest, key_of, require_space
from harness.toolchain.cross import Compilers, compilers
from harness.toolchain.kernel import Kernel
from harness.toolchain.kernel_files import keep_for_modules, lost_options
from harness.toolchain.run import ProgramFailed, find_program, run_program
from harness.toolchain.sources import sources

#: Configurations that the tree itself has; all else is a file.
DEFCONFIG: Final = "defconfig"
CONFIGURATIONS: Final = (DEFCONFIG, "tinyconfig")
#: What a source of Linux has at its top, and a build tree or an unpacked package has not.
_MARKS: Final = ("Kbuild", "Kconfig", "MAINTAINERS")

_BUILD: Final = 1  # changes when what is done below changes
#: Objects of a defconfig with debugging information.
_SPACE: Final = 6 * GIB
#: Behind this line of a fragment is what a source need not have.
_OPTIONAL: Final = "# Where the source has them"

#: Kbuild's own word about a file that it makes; all else is somebody's complaint.
_MAKING: Final = re.compile(
    r"^  [A-Z][A-Z0-9_.+-]* +(?:\[M\] +)?\S+$"  # "  CC [M]  fs/ext4/inode.o"
    r"|^make(?:\[\d+\])?: (?:Entering|Leaving) "
)
_COMPILED: Final = re.compile(r"^  (?:CC|AS|AR|LD|HOSTCC)\b")
_SHOWN: Final = 25


def is_source_tree(path: Path) -> bool:
    """Whether a folder is a source of Linux that nobody has built in place."""
    built = path / "arch" / GUEST.kernel.source / "boot" / GUEST.kernel.target
    return all((path / mark).is_file() for mark in _MARKS) and not built.exists()


def tree_kernel(cache: Cache, tree: Path, configuration: str = DEFCONFIG) -> Kernel:
    """The kernel of a source tree, built if need be.

    ``configuration``: one of :data:`CONFIGURATIONS`, or a file.  Raises :class:`InputError` for a tree that
    cannot be built beside, or that lacks what a guest needs; :class:`ProgramFailed` with what the
    compiler says, by files of the tree.
    """
    tree = tree.resolve()
    _demand_clean(tree)
    tools = compilers(cache)
    base = configuration if configuration in CONFIGURATIONS else file_digest(_file(configuration))
    # By its path: a tree that is moved is compiled anew, and says so in its errors.
    name = f"kernel-{key_of(build=_BUILD, tree=str(tree), base=base, arch=GUEST.name, tools=tools.version)}"
    with cache.lock(f"work-{name}", f"the kernel in {tree}"):
        folder = cache.folder("work", name)
        require_space(folder, f"the kernel in {tree}", _SPACE if not (folder / "vmlinux").exists() else GIB)
        with cache.events.step("kernel", tree=str(tree)):
            return _Build(cache, tree, folder, tools).make(configuration)


def _demand_clean(tree: Path) -> None:
    """Kbuild refuses this, too, but only after it has begun, and with other advice."""
    if (tree / ".config").exists() or (tree / "include" / "config").exists():
        raise InputError(
            f"{tree} is configured in place, and so cannot be built beside",
            hint="make mrproper there (it removes .config: keep a copy for --kernel-config); or build it in "
            "place, with its modules, and it is taken as it is",
        )


def _file(configuration: str) -> Path:
    path = Path(configuration)
    if not path.is_file():
        raise InputError(f"there is no kernel configuration {path}")
    return path.absolute()


class _Build:
    """A build of a tree in a folder of its own; under the folder's lock."""

    def __init__(self, cache: Cache, tree: Path, folder: Path, tools: Compilers) -> None:
        self._cache = cache
        self._tree = tree
        self._folder = folder
        self._tools = tools
        self._log = folder / "freepage-build.log"
        self._compiled = 0
        self._said: list[str] = []

    def make(self, configuration: str) -> Kernel:
        """Configure, compile, and copy what a run uses into the cache."""
        for program in ("flex", "bison", "bc", "pahole"):
            find_program(program)  # said now, and not by make in the middle of its output
        self._log.unlink(missing_ok=True)
        self._configure(configuration)
        with self._cache.events.step("compile"):
            self._run(GUEST.kernel.target, "modules")
        return self._kept()

    def _configure(self, configuration: str) -> None:
        if configuration in CONFIGURATIONS:
            self._run(configuration)
        else:
            shutil.copyfile(_file(configuration), self._folder / ".config")
        images = sources() / "vm-images"
        fragments = [images / "guest.config", images / f"guest.{GUEST.name}.config"]
        merge = self._tree / "scripts" / "kconfig" / "merge_config.sh"
        words: list[str | Path] = [merge, "-m", "-O", self._folder, self._folder / ".config", *fragments]
        run_program(words, what="merge the configuration", cwd=self._folder, log=self._log)
        self._run("olddefconfig")
        made = (self._folder / ".config").read_text("utf-8")
        wanted = [line for file in fragments for line in _needed(file.read_text("utf-8"))]
        lost = lost_options(wanted, made)
        if lost:
            raise InputError(
                f"the kernel in {self._tree} does not take {', '.join(lost)}, which a guest needs",
                hint=f"what is asked of it is in {fragments[0]}; what became of it in {self._folder}/.config",
            )

    def _run(self, *targets: str) -> None:
        words = [f"-j{os.cpu_count() or 1}", f"O={self._folder}", f"CC={self._tools.gcc}"]
        command: list[str | Path] = ["make", "-C", self._tree, *words, *self._tools.kernel_words, *targets]
        # The same words in each build: what does not change is not linked again.
        env = self._tools.environment() | {
            "KBUILD_BUILD_TIMESTAMP": "@0",
            "KBUILD_BUILD_USER": "freepage",
            "KBUILD_BUILD_HOST": "freepage",
        }
        self._said = []
        try:
            run_program(
                command,
                what=f"build the kernel in {self._tree} ({targets[0]})",
                cwd=self._folder,
                log=self._log,
                on_line=self._follow,
                env=env,
            )
        except ProgramFailed as error:
            raise self._complaint(error) from error

    def _follow(self, line: str) -> None:
        if _COMPILED.match(line):
            self._compiled += 1
            self._cache.events.emit("progress", step="compile", done=self._compiled, unit="files")
        elif not _MAKING.match(line):
            self._said.append(line)
            del self._said[:-1000]

    def _complaint(self, error: ProgramFailed) -> ProgramFailed:
        """What the compiler said, and not what others compiled meanwhile."""
        wrong = (number for number, line in enumerate(self._said) if "error:" in line)
        # From the function that it is in, which gcc says first.
        begins = max(0, next(wrong, len(self._said) - _SHOWN + 1) - 1)
        lines = self._said[begins : begins + _SHOWN]
        message = error.message.splitlines()[0]
        text = "\n".join([message, *(f"  | {line}" for line in lines), f"the whole output: {self._log}"])
        return ProgramFailed(text, error.status, lines)

    def _kept(self) -> Kernel:
        """Into an entry of the cache, under what it is."""
        folder = self._folder
        release = (folder / "include" / "config" / "kernel.release").read_text("utf-8").strip()
        image = folder / "arch" / GUEST.kernel.source / "boot" / GUEST.kernel.target
        key = key_of(
            build=_BUILD,
            image=file_digest(image),
            config=file_digest(folder / ".config"),
            symbols=file_digest(folder / "Module.symvers"),
            modules=[file_digest(path) for path in _modules(folder)],
            headers=_state(self._tree),
        )

        def keep(into: Path) -> None:
            self._run("modules_install", f"INSTALL_MOD_PATH={into}", "INSTALL_MOD_STRIP=1", "DEPMOD=true")
            for link in ("build", "source"):
                (into / "lib" / "modules" / release / link).unlink(missing_ok=True)
            (into / "boot").mkdir()
            shutil.copy(image, into / "boot" / GUEST.image_name(release))
            keep_for_modules((self._tree, folder), into / "usr" / "src" / f"linux-headers-{release}")

        entry = self._cache.get("tree-kernel", key, keep, what=f"the kernel {release}", space=GIB // 4)
        return Kernel(
            vmlinuz=entry / "boot" / GUEST.image_name(release),
            release=release,
            modules_dir=entry / "lib" / "modules" / release,
            headers=entry / "usr" / "src" / f"linux-headers-{release}",
            digest=key,
        )


def _modules(folder: Path) -> list[Path]:
    """Its loadable modules, in their order; newer kernels list the object of each."""
    lines = (folder / "modules.order").read_text("utf-8").split()
    return [(folder / line).with_suffix(".ko") for line in lines]


def _needed(fragment: str) -> Iterator[str]:
    """The lines of a fragment that a source must take."""
    for line in fragment.splitlines():
        if line.startswith(_OPTIONAL):
            return
        yield line


def _state(tree: Path) -> str:
    """Of the headers that a module is built with, by size and time: they are thousands."""
    folders: Sequence[Path] = (tree / "include", tree / "arch" / GUEST.kernel.source / "include")
    state = []
    for folder in folders:
        for path in sorted(folder.rglob("*.h")):
            found = path.stat()
            state.append((str(path.relative_to(tree)), found.st_size, found.st_mtime_ns))
    return key_of(files=state)
