# SPDX-License-Identifier: GPL-2.0-or-later
"""The recipe of a guest image: ``vm-images/image.yaml``, read and checked."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from harness.arch import GUEST
from harness.errors import InputError


class OtherKernel(BaseModel):
    """Another kernel of Debian's: its suite, and what its module is built with.

    ``package``: the package that names it, where that is not the image's own kernel.  ``architectures``: the
    only ones that there is such a kernel for; none named: all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    suite: str
    tools: str | None = None
    package: str | None = None
    architectures: tuple[str, ...] = ()

    @property
    def is_here(self) -> bool:
        """Whether there is such a kernel for the guests' architecture."""
        return not self.architectures or GUEST.name in self.architectures


class Recipe(BaseModel):
    """What goes into a guest, as data.  Paths on the left are the guest's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    suite: str
    kernel: str
    kernels: dict[str, OtherKernel]
    packages: tuple[str, ...]
    programs: dict[str, str]
    binaries: dict[str, str]
    links: dict[str, str]
    modules: tuple[str, ...]
    drivers: tuple[str, ...]
    optional: tuple[str, ...] = ()
    files: dict[str, str]
    directories: dict[str, int]
    size_limit: int


def read_recipe(path: Path) -> Recipe:
    """Read a recipe; errors name the file and the key."""
    try:
        return Recipe.model_validate(yaml.safe_load(path.read_text("utf-8").replace("{arch}", GUEST.debian)))
    except OSError as error:
        raise InputError(f"cannot read the recipe {path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not YAML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path}: {where}: {first['msg']}") from error
