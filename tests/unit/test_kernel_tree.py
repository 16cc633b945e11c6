# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel source of the user's: what is one, what is refused, and which options were lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.arch import GUEST
from harness.errors import InputError
from harness.events import EventStream
from harness.scenario.load import load_scenario
from harness.toolchain.cache import Cache
from harness.toolchain.kernel_files import keep_for_modules, lost_options
from harness.toolchain.kernel_tree import is_source_tree, tree_kernel
from harness.toolchain.run import ProgramFailed

#: What of kbuild is called: it configures, compiles one file, and installs a module.
_MAKEFILE = """\
SRC := $(CURDIR)
BOOT := $(O)/arch/ARCH/boot
defconfig tinyconfig:
\tmkdir -p $(O) && echo "# $@" > $(O)/.config
olddefconfig:
\tgrep -v "$$(cat $(SRC)/refuses)" $(O)/.config | sed 's/^\\(.*\\)=n$$/# \\1 is not set/' > $(O)/.new
\tmv $(O)/.new $(O)/.config
TARGET: $(BOOT)/TARGET
$(BOOT)/TARGET: $(SRC)/mm/page_alloc.c
\t@echo "  CC      mm/other.o"
\t@echo "  CC [M]  mm/page_alloc.o"
\t@$(CC) -c -o $(O)/page_alloc.o $<
\t@echo "  LD      vmlinux"
\tmkdir -p $(BOOT) $(O)/include/config $(O)/fs
\tcp $(O)/page_alloc.o $@
\techo 6.1.0-mine > $(O)/include/config/kernel.release
\tcp $(O)/page_alloc.o $(O)/fs/some.ko
\techo fs/some.o > $(O)/modules.order
\ttouch $(O)/Module.symvers
modules: TARGET
modules_install:
\tmkdir -p $(INSTALL_MOD_PATH)/lib/modules/6.1.0-mine
\tcp $(O)/fs/some.ko $(INSTALL_MOD_PATH)/lib/modules/6.1.0-mine
"""
_MERGE = '#!/bin/sh\n# -m -O FOLDER BASE FRAGMENT...\nshift 4\ncat "$@" >> .config\n'


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "linux"
    for name, text in {
        "Kbuild": "",
        "Kconfig": "",
        "MAINTAINERS": "",
        "Makefile": _MAKEFILE.replace("TARGET", GUEST.kernel.target).replace("ARCH", GUEST.kernel.source),
        "refuses": "nothing",
        "mm/page_alloc.c": "int free_pages;\n",
        "include/linux/mm.h": "",
        f"arch/{GUEST.kernel.source}/Makefile": "",
        "scripts/kconfig/merge_config.sh": _MERGE,
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "scripts" / "kconfig" / "merge_config.sh").chmod(0o755)
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", EventStream())


def state(tree: Path) -> dict[str, bytes]:
    return {str(path.relative_to(tree)): path.read_bytes() for path in tree.rglob("*") if path.is_file()}


def test_a_tree_is_built_beside_and_what_is_used_is_kept(tree: Path, cache: Cache) -> None:
    before = state(tree)
    first = tree_kernel(cache, tree)
    assert state(tree) == before
    assert first.release == "6.1.0-mine"
    assert first.vmlinuz.name == GUEST.image_name(first.release)
    assert first.modules_dir is not None and set(first.module_files()) == {"some"}
    assert first.headers is not None and (first.headers / "include" / "linux" / "mm.h").exists()
    content = first.vmlinuz.read_bytes()
    assert tree_kernel(cache, tree) == first  # nothing has changed

    # What somebody has of the first build is still that.
    (tree / "mm" / "page_alloc.c").write_text("int free_pages, and_more;\n")
    second = tree_kernel(cache, tree)
    assert second.digest != first.digest
    assert first.vmlinuz.read_bytes() == content != second.vmlinuz.read_bytes()
    # In one folder, so that what did not change is not compiled again; another configuration has another.
    assert len(list(cache.folder("work").iterdir())) == 1
    tree_kernel(cache, tree, "tinyconfig")
    assert len(list(cache.folder("work").iterdir())) == 2


def test_what_the_compiler_says_is_said_of_the_tree(tree: Path, cache: Cache) -> None:
    file = tree / "mm" / "page_alloc.c"
    file.write_text("int free_pages;\nint more = nobody;\n")
    with pytest.raises(ProgramFailed) as caught:
        tree_kernel(cache, tree)
    error = caught.value
    assert error.exit_code == 3
    lines = error.message.splitlines()
    assert lines[0].startswith(f"cannot build the kernel in {tree} ({GUEST.kernel.target}): make failed")
    assert f"{file}:2:12: error: " in lines[1]
    assert "nobody" in lines[1]
    # Not what others compiled meanwhile.
    assert "mm/other.o" not in error.message
    log = Path(lines[-1].removeprefix("the whole output: "))
    assert "mm/other.o" in log.read_text()
    # Mended, it goes on where it was.
    file.write_text("int free_pages;\n")
    tree_kernel(cache, tree)


