# SPDX-License-Identifier: GPL-2.0-or-later
"""Finds the sources that are not Python: the guest's module, QEMU's patches, the guest's images.

In a checkout (an editable install, too) they are the checkout's own folders, so
that an edit counts at once.  A wheel carries the same folders inside the package,
in ``harness/_sources``; pyproject.toml says which.  Names and contents are the
same in both, so the cache finds what it has under the same keys.

    recipe = read_recipe(sources() / "vm-images" / "image.yaml")
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Final

from harness.errors import MachineryError

FOLDERS: Final = ("guest-module", "qemu-patches", "vm-images")

_CARRIED: Final = "_sources"


def package_folder() -> Path:
    """The folder of the package ``harness``."""
    return Path(str(resources.files("harness"))).resolve()


def installation() -> Path:
    """What the package is imported from: a checkout, or a folder of site-packages.

    All that is ours lies below it.  Whoever makes a mount namespace or a machine
    of their own has to leave it visible in there.
    """
    return package_folder().parent


def checkout() -> Path | None:
    """The checkout that the package runs from; None if it was installed from a wheel."""
    return _checkout(package_folder())


def sources() -> Path:
    """The folder that holds :data:`FOLDERS`.

    Raises :class:`MachineryError` if there are neither the checkout's nor the wheel's.
    """
    return _sources(package_folder())


def python_files() -> Iterator[Path]:
    """The package's own files: Python and YAML, without the sources that a wheel carries."""
    package = package_folder()
    for pattern in ("*.py", "*.yaml"):
        yield from (
            path for path in package.rglob(pattern) if _CARRIED not in path.relative_to(package).parts
        )


def _checkout(package: Path) -> Path | None:
    root = package.parent
    return root if all((root / name).is_dir() for name in FOLDERS) else None


def _sources(package: Path) -> Path:
    root = _checkout(package) or package / _CARRIED
    for name in FOLDERS:
        if not (root / name).is_dir():
            raise MachineryError(
                f"the folder {name} is neither beside the package nor in it ({package})",
                hint="install the package anew, from a wheel or with pip install --editable CHECKOUT",
            )
    return root
