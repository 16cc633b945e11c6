# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that boots from a disk image of the user's, which knows nothing of the testbed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from harness.testing import Freepage
from harness.testing.outcome import WrongInput
from harness.toolchain import Toolchain
from tests.vm.support.cloud_image import cloud_image

#: A distribution that is emulated boots in minutes.
LONGEST = 3600


@pytest.fixture(scope="module")
def image() -> Path:
    return cloud_image(Toolchain())


@pytest.mark.slow
@pytest.mark.timeout(LONGEST)
def test_a_cloud_image_is_migrated(freepage: Freepage, image: Path, folder: Path) -> None:
    """As they are published: qcow2, compressed."""
    published = folder / "published.qcow2"
    convert = [*Toolchain().host_program("qemu-img"), "convert", "-c", "-O", "qcow2"]
    subprocess.run([*convert, str(image), str(published)], check=True)
    before = published.stat()
    run = freepage.without_defaults().run("own-image", set={"guest.image": str(published)}, timeout=LONGEST)
    assert run.verdict == "pass", run
    command = (run.folder / "source.command").read_text()
    assert "-kernel" not in command
    assert run.result.versions["kernel"]["path"] is None
    assert "cloud-amd64" in run.result.versions["kernel"]["release"]
    assert "cloud-init" in (run.folder / "console.log").read_text(errors="replace")
    # Its memory was walked by its own kernel's word.
    assert run.result.witnesses is not None
    assert run.result.witnesses.kernel == run.result.versions["kernel"]["release"]
    # The user's own file is as it was, and the run's copy is gone.
    assert (published.stat().st_mtime_ns, published.stat().st_size) == (before.st_mtime_ns, before.st_size)
    assert not list(run.folder.glob("disk.*"))


@pytest.mark.slow
@pytest.mark.timeout(LONGEST)
def test_a_kernel_without_the_module_is_said(freepage: Freepage, image: Path) -> None:
    with pytest.raises(WrongInput, match=r"arm: info: the kernel .* of guest\.image has no module"):
        freepage.without_defaults().run(
            "own-image", arm="info", set={"guest.image": str(image)}, timeout=LONGEST
        )


def test_an_image_that_is_not_there_is_said_before_anything_boots(freepage: Freepage) -> None:
    with pytest.raises(WrongInput, match=r"guest\.image: the file /.*/image\.qcow2 cannot be read"):
        freepage.without_defaults().run("own-image")
