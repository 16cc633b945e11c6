# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds QEMU: the patched and the stock one, from one source, with the same options.

Both flavours (and every later state of the patches) are built in one lasting
work tree, one after the other, so that each build compiles only what differs
from the one before; the finished binary goes into the cache under its key.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.arch import GUEST
from harness.errors import InputError, MachineryError
from harness.toolchain import counted
from harness.toolchain.cache import GIB, MIB, Cache, file_digest, key_of, require_space, sums_file
from harness.toolchain.firmware import firmware
from harness.toolchain.patches import Patch, patch_at, read_series
from harness.toolchain.probe import HOLD, RECORD, QemuProbe, probe_binary
from harness.toolchain.run import build_environment, run_program, search_path
from harness.toolchain.source import QemuSource, clean_leftovers
from harness.toolchain.sources import sources
from harness.toolchain.sums import Sums
from harness.toolchain.variant import PLAIN_BUILD, Variant
from harness.toolchain.worktree import WorkTree

TARGET = GUEST.qemu_binary
PATCHED = "patched"
STOCK = "stock"
#: Stock, with what tests need in any QEMU (qemu-patches/instrument).
INSTRUMENTED = "instrumented"
#: As patched, with deliberate faults of which a property chooses one (harness/faults).
FAULTS = "faults"
FLAVOURS = (PATCHED, INSTRUMENTED, STOCK)

#: Below the folder of series, beside free page info's own: what any QEMU gets, and what goes on top of both.
INSTRUMENT_SERIES = "instrument"
MOMENT_SERIES = "moments"

# QEMU 10 wants a newer meson than Debian 12 has.
BUILD_TOOLS = ("meson>=1.5", "ninja")


_TREE_SPACE = 2 * GIB
_PROGRESS = re.compile(r"^\[(\d+)/(\d+)\] ")


@dataclasses.dataclass(frozen=True)
class QemuBinary:
    """A QEMU to run a host with."""

    path: Path
    firmware: tuple[Path, ...]
    version: str
    sha256: str
    flavour: str
    has_free_page_info: bool
    has_free_page_hint: bool
    has_record: bool = False
    """Whether it can record what it sends."""
    has_hold: bool = False
    """Whether it can hold a migration at free page info's own moments."""
    counts_lines: bool = False
    """Whether it was built to count how often each of its lines is reached (gcov)."""
    folder: Path | None = None
    """What the program does not run without: it cannot be copied alone."""
    words: tuple[str, ...] = ()
    """Arguments that it adds itself, where it is a wrapper."""
    emulator: Path | None = None
    """What libvirt starts in its place; see harness/hosts/qmp_filter.py."""

    @property
    def version_tuple(self) -> tuple[int, ...]:
        """The version as numbers, to be compared."""
        return tuple(int(part) for part in re.findall(r"\d+", self.version)[:3])

    @property
    def identity(self) -> str:
        """What it is, for whoever keeps what was found out about it: a digest."""
        return key_of(sha256=self.sha256, words=self.words) if self.words else self.sha256

    def require_arm(self, arm: str) -> None:
        """Raise if this QEMU cannot take part in a migration with this arm."""
        lacks = {
            "info": None if self.has_free_page_info else "free-page-info",
            "hint": None if self.has_free_page_hint else "free-page-hint",
        }.get(arm)
        if lacks:
            raise InputError(
                f"the QEMU {self.path} ({self.version}) has no virtio-balloon property '{lacks}', "
                f"which the arm '{arm}' needs",
                hint="leave --qemu out to use the patched QEMU, or choose --arm off",
            )
        if arm == "info" and not (self.has_record and self.has_hold):
            lacks = " and ".join(
                name for name, has in ((RECORD, self.has_record), (HOLD, self.has_hold)) if not has
            )
            folder = sources() / "qemu-patches"
            raise InputError(
                f"the QEMU {self.path} ({self.version}) has free page info, but not {lacks}: "
                "nothing could be proven of its pages",
                hint="leave --qemu out, or apply to it the series of "
                f"{folder / INSTRUMENT_SERIES} and {folder / MOMENT_SERIES} as well",
            )

    def records(self, arm: str) -> bool:
        """Whether it is told to record a migration with this arm.

        Arm off of a QEMU with free page info is what the others are measured against: upstream's migration
        and nothing else.
        """
        return self.has_record and not (arm == "off" and self.has_free_page_info)


