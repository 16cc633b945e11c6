# SPDX-License-Identifier: GPL-2.0-or-later
"""A QEMU that somebody names: what it is, found out once and kept until it changes."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Final

from harness.errors import InputError
from harness.toolchain.cache import MIB, Cache, file_digest, key_of
from harness.toolchain.counted import counts_lines
from harness.toolchain.firmware import NEEDED, firmware
from harness.toolchain.probe import probe_binary, require_program
from harness.toolchain.qemu import QemuBinary
from harness.toolchain.running_qemu import RunningQemu, look_at
from harness.toolchain.sources import package_folder

#: What was found out, by the program that was named, and by the program that it runs.
_NAMED: Final = "external-qemu"
_RUN: Final = "running-qemu-3"
#: Changes when more is found out.
_FORM: Final = 1

_FILTER: Final = Path("hosts", "qmp_filter.py")
_FILTERED: Final = """\
#!/bin/sh
# libvirt starts QEMU through this: see qmp_filter.py beside it.
exec {python} -I -S "${{0%/*}}/{name}" {qemu} "$@"
"""


def external_qemu(cache: Cache, path: Path) -> QemuBinary:
    """A QEMU that somebody names.  Raises :class:`InputError` if it is none.

    It gets our firmware if it does not find its own (one in its build folder may not).
    """
    path = path.absolute()
    require_program(path)
    running = _running(cache, path)
    facts = _facts(cache, path, running)
    roms = () if facts["has_firmware"] else firmware(cache)
    return QemuBinary(
        path=path,
        firmware=roms,
        version=str(facts["version"]),
        sha256=str(facts["sha256"]),
        flavour="external",
        has_free_page_info=bool(facts["has_free_page_info"]),
        has_free_page_hint=bool(facts["has_free_page_hint"]),
        has_record=bool(facts["has_record"]),
        has_hold=bool(facts["has_hold"]),
        counts_lines=bool(facts["counts_lines"]),
        words=running.words,
        emulator=None if running.takes_detach else _filtered(cache, path),
    )


def emulator_of(cache: Cache, path: Path) -> Path | None:
    """What libvirt has to start in place of a QEMU; None: that QEMU."""
    return None if _running(cache, path).takes_detach else _filtered(cache, path)


def _running(cache: Cache, path: Path) -> RunningQemu:
    """What the program becomes; asked again whenever its file changes, or that of what it becomes."""
    known = _mapping(cache.recall(_NAMED))
    entry = known.get(str(path))
    if isinstance(entry, dict) and entry.get("mark") == _mark(path):
        program = Path(str(entry["program"]))
        if entry.get("program_mark") == _mark(program):
            return RunningQemu(program, tuple(entry["words"]), bool(entry["takes_detach"]))
    try:
        found = look_at(path)
    except InputError:
        probe_binary(path)  # says better what is wrong with a program of another kind
        raise
    kept = {
        "mark": _mark(path),
        "program": str(found.program),
        "program_mark": _mark(found.program),
        "words": list(found.words),
        "takes_detach": found.takes_detach,
    }
    cache.remember(_NAMED, {**known, str(path): kept})
    return found


def _facts(cache: Cache, path: Path, running: RunningQemu) -> dict[str, object]:
    """What the program that runs is, with those words; the wrapper's text does not matter."""
    key = key_of(program=str(running.program), mark=_mark(running.program), words=running.words)
    known = _mapping(cache.recall(_RUN))
    entry = known.get(key)
    if isinstance(entry, dict):
        return dict(entry)
    found = probe_binary(path)
    facts: dict[str, object] = {
        "version": found.version,
        "sha256": file_digest(running.program),
        "has_free_page_info": found.has_free_page_info,
        "has_free_page_hint": found.has_free_page_hint,
        "has_record": found.has_record,
        "has_hold": found.has_hold,
        "counts_lines": counts_lines(running.program),
        "has_firmware": all(any((folder / name).exists() for folder in found.data_dirs) for name in NEEDED),
    }
    cache.remember(_RUN, {**known, key: facts})
    return facts


def _filtered(cache: Cache, path: Path) -> Path:
    """The program by which libvirt starts a QEMU that has given up what libvirt says."""
    source = package_folder() / _FILTER
    key = key_of(qemu=str(path), python=sys.executable, filter=file_digest(source))

    def build(folder: Path) -> None:
        shutil.copyfile(source, folder / source.name)
        launcher = folder / path.name
        words = {"python": _quoted(sys.executable), "qemu": _quoted(str(path)), "name": source.name}
        launcher.write_text(_FILTERED.format(**words), encoding="utf-8")
        launcher.chmod(0o755)

    folder = cache.get("qmp-filter", key, build, what=f"the filter before {path}", space=MIB)
    return folder / path.name


def _quoted(word: str) -> str:
    if "'" in word or "\n" in word:
        raise InputError(f"the path {word!r} cannot be written into a script")
    return f"'{word}'"


def _mark(path: Path) -> list[object]:
    """What changes when a file does; the form of what is kept, too."""
    try:
        state = path.stat()
    except OSError:
        return [_FORM]
    return [_FORM, state.st_size, state.st_mtime_ns, state.st_mode, state.st_ino]


def _mapping(value: object) -> dict[str, object]:
    return {str(key): item for key, item in value.items()} if isinstance(value, dict) else {}
