# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels, modules and the image's recipe, as far as no build is needed."""

from __future__ import annotations

import lzma
import struct
from pathlib import Path

import pytest

from harness.errors import InputError
from harness.toolchain.image import load_order, module_depends
from harness.toolchain.kernel import kernel_release, module_name, named_kernel, read_module
from harness.toolchain.recipe import read_recipe

RELEASE = "6.1.0-99-test"


def vmlinuz(path: Path, release: str = RELEASE) -> Path:
    head = bytearray(0x4000)
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", head, 0x20E, 0x3000 - 0x200)
    text = f"{release} (builder) #1 SMP".encode() + b"\0"
    head[0x3000 : 0x3000 + len(text)] = text
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head)
    return path


def module(path: Path, depends: str) -> Path:
    path.write_bytes(b"\x7fELF\0license=GPL\0depends=" + depends.encode() + b"\0name=x\0")
    return path


class TestKernel:
    def test_release(self, tmp_path: Path) -> None:
        assert kernel_release(vmlinuz(tmp_path / "vmlinuz")) == RELEASE

    @pytest.mark.parametrize("content", [b"", b"text", bytes(0x1000)])
    def test_not_a_kernel(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "file").write_bytes(content)
        with pytest.raises(InputError, match="is not an x86 kernel"):
            named_kernel(tmp_path / "file")

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="there is no kernel at"):
            named_kernel(tmp_path / "none")

    def test_unpacked_root(self, tmp_path: Path) -> None:
        vmlinuz(tmp_path / "boot" / f"vmlinuz-{RELEASE}")
        modules = tmp_path / "lib" / "modules" / RELEASE
        modules.mkdir(parents=True)
        (modules / "modules.builtin").write_text("kernel/drivers/char/virtio-rng.ko\n")
        headers = tmp_path / "usr" / "src" / f"linux-headers-{RELEASE}"
        headers.mkdir(parents=True)
        (headers / "Module.symvers").touch()
        (headers / ".config").write_text('CONFIG_CC_VERSION_TEXT="gcc-12 (Debian 12.2.0) 12.2.0"\n')
        by_folder = named_kernel(tmp_path)
        assert by_folder == named_kernel(tmp_path / "boot" / f"vmlinuz-{RELEASE}")
        assert (by_folder.release, by_folder.modules_dir, by_folder.headers) == (RELEASE, modules, headers)
        assert by_folder.builtin() == {"virtio_rng"}
        assert by_folder.compiler == "gcc-12"

    def test_lone_kernel_has_no_headers(self, tmp_path: Path) -> None:
        found = named_kernel(vmlinuz(tmp_path / "vmlinuz"))
        assert found.headers is None
        assert found.modules_dir is None

    def test_build_tree_without_symbols(self, tmp_path: Path) -> None:
        vmlinuz(tmp_path / "arch" / "x86" / "boot" / "bzImage")
        with pytest.raises(InputError, match="without Module"):
            named_kernel(tmp_path)

    def test_folder_without_a_kernel(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no vmlinuz"):
            named_kernel(tmp_path)


class TestModules:
    @pytest.mark.parametrize("name", ["virtio-rng.ko", "virtio_rng.ko.xz", "virtio-rng.ko.zst"])
    def test_name(self, name: str) -> None:
        assert module_name(Path("/lib/x") / name) == "virtio_rng"

    def test_compressed(self, tmp_path: Path) -> None:
        (tmp_path / "a.ko.xz").write_bytes(lzma.compress(b"module"))
        assert read_module(tmp_path / "a.ko.xz") == b"module"

    def test_depends(self, tmp_path: Path) -> None:
        assert module_depends(module(tmp_path / "a.ko", "virtio-ring,virtio").read_bytes()) == [
            "virtio_ring",
            "virtio",
        ]
        assert module_depends(module(tmp_path / "b.ko", "").read_bytes()) == []
        assert module_depends(b"nothing") == []

    def test_order(self, tmp_path: Path) -> None:
        depends = {
            "net": "ring,failover",
            "ring": "virtio",
            "virtio": "",
            "failover": "",
            "pci": "ring,virtio,core",
        }
        files = {name: module(tmp_path / f"{name}.ko", text) for name, text in depends.items()}
        order = load_order(["pci", "net"], files, ["core"])
        assert order == ["virtio", "ring", "pci", "failover", "net"]

    def test_missing_module(self) -> None:
        with pytest.raises(InputError, match="the kernel has no module virtio_net"):
            load_order(["virtio_net"], {}, [])


class TestRecipe:
    def test_the_checkout_has_a_good_one(self, repository: Path) -> None:
        recipe = read_recipe(repository / "vm-images" / "image.yaml")
        assert recipe.programs["/init"] == "init"
        assert recipe.directories["/root"] == 0o700
        for name in recipe.programs.values():
            assert (repository / "vm-images" / "guest" / f"{name}.c").exists(), name

    @pytest.mark.parametrize(
        ("text", "message"),
        [("{", "not YAML"), ("suite: x\nunknown: 1\n", "recipe.yaml: kernel: "), ("[]", "recipe.yaml")],
    )
    def test_located_errors(self, tmp_path: Path, text: str, message: str) -> None:
        (tmp_path / "recipe.yaml").write_text(text)
        with pytest.raises(InputError, match=message):
            read_recipe(tmp_path / "recipe.yaml")