def series_patches(source: QemuSource, folder: Path) -> tuple[Patch, ...]:
    """The patches for this source, in order."""
    series = folder / source.series / "series"
    if not series.exists():
        known = sorted(path.parent.name for path in folder.glob("*/series"))
        raise InputError(
            f"there is no patch series for QEMU {source.version} ({series} is missing)",
            hint=f"series exist for: {', '.join(known) or 'none'}; --arm off and --arm hint need none",
        )
    return read_series(series)


class QemuBuilder:
    """Builds flavours of one source."""

    def __init__(self, cache: Cache, source: QemuSource, patch_folder: Path) -> None:
        self.cache = cache
        self.source = source
        self.patch_folder = patch_folder

    @property
    def has_series(self) -> bool:
        """Whether there is a series for this source."""
        return (self.patch_folder / self.source.series / "series").exists()

    @property
    def has_instruments(self) -> bool:
        """Whether there are the instruments for this source, which need no other series."""
        return (self.patch_folder / INSTRUMENT_SERIES / self.source.series / "series").exists()

    @property
    def flavour_without_info(self) -> str:
        """What is built for an arm that needs no free page info, where there is no series of it."""
        return INSTRUMENTED if self.has_instruments else STOCK

    def patches(self, flavour: str, extra: Sequence[Path]) -> tuple[Patch, ...]:
        """What a flavour has on top of the source; ``extra`` (a deliberate fault, say) comes last."""
        known = (*FLAVOURS, FAULTS)
        if flavour not in known:
            raise InputError(f"there is no QEMU flavour '{flavour}'", hint=f"one of {', '.join(known)}")
        own: tuple[Patch, ...] = ()
        if self.source.has_feature:
            if flavour in (STOCK, INSTRUMENTED):
                raise InputError(
                    "the QEMU source that you named has free page info in it: it cannot give a stock QEMU"
                )
        elif flavour == INSTRUMENTED:
            own = series_patches(self.source, self.patch_folder / INSTRUMENT_SERIES)
        elif flavour != STOCK:
            kinds = (
                self.patch_folder,
                self.patch_folder / INSTRUMENT_SERIES,
                self.patch_folder / MOMENT_SERIES,
            )
            own = tuple(patch for kind in kinds for patch in series_patches(self.source, kind))
        if flavour == FAULTS:
            own = (*own, *series_patches(self.source, self.patch_folder / "faults"))
        return (*own, *(patch_at(path) for path in extra))

    def key(self, patches: Sequence[Patch], variant: Variant = PLAIN_BUILD) -> str:
        """Everything that a binary depends on, as far as it can be known without building."""
        return key_of(
            source=self.source.identity,
            patches=[patch.digest for patch in patches],
            options=variant.options,
            # Libraries differ between distributions, and a home folder may be shared.
            system=_system(),
        )

    def get(self, flavour: str, extra: Sequence[Path] = (), variant: Variant = PLAIN_BUILD) -> QemuBinary:
        """The flavour's binary, built if need be."""
        patches = self.patches(flavour, extra)
        key = self.key(patches, variant)
        roms = firmware(self.cache)

        def build(folder: Path) -> None:
            with self.cache.events.step("qemu", flavour=flavour, version=self.source.version) as step:
                self._build(patches, variant, folder, step.note)

        what = f"QEMU {self.source.version} ({flavour})"
        folder = self.cache.get("qemu", key, build, what=what, space=100 * MIB)
        facts = _read_facts(folder)
        if facts is None:
            self.cache.events.emit("warning", text=f"{what}: damaged in the cache, and made anew ({folder})")
            with self.cache.lock(f"qemu-{key}", what):
                self.cache.discard("qemu", key)
            folder = self.cache.get("qemu", key, build, what=what, space=100 * MIB)
            facts = _read_facts(folder) or {}
        return QemuBinary(folder / TARGET, roms, flavour=flavour, **facts)

    @contextmanager
    def built(
        self, patches: Sequence[Patch], variant: Variant, targets: Sequence[str], note: Callable[..., None]
    ) -> Iterator[Path]:
        """The variant's build folder with these targets made; nobody builds in it until the end."""
        root = self.cache.folder("work", self.source.tree)
        tree = WorkTree(root)
        with self.cache.lock(f"work-{self.source.tree}", f"QEMU {self.source.version}"):
            clean_leftovers(tree)
            folder = variant.folder(tree)
            if not folder.exists():
                require_space(root, "QEMU's source and build", _TREE_SPACE)
            self.source.prepare(tree, self.cache)
            note(patches=len(patches), rewritten=len(tree.become(patches)))
            self._configure(tree, variant)
            note(compiled=self._compile(tree, folder, targets))
            yield folder

    def _build(
        self, patches: Sequence[Patch], variant: Variant, folder: Path, note: Callable[..., None]
    ) -> None:
        with self.built(patches, variant, (TARGET,), note) as build:
            binary = folder / TARGET
            shutil.copyfile(build / TARGET, binary)
            binary.chmod(0o755)
            if counted.OPTION in variant.options:
                counted.keep_notes(build, folder / counted.NOTES)
        found = probe_binary(binary)
        (folder / "facts.json").write_text(json.dumps(_facts(found, binary)), encoding="utf-8")
        (folder / "made-of.json").write_text(
            json.dumps(
                {
                    "source": self.source.version,
                    "patches": [p.name for p in patches],
                    "options": variant.options,
                }
            ),
            encoding="utf-8",
        )

    def _tools(self, tree: WorkTree) -> Path:
        """A Python with meson and ninja, kept with the work tree: a build folder remembers its path."""
        folder = tree.root / "tools"
        python = folder / "bin" / "python"
        if (folder / "ready").exists() and python.exists():
            return python
        for stale in (folder, *tree.root.glob(f"{tree.build.name}*/")):
            shutil.rmtree(stale, ignore_errors=True)
        with self.cache.events.step("build tools", packages=", ".join(BUILD_TOOLS)):
            run_program([sys.executable, "-m", "venv", folder], what="make a Python environment for meson")
            run_program(
                [python, "-m", "pip", "install", "--quiet", *BUILD_TOOLS], what="install meson and ninja"
            )
        (folder / "ready").touch()
        return python

    def _configure(self, tree: WorkTree, variant: Variant) -> None:
        python = self._tools(tree)
        downloads = () if not self.source.complete else ("--disable-download",)
        known, unknown = known_options(tree.source, variant.options)
        if unknown:
            text = f"QEMU {self.source.version} has no option {', '.join(unknown)}: built without"
            self.cache.events.emit("message", text=text)
        command = [str(tree.source / "configure"), build_tool_option(tree.source, python), *known, *downloads]
        build = variant.folder(tree)
        mark = build / "freepage-configured"
        wanted = json.dumps([command, _system()])
        if mark.exists() and mark.read_text("utf-8") == wanted:
            return
        if build.exists():
            # Out of the way first: the compilers of a build that was killed may still write there.
            build.rename(tempfile.mkdtemp(prefix="stage.", dir=tree.root))
            clean_leftovers(tree)
        build.mkdir()
        log = tree.root / "configure.log"
        log.unlink(missing_ok=True)
        with self.cache.events.step("configure"):
            run_program(command, what="configure QEMU", cwd=build, log=log, env=_build_environment(tree))
        mark.write_text(wanted, encoding="utf-8")

    def _compile(self, tree: WorkTree, build: Path, targets: Sequence[str]) -> int:
        """Run ninja; returns how many steps it took."""
        steps = 0

        def follow(line: str) -> None:
            nonlocal steps
            match = _PROGRESS.match(line)
            if match:
                steps = int(match[1])
                self.cache.events.emit(
                    "progress", step="compile", done=steps, total=int(match[2]), unit="steps"
                )

        log = tree.root / "build.log"
        log.unlink(missing_ok=True)
        ninja = tree.root / "tools" / "bin" / "ninja"
        with self.cache.events.step("compile"):
            run_program(
                [ninja, "-C", build, *targets],
                what="build QEMU",
                cwd=build,
                env=_build_environment(tree),
                log=log,
                on_line=follow,
            )
        for target in targets:
            if not (build / target).exists():
                raise MachineryError(f"building QEMU made no {target}", hint=f"see {log}")
        return steps