def test_a_source_that_does_not_take_what_a_guest_needs(tree: Path, cache: Cache) -> None:
    (tree / "refuses").write_text("CONFIG_VIRTIO_NET=")
    with pytest.raises(InputError, match="does not take CONFIG_VIRTIO_NET=y, which a guest needs"):
        tree_kernel(cache, tree)
    # One that a source need not have.
    (tree / "refuses").write_text("CONFIG_KSM=")
    tree_kernel(cache, tree)


def test_a_configuration_of_the_users_own(tree: Path, cache: Cache, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("CONFIG_MINE=y\n")
    kernel = tree_kernel(cache, tree, str(mine))
    assert kernel.headers is not None
    made = (kernel.headers / ".config").read_text()
    assert made.startswith("CONFIG_MINE=y\n")
    assert "CONFIG_VIRTIO_NET=y\n" in made
    with pytest.raises(InputError, match="there is no kernel configuration"):
        tree_kernel(cache, tree, str(tmp_path / "nowhere"))


def test_what_a_source_tree_is(tree: Path) -> None:
    assert is_source_tree(tree)
    built = tree / "arch" / GUEST.kernel.source / "boot"
    built.mkdir(parents=True)
    (built / GUEST.kernel.target).write_bytes(b"")
    assert not is_source_tree(tree)  # built in place: taken as it is
    (built / GUEST.kernel.target).unlink()
    (tree / "MAINTAINERS").unlink()
    assert not is_source_tree(tree)
    assert not is_source_tree(tree / "Kbuild")
    assert not is_source_tree(tree / "nowhere")


@pytest.mark.parametrize("mark", [".config", "include/config/auto.conf"])
def test_a_tree_that_is_configured_in_place_is_refused(tree: Path, tmp_path: Path, mark: str) -> None:
    (tree / mark).parent.mkdir(parents=True, exist_ok=True)
    (tree / mark).write_text("")
    with pytest.raises(InputError, match="is configured in place"):
        tree_kernel(Cache(tmp_path / "cache", EventStream()), tree)


def test_lost_options() -> None:
    made = "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=m\nCONFIG_D=y\n"
    assert lost_options(["CONFIG_A=y", "CONFIG_B=n", "CONFIG_C=m", "CONFIG_X=n", "# words"], made) == []
    # Off, made a module, not known, and on though it is to be off.
    wanted = ["CONFIG_B=y", "CONFIG_C=y", "CONFIG_X=y", "CONFIG_D=n"]
    assert lost_options(wanted, made) == wanted


def test_what_is_kept_is_of_both_folders(tmp_path: Path) -> None:
    source, build, into = (tmp_path / name for name in ("source", "build", "into"))
    arch = f"arch/{GUEST.kernel.source}"
    for folder, name, text in (
        (source, "Makefile", "source"),
        (build, "Makefile", "leads there"),
        (source, f"{arch}/Makefile", "source"),
        (source, "include/linux/mm.h", "source"),
        (build, "include/generated/autoconf.h", "build"),
        (source, "scripts/mod/modpost.c", "source"),
        (build, "scripts/mod/modpost", "build"),
        (build, "scripts/mod/modpost.o", "build"),
        (build, "Module.symvers", "build"),
        (source, "mm/page_alloc.c", "source"),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (build / arch).mkdir(parents=True)
    keep_for_modules((source, build), into)
    kept = {str(path.relative_to(into)): path.read_text() for path in into.rglob("*") if path.is_file()}
    assert kept == {
        "Makefile": "source",
        f"{arch}/Makefile": "source",
        "include/linux/mm.h": "source",
        "include/generated/autoconf.h": "build",
        "scripts/mod/modpost.c": "source",
        "scripts/mod/modpost": "build",
        "Module.symvers": "build",
    }


def test_the_configuration_is_a_name_or_a_path() -> None:
    assert load_scenario("idle", []).guest.kernel_config == "defconfig"
    scenario = load_scenario("idle", ["guest.kernel_config=/home/me/.config"])
    assert scenario.guest.kernel_config == "/home/me/.config"
    with pytest.raises(InputError, match="defconfig or tinyconfig, or a path"):
        load_scenario("idle", ["guest.kernel_config=allyesconfig"])
