# SPDX-License-Identifier: GPL-2.0-or-later
"""One lasting source tree with its build folder, in which every flavour of a QEMU is built in turn.

To go from one set of patches to another, only files whose content changes are
written; all others keep their time stamps, so that ninja compiles what the
change concerns and nothing else.  The unpatched version of each file that was
ever changed is kept beside the tree, and put there before the change is made:
the tree can always be brought back, even after a kill in the middle.

    tree/source/     what ninja sees
    tree/pristine/   unpatched versions of files that have been changed
    tree/absent      names of files that the unpatched source does not have
    tree/build/
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from harness.toolchain.patches import Patch, apply_series


class WorkTree:
    """A source tree that remembers what it was before any patch.  Use it under a lock."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.source = root / "source"
        self.build = root / "build"
        self._pristine = root / "pristine"
        self._absent = root / "absent"

    def become(self, patches: Sequence[Patch]) -> list[str]:
        """Make the tree the source with exactly these patches; returns what was rewritten.

        All patches are applied to copies first: if one does not fit, the tree
        stays as it was.
        """
        with tempfile.TemporaryDirectory(prefix="stage.", dir=self.root) as folder:
            stage = Path(folder)
            touched = apply_series(patches, stage, self._original)
            names = touched | self._changed_before()
            return [name for name in sorted(names) if self._settle(name, stage, name in touched)]

    def refresh(self, upstream: Path, names: Sequence[str], gone: Sequence[str]) -> None:
        """Take over files from a tree that somebody works on: the unpatched source has changed."""
        absent = self._absent_names()
        for name in names:
            changed = (self._pristine / name).exists() or name in absent
            target = self._pristine / name if changed else self.source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            # Not its time stamp: a file put back to what it was yesterday has changed now.
            shutil.copy(upstream / name, target, follow_symlinks=False)
        for name in gone:
            (self.source / name).unlink(missing_ok=True)
            (self._pristine / name).unlink(missing_ok=True)
        if absent & set(names):
            self._write_absent(absent - set(names))

    def _original(self, name: str) -> Path | None:
        kept = self._pristine / name
        if kept.exists():
            return kept
        here = self.source / name
        return here if here.exists() and name not in self._absent_names() else None

    def _settle(self, name: str, stage: Path, patched: bool) -> bool:
        """Give one file of the tree the content that it should have; False if it has it."""
        wanted = stage / name if patched else self._original(name)
        target = self.source / name
        if wanted is None or not wanted.exists():
            if not target.exists():
                return False
            self._keep(name)
            target.unlink()
            return True
        content = wanted.read_bytes()
        if target.exists() and target.read_bytes() == content:
            return False
        self._keep(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        # A new file renamed into place: a kill leaves the old one or the new one, and
        # its time stamp is now, which is what makes ninja look at it.
        fresh = target.with_name(f".{target.name}.new")
        fresh.write_bytes(content)
        fresh.chmod(wanted.stat().st_mode & 0o777)
        fresh.replace(target)
        return True

    def _keep(self, name: str) -> None:
        """Put the unpatched version aside before the file is changed for the first time."""
        kept = self._pristine / name
        if kept.exists() or name in self._absent_names():
            return
        here = self.source / name
        if not here.exists():
            self._write_absent(self._absent_names() | {name})
            return
        kept.parent.mkdir(parents=True, exist_ok=True)
        fresh = kept.with_name(f".{kept.name}.new")
        shutil.copy2(here, fresh)
        fresh.replace(kept)

    def _changed_before(self) -> set[str]:
        kept = {str(path.relative_to(self._pristine)) for path in self._pristine.rglob("*") if path.is_file()}
        return {name for name in kept if not Path(name).name.endswith(".new")} | self._absent_names()

    def _absent_names(self) -> set[str]:
        return set(self._absent.read_text("utf-8").splitlines()) if self._absent.exists() else set()

    def _write_absent(self, names: set[str]) -> None:
        fresh = self._absent.with_name("absent.new")
        fresh.write_text("".join(f"{name}\n" for name in sorted(names)), encoding="utf-8")
        fresh.replace(self._absent)