def build_tool_option(source: Path, python: Path) -> str:
    """By which word a source's configure takes our meson.

    From 8.1 on it takes the Python that has it; before, a Python of somebody's goes with QEMU's own meson
    alone, which a distribution's source lacks.
    """
    if (source / "python" / "scripts" / "mkvenv.py").exists():
        return f"--python={python}"
    return f"--meson={python.with_name('meson')}"


def known_options(source: Path, wanted: Sequence[str]) -> tuple[list[str], list[str]]:
    """Of what configure is to be told, what this version of QEMU knows, and what it does not.

    Which features can be switched has changed over time: before 8.1 there is no ``--enable-pixman``.
    """
    files = (source / "configure", source / "scripts" / "meson-buildoptions.sh")
    text = "\n".join(path.read_text("utf-8", "replace") for path in files if path.exists())
    words = frozenset(re.findall(r"--(?:enable|disable)-[\w-]+", text))
    switches = [option for option in wanted if option.startswith(("--enable-", "--disable-"))]
    unknown = [option for option in switches if option not in words]
    return [option for option in wanted if option not in unknown], unknown


def _build_environment(tree: WorkTree) -> dict[str, str]:
    # Meson calls ninja when it configures again (a patch that adds a file makes it), and
    # takes the first that it finds.  An older one of the system's does not know the newer
    # one's log and starts a new one: everything would be compiled again.
    ninja = tree.root / "tools" / "bin" / "ninja"
    path = os.pathsep.join([str(ninja.parent), search_path()])
    return build_environment(PATH=path, NINJA=str(ninja), NINJA_STATUS="[%f/%t] ")


def _facts(found: QemuProbe, binary: Path) -> dict[str, object]:
    return {
        "version": found.version,
        "sha256": file_digest(binary),
        "has_free_page_info": found.has_free_page_info,
        "has_free_page_hint": found.has_free_page_hint,
        "has_record": found.has_record,
        "has_hold": found.has_hold,
        "counts_lines": counted.counts_lines(binary),
    }


def _read_facts(folder: Path) -> dict[str, Any] | None:
    """What an entry says of its binary; None if it is damaged: it says nothing, or of another one."""
    try:
        facts = json.loads((folder / "facts.json").read_text("utf-8"))
        if not set(facts) >= {"version", "sha256"} or not (folder / TARGET).is_file():
            return None
        if not sums_file(folder).exists():
            # Made before sums were kept: the binary is held against its own, and gets some.
            if file_digest(folder / TARGET) != facts["sha256"]:
                return None
            with contextlib.suppress(OSError):
                Sums.of(folder).save(sums_file(folder))
    except (OSError, ValueError, TypeError):
        return None
    return dict(facts)


def _system() -> dict[str, str]:
    """Which distribution this is, and its compiler's name."""
    fields = {}
    for path in (Path("/etc/os-release"), Path("/usr/lib/os-release")):
        if path.exists():
            pairs = (line.partition("=") for line in path.read_text("utf-8").splitlines())
            fields = {name: value.strip('"') for name, _, value in pairs}
            break
    return {
        "id": fields.get("ID", ""),
        "version": fields.get("VERSION_ID", ""),
        "machine": os.uname().machine,
        "compiler": os.environ.get("CC", "cc"),
        "flags": os.environ.get("CFLAGS", ""),
    }
